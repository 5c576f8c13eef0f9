"""Make stored rows of a study again and compare: its command must give a row back."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from ..files import read_json
from .arms import Study, runs_of
from .execute import make_row, stored_table
from .provenance import provenance
from .rows import read_table, rows_of
from .training import folder_of, prepare, train_stage_1

__all__ = ["compare_rows", "make_again"]


def make_again(study: Study, size_name: str, count: int) -> Iterator[tuple[str, str]]:
    """Train and score runs of the stored table again, drawn with seed 0 from their sorted names.

    Runs made on this kind of processor are drawn before others, which need not be equal. They lie
    in the study's folder under `again`, and start from its visual tokens and first stages, which
    are made if they are not there. A killed call goes on where it was, and a row that lies there is
    compared as it is: remove `again` to make rows anew.

    Yields: run and `compare_rows` of it.
    """
    size, folder = study.sizes[size_name], folder_of(study, size_name)
    stored = rows_of(read_table(stored_table(study, size_name)))
    runs = {run.name: run for run in runs_of(study, size)}
    drawn = random.Random(0).sample(sorted(stored), len(stored))
    here = provenance()["processor"]
    drawn.sort(key=lambda name: stored[name]["processor"] != here)
    prepare(study, size, folder)
    for name in drawn[:count]:
        run, home = runs[name], folder / "again" / name
        if study.shared_stage_1:
            train_stage_1(size, folder, run.block)
        made = read_json(make_row(study, size, folder, run, home))
        yield name, compare_rows(stored[name], made)


def compare_rows(stored: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """How a row that was made again differs from the stored one, in words; "" if it is equal.

    >>> row = {"vectors": "a3f", "metrics": [], "hits": []}
    >>> compare_rows(row, row)
    ''
    """
    if all(stored[name] == made[name] for name in ("vectors", "metrics", "hits")):
        return ""
    pairs = zip(stored["metrics"], made["metrics"], strict=True)
    apart = [100 * abs(old["recall@10"] - new["recall@10"]) for old, new in pairs]
    spread = f"{fmean(x * x for x in apart) ** 0.5:.1f} points (root mean square of {len(apart)})"
    names = ["processor", "threads", *filter(re.compile("version_").match, stored), "commit"]
    others = [f"{name} was {stored[name]}, is {made[name]}"
              for name in names if stored[name] != made[name]]  # fmt: skip
    hits = ", every hit equal" * (stored["hits"] == made["hits"])
    told = ", ".join(others) or "all else equal"
    return f"recall@10 by {spread}, {max(apart):.1f} at most{hits}; {told}"
