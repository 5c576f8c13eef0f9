"""JSON files: written atomically, read into dataclasses with errors that name the place."""

from __future__ import annotations

import json
import os
from dataclasses import MISSING, fields
from pathlib import Path

from .atomic import replacing

__all__ = ["from_row", "read_json", "write_json"]


def read_json(path: str | Path):
    """The value a JSON file holds; ValueError naming the file if it is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON in UTF-8 ({error}); write the file again") from None


def write_json(path: str | Path, value, indent: int | None = None) -> None:
    """Write a value as JSON, atomically; paths become strings, NaN is a ValueError."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=os.fspath, indent=indent)
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def from_row(kind, row, where: str):
    """A dataclass `kind` from a JSON object; ValueError names the place and the bad fields."""
    if not isinstance(row, dict):
        raise ValueError(f"{where}: {type(row).__name__} instead of an object {{...}}")
    known = {
        each.name: each.default is MISSING and each.default_factory is MISSING
        for each in fields(kind)
    }
    wrong = [f"unknown field {name}; rename or remove it" for name in row if name not in known]
    wrong += [f"no field {name}; add it" for name in known if known[name] and name not in row]
    if wrong:
        raise ValueError(f"{where}: {wrong[0]} (fields: {', '.join(known)})")
    try:
        return kind(**row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
