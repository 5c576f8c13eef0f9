"""Shares and differences as the tables of the studies print them: percent, points, intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..study.statistics import t_interval

__all__ = ["points", "range_of_points", "share", "share_with_interval", "size"]


def share(values: Sequence[float]) -> str:
    """Mean of shares in percent; empty without a value."""
    mean = np.mean(values) if len(values) else np.nan
    return f"{100 * mean:.1f}" if np.isfinite(mean) else ""


def share_with_interval(values: Sequence[float]) -> str:
    """Mean of shares in percent with its 95 % t interval, if there are two."""
    if len(values) < 2:
        return share(values)
    low, high = t_interval(np.array(values))
    return f"{share(values)} [{100 * low:.1f}, {100 * high:.1f}]"


def points(value: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * value:+.1f}" if np.isfinite(value) else ""


def size(value: float) -> str:
    """A spread of shares in points."""
    return f"{100 * value:.1f}" if np.isfinite(value) else ""


def range_of_points(low: float | None, high: float | None) -> str:
    """An interval of differences; empty if it is not known."""
    known = low is not None and high is not None and np.isfinite(low) and np.isfinite(high)
    return f"[{points(low)}, {points(high)}]" if known else ""
