"""Queries to what they find in an index: `python -m unite_core.search INDEX --model MODEL ...`.

One query is given by `--text`, `--image` and `--video`, in the order in which its prompt shall name
them, and its results are printed. Many come from files with `--queries`, and what they find is
written as a TREC run, which ir_measures, trec_eval and ranx read.
"""

# Shapes: Q queries, D embedding size, k results.

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from ..data.modality import KEYS, Modality
from ..files import replacing
from ..model.embedder import UniteEmbedder
from .corpus import Corpus
from .encode import model_key
from .index import Found, VectorIndex, load_index
from .shards import cut

__all__ = ["check_model", "run_lines", "search_items"]


_BLOCK = 1024  # queries that are embedded and searched together
_TAG = "unite"  # of a run


def search_items(
    index: VectorIndex, embedder: UniteEmbedder, items: Sequence[dict], k: int = 10,
    modalities: Sequence[str | Modality] | None = None, standardise: bool = False,
    media_root: str | Path = ".", where: Sequence[str] | None = None,
) -> Found:  # fmt: skip
    """What each item finds in an index that the same model made.

    Args
        items  Q queries, as `UniteEmbedder.embed` takes them; `where` is how errors name them
        k, modalities, standardise  as in `VectorIndex.search`
    The vectors of queries are cut to the index's size (Matryoshka).
    """
    vectors = embedder.embed(items, media_root, progress=False, where=where)
    return index.search(cut(vectors, index.dim), k, modalities, standardise)


def check_model(index: VectorIndex, embedder: UniteEmbedder) -> None:
    """ValueError where the index is known to hold another model's vectors."""
    if index.model and index.model != model_key(embedder):
        raise ValueError(
            "the index holds vectors of another model, or of other settings of this one: give the "
            "same model and the same `embed` as when the corpus was encoded"
        )


def run_lines(index: VectorIndex, embedder: UniteEmbedder, queries: Iterable[tuple[str, dict, str]],
              media_root: str | Path = ".", **options) -> Iterator[list[str]]:  # fmt: skip
    """For each query the lines of a TREC run, best first: query Q0 candidate rank score tag.

    Args
        queries  (id, item, how errors name it); embedded some at a time
        options  of `search_items`
    ValueError for an id with white space, which a run cannot hold.
    """
    queries = iter(queries)
    while some := list(islice(queries, _BLOCK)):
        names, items, where = zip(*some, strict=True)
        found = search_items(index, embedder, items, media_root=media_root, where=where, **options)
        for name, ids, scores in zip(names, index.names(found.rows), found.scores, strict=True):
            if wrong := [each for each in (name, *ids) if len(each.split()) != 1]:
                raise ValueError(f"id {wrong[0]!r}: ids in a TREC run have no white space")
            ranks = range(1, len(ids) + 1)
            yield [f"{name} Q0 {candidate} {rank} {score:.6f} {_TAG}"
                   for candidate, rank, score in zip(ids, ranks, scores, strict=False)]  # fmt: skip


def _write_run(path: Path, lines: Iterable[list[str]], total: int) -> None:
    """Atomically, with a bar."""
    from tqdm import tqdm

    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for some in tqdm(lines, "search", total, unit="query"):
            file.writelines(line + "\n" for line in some)


def _table(index: VectorIndex, found: Found) -> str:
    """The results of one query."""
    (ids,), ranks = index.names(found.rows), range(1, found.rows.shape[1] + 1)
    labels = [Modality(code).label for code in found.modality[0, : len(ids)].tolist()]
    width = max(map(len, labels), default=0)
    return "\n".join(
        f"{rank:>4}  {score:7.4f}  {label:<{width}}  {name}"
        for rank, score, label, name in zip(ranks, found.scores[0], labels, ids, strict=False)
    )


class _InOrder(argparse.Action):
    """Several options as one dict, in the order in which they were given."""

    def __call__(self, parser, namespace, value, option=None):
        item = dict(namespace.item or {})
        key = self.dest
        item[key] = value if key not in item else [*_listed(item[key]), value]
        namespace.item = item


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]


def main() -> None:
    parser = argparse.ArgumentParser(prog="unite_core.search", description=__doc__.split("\n")[0])
    parser.add_argument("index", help="folder that unite_core.index wrote")
    parser.add_argument("--model", required=True, help="that encoded the corpus: folder or hub id")
    parser.add_argument(
        "--embed", type=json.loads, default={}, metavar="JSON", help="as in the EncodeConfig"
    )
    for key in KEYS:
        parser.add_argument(f"--{key}", action=_InOrder, help="of the query")
    parser.add_argument("--queries", nargs="+", metavar="FILE", help="of items or records")
    parser.add_argument("--output", type=Path, help="TREC run of --queries")
    parser.add_argument("--media-root", default=".", help="folder that media paths are below")
    parser.add_argument("--modality", action="append", help="only such candidates; may be repeated")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--standardise", action="store_true",
                        help="rank a mixed pool by each modality's own z")  # fmt: skip
    parser.set_defaults(item=None)
    given = parser.parse_args()
    if bool(given.item) == bool(given.queries) or bool(given.queries) != bool(given.output):
        parser.error("give a query by --text, --image or --video, or --queries with --output")
    index = load_index(given.index)
    embedder = UniteEmbedder.load(given.model, **given.embed)
    check_model(index, embedder)
    options = {"k": given.k, "modalities": given.modality, "standardise": given.standardise,
               "media_root": given.media_root}  # fmt: skip
    if given.item:
        print(_table(index, search_items(index, embedder, [given.item], **options)))
    else:
        queries = Corpus(given.queries, take=("query",), media_root=given.media_root)
        total, _ = queries.survey()
        _write_run(given.output, run_lines(index, embedder, queries, **options), total)


if __name__ == "__main__":
    main()
