"""Endpoints: plain means over named tasks, fixed before a model is looked at (docs/study.md)."""

# Shapes: Q queries of a task.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .families import enough_families
from .results import EvaluationResult
from .tasks import RetrievalTask

__all__ = ["ENDPOINTS", "Endpoint", "endpoint_tasks", "endpoint_values"]


@dataclass(frozen=True)
class Endpoint:
    """A mean over tasks, each with equal weight, of one metric in one pool."""

    name: str
    tasks: tuple[str, ...]
    pool: str = "single"
    metric: str = "recall@10"
    kind: str = ""
    """Of `RetrievalTask`: in a study of other data, which has none of the tasks, all of that kind
    are meant; empty: none."""


_PLAIN = ("text → image", "image → text", "text → video", "image → image")
_INSTRUCTED = (
    "image + tone → image", "image + gender → image", "image + style → image",
    "image + moving → video", "video + change → video", "image + question → text",
    "text → image + text",
)  # fmt: skip
ENDPOINTS = {
    "P1a": Endpoint("plain, bare", _PLAIN, kind="plain"),
    "P1b": Endpoint("plain, as trained", tuple(f"{task}, asked" for task in _PLAIN), kind="asked"),
    "P2": Endpoint("instructed", _INSTRUCTED, kind="instructed"),
    "P3": Endpoint("instructed, one index", _INSTRUCTED, pool="mixed", kind="instructed"),
}
"""Endpoints of the emoji studies, as docs/study.md names them."""


def endpoint_tasks(
    endpoint: Endpoint, tasks: Sequence[RetrievalTask], split: str
) -> dict[str, list[str]]:
    """The endpoint's tasks that have enough families in a split: {name: [Q] families}.

    Depends on the tasks alone, so it is known before any model is evaluated. ValueError naming
    the tasks that are missing, or if none has MINIMUM_FAMILIES effective families.
    """
    families = {task.name: task.families for task in tasks if task.split == split}
    if lacking := [name for name in endpoint.tasks if name not in families]:
        raise ValueError(
            f"endpoint {endpoint.name!r}: split {split!r} has no task {', '.join(lacking)}; "
            "build the corpus anew"
        )
    kept = {name: families[name] for name in endpoint.tasks if enough_families(families[name])}
    if not kept:
        raise ValueError(
            f"endpoint {endpoint.name!r}: no task has enough families in split {split!r}; "
            "use another split"
        )
    return kept


def endpoint_values(
    endpoint: Endpoint, result: EvaluationResult, tasks: Sequence[RetrievalTask], split: str
) -> dict[str, list[float]]:
    """A model's values per query of the endpoint's tasks, {name: [Q]}; their `macro` is its value.

    With `endpoint_tasks` these are the arguments of `joint_family_bootstrap`.
    """
    return {
        name: result.score(name, split, endpoint.metric, endpoint.pool).per_query
        for name in endpoint_tasks(endpoint, tasks, split)
    }
