"""What the parts found, as JSON and as text; needs python alone."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["Part", "write_results"]


@dataclass
class Part:
    """One part: how it ended and the rows that it left."""

    name: str
    planned: float
    seconds: float = 0.0
    status: str = "not started"
    facts: dict = field(default_factory=dict)  # card and software
    rows: list[dict] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether it ran to its end (or was skipped for a missing package) and all checks held."""
        ended = self.status == "ran" or self.status.startswith("skipped: needs")
        return ended and all(row.get("ok", True) for row in self.rows)

    def read(self, file: Path) -> None:
        """Take rows, facts and the reason of a failure from the lines that the part wrote."""
        for line in file.read_text().splitlines() if file.is_file() else ():
            try:
                entry = json.loads(line)
            except ValueError:  # cut where the process died
                continue
            if "facts" in entry:
                self.facts = entry["facts"]
            elif "status" in entry:
                self.status = entry["status"]
            else:
                self.rows.append(entry)


def write_results(parts: list[Part], output: Path, head: dict[str, str]) -> None:
    """Write gpu_check.json and gpu_check.txt; each is whole or as before."""
    head = head | next((part.facts for part in parts if part.facts), {})
    whole = {**head, "parts": [asdict(part) | {"good": part.good} for part in parts]}
    _replace(output / "gpu_check.json", json.dumps(whole, indent=1) + "\n")
    lines = [f"{name}: {value}" for name, value in head.items()]
    used = sum(part.seconds for part in parts)
    lines += [f"seconds: {used:.0f} of {sum(part.planned for part in parts):.0f} planned", ""]
    for part in parts:
        mark = "" if part.good else "  <-- look here"
        timing = f"{part.seconds:.0f} s of {part.planned:.0f} s"
        lines += [f"== {part.name}: {part.status} ({timing}){mark}", *_table(part.rows), ""]
    _replace(output / "gpu_check.txt", "\n".join(lines))


def _table(rows: list[dict]) -> list[str]:
    """Rows as aligned columns; rows with the same columns in sequence share a head."""
    lines, block = [], []
    for row in rows:
        if block and list(row) != list(block[0]):
            lines += _aligned(block)
            block = []
        block.append(row)
    return lines + (_aligned(block) if block else [])


def _aligned(rows: list[dict]) -> list[str]:
    columns = list(rows[0])
    if columns == ["name", "note"]:
        return [f"  {row['name']}: {row['note']}" for row in rows]
    cells = [[str(name) for name in columns]]
    cells += [[_shown(row[name]) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return [
        "  " + "  ".join(
            cell.ljust(width) if i == 0 or isinstance(rows[0][columns[i]], str)
            else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]  # fmt: skip


def _shown(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "-" if value is None else str(value)


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
