"""Baselines that learn nothing from pairs, on the same tasks as a model.

Composed queries change little of what they show ("the same with dark skin tone"), and some answers
share words with their question, so a score means something only beside these:

    thumbnails         pixels of the image or of the first frame, text ignored
    BM25               words of queries and candidates, media ignored
    text only          a model's vectors of the words alone
    random projection  pixels and words, both hashed into one space without any training
"""

# Shapes: N items, D embedding size.

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.items import images_of, videos_of
from ..data.media import load_image, thumbnail
from ..data.modality import Modality, modality_of
from ..data.videos import read_clip
from ..tables import text_table
from .families import family_interval
from .results import FAMILIES_NOTE, EvaluationResult, format_families, percent
from .tasks import RetrievalTask, evaluate

__all__ = [
    "Baseline", "RandomProjection", "TextOnly", "Thumbnails", "ahead_of", "baseline_rows",
    "format_baselines", "run_baselines", "says_something", "shows_something", "without_sentence",
]  # fmt: skip


NO_MEDIA = "a side has items without image or video"
NO_WORDS = "a side has items without words"
NO_MODEL = "no text model was given"


class Thumbnails:
    """Embedder without weights: the pixels of a thumbnail of the image or of the first frame."""

    def embed(self, items: Sequence[Mapping], media_root: str | Path = ".",
              progress: bool = True) -> np.ndarray:  # fmt: skip
        """Embed items by their pixels: [N, D] float32 unit vectors, mean removed; text ignored."""
        vectors = np.stack([thumbnail(_first_frame(item, media_root)) for item in items])
        vectors -= vectors.mean(1, keepdims=True)
        return _unit(vectors)


@dataclass(frozen=True)
class TextOnly:
    """A model that is shown the words of items alone."""

    embedder: object

    def embed(self, items: Sequence[Mapping], media_root: str | Path = ".",
              progress: bool = True) -> np.ndarray:  # fmt: skip
        """Embed the texts of items, which all need one: [N, D] as the embedder gives them."""
        texts = [{"text": _text_of(item)} for item in items]
        return self.embedder.embed(texts, media_root=media_root, progress=progress)


@dataclass(frozen=True)
class RandomProjection:
    """Embedder without weights for any item: random projections of pixels and of words."""

    dim: int = 512
    seed: int = 0

    def embed(self, items: Sequence[Mapping], media_root: str | Path = ".",
              progress: bool = True) -> np.ndarray:  # fmt: skip
        """Embed items: [N, D] float32 unit vectors; pixels and words count the same."""
        vectors = np.zeros((len(items), self.dim), np.float32)
        shown = [row for row, item in enumerate(items) if modality_of(item) & ~Modality.TEXT]
        if shown:
            pixels = Thumbnails().embed([items[row] for row in shown], media_root)
            rng = np.random.default_rng(self.seed)
            matrix = rng.standard_normal((pixels.shape[1], self.dim), dtype=np.float32)
            vectors[shown] = _unit(pixels @ matrix)
        for row, item in enumerate(items):
            words = np.zeros(self.dim, np.float32)
            for word in _words_of(item):
                key = hashlib.blake2b(f"{self.seed} {word}".encode(), digest_size=8).digest()
                place, sign = divmod(int.from_bytes(key, "big"), 2)
                words[place % self.dim] += 2 * sign - 1
            vectors[row] += _unit(words[None])[0]
        return _unit(vectors)


def shows_something(task: RetrievalTask) -> bool:
    """Whether all queries and candidates of a task have an image or a video."""
    return all(modality_of(item) & ~Modality.TEXT for item in (*task.queries, *task.candidates))


def says_something(task: RetrievalTask) -> bool:
    """Whether all queries and candidates of a task have words."""
    return all(_words_of(item) for item in (*task.queries, *task.candidates))


def without_sentence(task: RetrievalTask) -> RetrievalTask:
    """The same task with the text removed from every query."""
    queries = [{key: value for key, value in q.items() if key != "text"} for q in task.queries]
    return replace(task, queries=queries)


@dataclass(frozen=True)
class Baseline:
    """Scores of a baseline in single pools, and why it has none for other tasks.

    result          of the tasks that it can do; None if it can do none
    not_applicable  {(task, split): reason}
    """

    result: EvaluationResult | None
    not_applicable: dict[tuple[str, str], str]


def run_baselines(
    tasks: Sequence[RetrievalTask],
    media_root: str | Path = ".",
    text_model: object | None = None,
    seed: int = 0,
) -> dict[str, Baseline]:
    """Run every baseline on the tasks that it can do: {name: Baseline}.

    Args
        text_model  an embedder for "text only", such as the model that is compared
        seed        of the intervals and of the random projection
    """

    def embedded(embedder):
        return lambda some: evaluate(embedder, some, media_root, False, None, seed, ("single",))

    ways = {
        "thumbnails": (embedded(Thumbnails()), shows_something, NO_MEDIA),
        "BM25": (lambda some: _bm25(some, seed), says_something, NO_WORDS),
        "text only": (embedded(TextOnly(text_model)), says_something, NO_WORDS),
        "random projection": (embedded(RandomProjection(seed=seed)), lambda task: True, ""),
    }
    if text_model is None:
        ways["text only"] = (None, lambda task: False, NO_MODEL)
    found = {}
    for name, (run, can, reason) in ways.items():
        able = [task for task in tasks if can(task)]
        others = {(t.name, t.split): reason for t in tasks if t not in able}
        found[name] = Baseline(run(able) if able else None, others)
    return found


def baseline_rows(
    results: Mapping[str, EvaluationResult],
    baselines: Mapping[str, Baseline],
    tasks: Sequence[RetrievalTask],
    metric: str = "recall@10",
) -> list[dict]:
    """Models beside baselines in single pools: rows of task, split, kind, n, families,
    effective_families, chance, and by column name a `Score`, None where it is not applicable.
    """
    rows = []
    for task in tasks:
        names = (task.name, task.split, metric)
        scores = {name: result.score(*names) for name, result in results.items()}
        for name, baseline in baselines.items():
            absent = (task.name, task.split) in baseline.not_applicable
            scores[name] = None if absent else baseline.result.score(*names)
        first = next(score for score in scores.values() if score is not None)
        shared = ("n", "families", "effective_families", "chance")
        row = {"task": task.name, "split": task.split, "kind": task.kind}
        rows.append(row | {name: getattr(first, name) for name in shared} | scores)
    return rows


def ahead_of(
    results: Mapping[str, EvaluationResult],
    baselines: Mapping[str, Baseline],
    tasks: Sequence[RetrievalTask],
    metric: str = "recall@10",
) -> list[dict]:
    """The tasks in which a baseline finds more than every model, [] if there is none.

    Rows of task (with its split), families, the best model and baseline with their scores, and what
    the baseline has more, paired by query with its interval over families; shares as text, in
    percent. That interval does not know that the best of several baselines was taken.
    """
    found = []
    for row in baseline_rows(results, baselines, tasks, metric):
        model = max(results, key=lambda name: row[name].value)
        able = [name for name in baselines if row[name] is not None]
        best = max(able, key=lambda name: row[name].value, default=model)
        if row[best].value > row[model].value:
            more = np.subtract(row[best].per_query, row[model].per_query)
            labels = results[model].families[row["split"]][row["task"]]
            low, high = family_interval(more, labels, results[model].seed)
            said = {name: percent(row[name].value, row[name].low, row[name].high)
                    for name in (model, best)}  # fmt: skip
            found.append({
                "task": f"{row['task']}, {row['split']}", "families": format_families(row),
                "model": model, "recall": said[model], "baseline": best, "its recall": said[best],
                "more": percent(float(more.mean()), low, high, "+"),
            })  # fmt: skip
    return found


def format_baselines(
    results: Mapping[str, EvaluationResult],
    baselines: Mapping[str, Baseline],
    tasks: Sequence[RetrievalTask],
    metric: str = "recall@10",
) -> str:
    """Print `baseline_rows` as text, in percent; below it why scores are absent."""
    columns = [*results, *baselines]
    rows = [
        [row["task"], row["split"], row["n"], format_families(row), f"{100 * row['chance']:.1f}"]
        + [percent(s.value, s.low, s.high) if s else "–" for s in (row[name] for name in columns)]
        for row in baseline_rows(results, baselines, tasks, metric)
    ]
    reasons = {
        f"– {name}: {reason}"
        for name, each in baselines.items() for reason in each.not_applicable.values()
    }  # fmt: skip
    head = ["task", "split", "n", "families", "chance", *columns]
    title = f"{metric}, single pool, in percent [95 % interval over families]"
    return "\n".join([title, text_table(rows, head, left=2), FAMILIES_NOTE, *sorted(reasons)])


def _bm25(tasks: Sequence[RetrievalTask], seed: int) -> EvaluationResult:
    """Score tasks by BM25 (k1 1.5, b .75, Lucene's form), idf from each task's candidates."""
    import bm25s

    items = {
        identity: item
        for task in tasks
        for identity, item in zip(
            task.query_ids + task.candidate_ids, task.queries + task.candidates, strict=True
        )
    }
    words = [_words_of(item) for item in items.values()]
    places = {identity: np.array([row], np.float32) for row, identity in enumerate(items)}

    def scorer(queries, candidates, modality, *, hidden):
        index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
        index.index([words[int(row)] for row in candidates[:, 0]], show_progress=False)
        return np.stack([index.get_scores(words[int(row)]) for row in queries[:, 0]])

    found = evaluate(None, tasks, vectors=places, seed=seed, pools=("single",),
                     scorers={"BM25": scorer})  # fmt: skip
    scores = [replace(s, pool="single") for s in found.scores if s.pool == "single, BM25"]
    return replace(found, scores=scores)


def _text_of(item: Mapping) -> str:
    return re.sub(r"<\|(IMAGE|VIDEO)\|>", "", item.get("text", "")).strip()


def _words_of(item: Mapping) -> list[str]:
    return re.findall(r"\w+", _text_of(item).lower())


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _first_frame(item: Mapping, root: str | Path) -> Image.Image:
    if images_of(item):
        return load_image(images_of(item)[0], root)
    return read_clip(videos_of(item)[0], root, 1.0, 1, 1).frames[0]
