"""Search an index with queries of any modality: `search_items`, or `unite search`.

Results of many queries can be written as a TREC run, which ir_measures, trec_eval and ranx read.
"""

# Shapes: Q queries, D embedding size, k results.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from ..data.modality import Modality
from ..files import replacing
from ..model.embedder import UniteEmbedder
from ..model.router import ModalityRouter, router_file
from ..model.weights import CheckpointError
from .blocks import model_key
from .index import SearchResult, VectorIndex
from .modality_probe import PROBE_FILE, load_modality_probe
from .scorers import COSINE, Factorised, Scorer, for_queries
from .shards import truncate

__all__ = [
    "check_model", "has_first_factor", "load_factorised", "run_lines", "search_items", "write_run",
]  # fmt: skip


_BLOCK = 1024  # queries that are embedded and searched together
_TAG = "unite"  # of a run


def search_items(
    index: VectorIndex, embedder: UniteEmbedder, items: Sequence[dict], k: int = 10,
    modalities: Sequence[str | Modality] | None = None, scorer: Scorer = COSINE,
    media_root: str | Path = ".", where: Sequence[str] | None = None,
) -> SearchResult:  # fmt: skip
    """Embed queries and search an index of the same model.

    Args
        items  Q queries, as `UniteEmbedder.embed` takes them
        where  [Q] how errors name them
        k, modalities, scorer  as in `VectorIndex.search`
    Query vectors are truncated to the index's size (Matryoshka) after a scorer has read from them
    which modality is asked for.
    """
    vectors = embedder.embed(items, media_root, progress=False, where=where)
    scorer = for_queries(scorer, vectors)
    return index.search(truncate(vectors, index.dim), k, modalities, scorer)


def check_model(index: VectorIndex, embedder: UniteEmbedder) -> None:
    """Raise a ValueError if the index is known to hold another model's vectors."""
    if index.model and index.model != model_key(embedder):
        raise ValueError(
            "the index holds vectors of another model, or of other settings of this one: give the "
            "same model and the same `embed` as when the corpus was encoded"
        )


def has_first_factor(model: str | Path) -> bool:
    """Whether a folder, or hub id, has what `load_factorised` loads: a probe or a router."""
    return Path(model, PROBE_FILE).is_file() or router_file(model) is not None


def load_factorised(
    model: str | Path, temperature: float | None = None, probe: str | Path | None = None,
    key: str = "",
) -> Factorised:  # fmt: skip
    """Load the factorised score of a model: its fitted probe, or else the router trained with it.

    Args
        model        folder, or hub id if it has a router
        temperature  in place of the one that was fitted with the probe or trained with the router
        probe        file of the probe; None: in the model's folder
        key          `model_key` that the probe must have been fitted for; "": not checked
    ValueError if there is neither, no temperature, or a probe of another model.
    """
    if probe is not None or Path(model, PROBE_FILE).is_file():
        found = load_modality_probe(model if probe is None else probe)
        if key and found.model and found.model != key:
            raise ValueError(
                "the probe was fitted for another model, or for other settings of this one: fit "
                "it with `unite probe` and the same `embed` as the corpus"
            )
        return Factorised(found, temperature or found.temperature)
    first = _router(model)
    temperature = temperature or first.temperature
    if temperature is None:
        raise ValueError(
            f"{model}: its router has no temperature (it was trained with several or a learned "
            "one, or saved before routers had one): give one, or fit a probe with `unite probe`"
        )
    return Factorised(first, temperature)


def _router(model: str | Path) -> ModalityRouter:
    try:
        return ModalityRouter.load(model)
    except CheckpointError as error:
        raise ValueError(
            f"{model}: no {PROBE_FILE} and no router ({error}): fit a probe with `unite probe`"
        ) from None


def run_lines(index: VectorIndex, embedder: UniteEmbedder, queries: Iterable[tuple[str, dict, str]],
              media_root: str | Path = ".", **options) -> Iterator[list[str]]:  # fmt: skip
    """Yield each query's lines of a TREC run, best first: query Q0 candidate rank score tag.

    Args
        queries  (id, item, how errors name it); embedded in batches
        options  of `search_items`
    ValueError for an id with white space, which the format cannot hold.
    """
    queries = iter(queries)
    while batch := list(islice(queries, _BLOCK)):
        names, items, where = zip(*batch, strict=True)
        found = search_items(index, embedder, items, media_root=media_root, where=where, **options)
        for name, ids, scores in zip(names, index.names(found.rows), found.scores, strict=True):
            if wrong := [i for i in (name, *ids) if len(i.split()) != 1]:
                raise ValueError(f"id {wrong[0]!r}: ids in a TREC run have no white space")
            ranks = range(1, len(ids) + 1)
            yield [f"{name} Q0 {candidate} {rank} {score:.6f} {_TAG}"
                   for candidate, rank, score in zip(ids, ranks, scores, strict=False)]  # fmt: skip


def write_run(path: Path, lines: Iterable[list[str]], total: int) -> None:
    """Write a TREC run atomically, with a progress bar over its `total` queries."""
    from tqdm import tqdm

    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for result in tqdm(lines, "search", total, unit="query"):
            file.writelines(line + "\n" for line in result)
