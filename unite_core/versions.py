"""Versions of the packages that numbers depend on: noted with results, a difference is said."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

__all__ = ["note_versions", "warn_of_versions"]

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "numpy", "pillow", "av")


def note_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that decide vectors and weights."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def warn_of_versions(before: Mapping[str, str] | None, where: str) -> None:
    """Warn if work that goes on was begun with other versions; None if they were not noted."""
    now, before = note_versions(), before if isinstance(before, Mapping) else {}
    changes = [
        f"{name} {before.get(name, 'none')} before, {now.get(name, 'none')} now"
        for name in sorted({*before, *now} if before else ())
        if before.get(name) != now.get(name)
    ]
    if changes:
        warnings.warn(
            f"{where} was begun with other versions ({'; '.join(changes)}): numbers may differ in "
            "their last digits; install the former ones for equal results",
            stacklevel=3,
        )
