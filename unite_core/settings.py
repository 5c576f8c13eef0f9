"""TODO."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from .files import read_json, write_json

__all__ = ["read_config", "write_config"]


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field} must be one of {', '.join(allowed)}; not {value!r}")


def write_config(config, path: str | Path) -> None:
    """Save a configuration dataclass as JSON, atomically."""
    write_json(path, asdict(config), indent=2)


def read_config(kind, path: str | Path):
    """Read a configuration dataclass `kind` from JSON; unknown fields are refused by name."""
    values = read_json(path)
    known = {each.name for each in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(
            f"{path}: unknown field {', '.join(unknown)}; {kind.__name__} has "
            f"{', '.join(sorted(known))}"
        )
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
