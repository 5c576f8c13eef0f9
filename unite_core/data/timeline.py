"""Which frames of a video are taken: evenly spaced in time, from the first to the last."""

# Shapes: T frames.

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["choose_by_time", "choose_frames"]


_FRAME_STEP = 2  # frame counts are even, as in the released code


def choose_frames(total: int, duration: float, fps: float, min_frames: int,
                  max_frames: int) -> list[int]:  # fmt: skip
    """Indices of `duration * fps` frames, evenly spaced from the first to the last.

    Their number is even, within [min_frames, max_frames], and at most `total`: then all are taken.
    """
    low = math.ceil(min_frames / _FRAME_STEP) * _FRAME_STEP
    high = max(max_frames // _FRAME_STEP * _FRAME_STEP, 1)
    count = min(max(duration * fps, low), high)
    count = min(max(round(count / _FRAME_STEP) * _FRAME_STEP, 1), high, total)
    return np.linspace(0, total - 1, count).round().astype(int).tolist()


def choose_by_time(seconds: Sequence[float], duration: float, fps: float, min_frames: int,
                   max_frames: int) -> list[int]:  # fmt: skip
    """As `choose_frames`, of frames that are shown at `seconds` [T], in ascending order.

    Where no frame is off an even spacing by more than half a frame, the indices are evenly spaced.
    Otherwise the frames nearest to evenly spaced times are taken, each once.

    >>> choose_by_time([0, 1, 2, 3, 4, 5, 6, 7], 8.0, 0.5, 4, 4)
    [0, 2, 5, 7]
    >>> choose_by_time([0, 0.1, 0.2, 0.3, 0.4, 3, 6, 9], 10.0, 0.4, 4, 4)
    [0, 5, 6, 7]
    """
    total = len(seconds)
    chosen = choose_frames(total, duration, fps, min_frames, max_frames)
    times = np.asarray(seconds, dtype=float)
    even = np.linspace(times[0], times[-1], total)
    half = (times[-1] - times[0]) / max(total - 1, 1) / 2
    if np.abs(times - even).max() <= half or len(chosen) in (1, total):
        return chosen
    wanted = np.linspace(times[0], times[-1], len(chosen))
    after = np.searchsorted(times, wanted).clip(1, total - 1)
    nearest = after - (wanted - times[after - 1] <= times[after] - wanted)
    taken: list[int] = []
    for left, index in zip(range(len(chosen), 0, -1), nearest.tolist(), strict=True):
        taken.append(min(max(index, taken[-1] + 1 if taken else 0), total - left))
    return taken
