"""Build the training mix of a recipe: read the sources, filter, choose, write and describe.

The output folder holds `mix.parquet` (the records for training, shuffled, with the groups of
duplicate items), `reasons.parquet` (a row for each record read: kept, or why not), `rejects.jsonl`,
`card.md` with `card.json` and figures, and `mix.json`, written last, which marks the mix as
complete. Building a complete mix again does nothing unless the recipe or its files changed.
"""

# Shapes: N records of all sources.

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np

from ..data.packed import PackedRows
from ..data.records import GROUPS, RecordError
from ..files import read_json, replacing, write_json
from .alignment import BANDS
from .dataset_card import (
    alignment_rows,
    card_text,
    count_by,
    no_alignment,
    unreadable_causes,
)
from .dedupe import DuplicateGroups, with_groups
from .filter import FilterResult, filter_records
from .media_facts import shared_cache
from .profile import profile
from .reasons import REASONS
from .recipe import Recipe
from .repair import Repair
from .rows import load_source, load_tests
from .shared_texts import frames, repeated_texts

__all__ = ["MixError", "build_mix", "choose", "content_keys", "write_columns", "write_rows"]


Draw = Callable[[Mapping, Path], Sequence[str]]

_BATCH = 8192  # records per row group
_LABELS = ("target_modal", "task", "source", *GROUPS)


class MixError(ValueError):
    """The sources have too few records for the recipe."""


def build_mix(
    recipe: Recipe,
    base: str | Path = ".",
    embed: Callable | None = None,
    draw: Draw | None = None,
    workers: int = 0,
) -> Path:
    """Build the mix of a recipe and return the path of its `mix.json`.

    Args
        base     folder that the recipe's paths are relative to
        embed    (items, media root) -> vectors, for alignment by an embedder
        draw     (card, folder) -> names of figures saved there for the data card
        workers  number of processes for decoding, 0 for none
    The same recipe, files and seed give the same records in the same order, byte for byte. After
    an interruption only media facts are reused; recipes of one media root share them.
    Raises BadRowsError if a source has too many rejects, MixError if the mix cannot be filled.
    """
    base = Path(base)
    output, root = base / recipe.output, base / recipe.media_root
    stamp = _stamp(recipe, base)
    done = output / "mix.json"
    if done.is_file():
        before = read_json(done)
        if isinstance(before, dict) and before.get("stamp") == stamp:
            return done
    done.unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    repair = Repair(recipe.rules.clean, root)
    rows, source_of, counts = _read(recipe, base, output, root, repair)
    tests = [test for source in recipe.tests for test in load_tests(source, base, root)]
    embed_here = (lambda items: embed(items, root)) if embed else None
    cache = shared_cache(root, output)
    result = filter_records(rows, root, tests, recipe.rules, cache, embed_here, workers)
    keys = content_keys(rows, recipe.seed)
    chosen = choose(recipe, source_of, result.reasons.kept, keys)
    left = result.reasons.kept
    left[chosen] = False
    result.reasons.mark("over quota", left)
    digest = _digest(rows, chosen)
    about = {"recipe": recipe.name, "records_sha256": digest}
    write_rows(output / "mix.parquet", _grouped(recipe, rows, chosen, result), about)
    write_columns(output / "reasons.parquet", _columns(recipe, rows, source_of, result))
    card = _card(recipe, root, rows, source_of, counts, result, chosen, len(tests))
    card |= {"records_sha256": digest, "stamp": stamp, "repaired": dict(+repair.done)}
    _describe(card, output, draw)
    write_json(done, {"stamp": stamp, "records": len(chosen), "records_sha256": digest}, indent=2)
    return done


def choose(recipe: Recipe, source_of: np.ndarray, kept: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Row numbers of the records in the mix, in the order of the mix.

    Args
        source_of  [N]  index of each record's source
        kept       [N]  whether the filter keeps it
        keys       [N]  from `content_keys`
    Each source contributes its records with the smallest keys, which depend only on the seed and
    the record: a longer source extends a mix and does not redraw it.
    Raises MixError naming a source with too few records for `size`.
    """
    pools = [np.flatnonzero(kept & (source_of == place)) for place in range(len(recipe.sources))]
    pools = [rows[np.argsort(keys[rows], kind="stable")] for rows in pools]
    limits = [
        min(len(rows), source.quota or len(rows))
        for rows, source in zip(pools, recipe.sources, strict=True)
    ]
    wanted = _wanted(recipe, limits)
    rows = np.concatenate([pool[:count] for pool, count in zip(pools, wanted, strict=True)])
    return rows[np.argsort(keys[rows], kind="stable")]


def content_keys(rows: PackedRows, seed: int) -> np.ndarray:
    """Pseudo-random keys, uint64 [N], from the seed and the content of each record."""
    salt = f"mix {seed}\0".encode()
    digests = b"".join(
        hashlib.blake2b(salt + rows.packed(row), digest_size=8).digest() for row in range(len(rows))
    )
    return np.frombuffer(digests, "<u8")


def _wanted(recipe: Recipe, limits: Sequence[int]) -> list[int]:
    weights = np.array([source.weight for source in recipe.sources])
    if not weights.any():
        return list(limits)
    shares = weights / weights.sum()
    size = recipe.size or int(np.floor(min(np.array(limits) / shares) + 1e-9))
    wanted = np.floor(size * shares).astype(int)
    rest = np.argsort(-(size * shares - wanted), kind="stable")[: size - wanted.sum()]
    wanted[rest] += 1
    for source, count, limit in zip(recipe.sources, wanted.tolist(), limits, strict=True):
        if count > limit:
            raise MixError(
                f"source {source.name}: {count} records are asked for and {limit} are left after "
                f"the rules and its quota; lower size ({size}) or its weight, or soften the rules"
            )
    return wanted.tolist()


def _read(recipe: Recipe, base: Path, output: Path, root: Path, repair: Repair):
    """Records of all sources, the source index of each, and counts; rejects go to a file."""
    rows, source_of, counts = PackedRows(sort_keys=True), [], {}
    with (
        replacing(output / "rejects.jsonl") as partial,
        partial.open("w", encoding="utf-8") as rejects,
    ):
        for place, source in enumerate(recipe.sources):

            def reject(bad, name=source.name):
                rejects.write(json.dumps({"source": name} | bad._asdict()) + "\n")

            before = len(rows)
            found = load_source(source, base, rows, recipe.max_bad_share, reject, root, repair)
            counts[source.name] = found
            source_of.append(np.full(len(rows) - before, place))
    if not len(rows):
        raise MixError("no source has a record: check paths, tasks and pair_types")
    return rows, np.concatenate(source_of), counts


def _columns(recipe: Recipe, rows, source_of, result: FilterResult) -> dict:
    count = len(rows)
    band = np.full(count, "", object)
    if result.alignment is not None:
        band[result.aligned] = np.array(BANDS, object)[result.alignment.band]
    names = [source.name for source in recipe.sources]
    return {
        "source": [names[place] for place in source_of.tolist()],
        "record": [rows.packed(row).decode() for row in range(count)],
        "kept": result.reasons.kept,
        "reasons": [result.reasons.of(row) for row in range(count)],
        "group": result.duplicates.rows,
        "similarity": result.per_record("similarity"),
        "rank": result.per_record("rank"),
        "band": band.tolist(),
    }


def _grouped(recipe: Recipe, rows, chosen: np.ndarray, result: FilterResult) -> Iterator[dict]:
    """The records of the mix, with groups of duplicate items unless the rules keep duplicates."""
    records = (rows[row] for row in chosen.tolist())
    if recipe.rules.duplicates == "keep":
        return records
    groups = DuplicateGroups(*(part[chosen] for part in result.duplicates))
    return with_groups(records, groups, recipe.name)


def _card(recipe, root, rows, source_of, counts, result: FilterResult, chosen, tests: int) -> dict:
    report = result.reasons.report()
    for row in report:
        row["examples"] = [
            {"record": rows[number], "reasons": result.reasons.of(number)}
            for number in row["examples"]
        ]
    names = [source.name for source in recipe.sources]
    for place, name in enumerate(names):
        kept = result.reasons.kept & (source_of == place)
        counts[name] |= {"kept": int(kept.sum())}
    kept = np.zeros(len(rows), bool)
    kept[chosen] = True
    return {
        "name": recipe.name,
        "recipe": asdict(recipe),
        "tests": tests,
        "sources": counts,
        "removed": report,
        "removed_by_pair_type": count_by(rows, result.reasons),
        "alignment": alignment_rows(result),
        "no_alignment": no_alignment(recipe.rules),
        "unreadable": unreadable_causes(result.media.cause),
        "black_pages": int(result.media.black_page.sum()),
        "repeated_texts": repeated_texts(rows, kept),
        "frames": frames(rows),
        "labels": result.labels,
        "before": profile(rows, root, recipe.profile),
        "after": profile(_grouped(recipe, rows, chosen, result), root, recipe.profile),
    }


def _describe(card: dict, output: Path, draw: Draw | None) -> None:
    folder = output / "figures"
    folder.mkdir(exist_ok=True)
    figures = list(draw(card, folder)) if draw else []
    card["figures"] = [posixpath.join("figures", name) for name in figures]
    write_json(output / "card.json", card)
    with replacing(output / "card.md") as partial:
        partial.write_text(card_text(card), encoding="utf-8")


def _digest(rows: PackedRows, chosen: np.ndarray) -> str:
    digest = hashlib.sha256()
    for row in chosen.tolist():
        digest.update(rows.packed(row) + b"\n")
    return digest.hexdigest()


def _stamp(recipe: Recipe, base: Path) -> str:
    """Digest of the recipe and the state of its sources' files: whether a mix is up to date."""
    states = [source.stamp(base) for source in (*recipe.sources, *recipe.tests)]
    about = json.dumps([asdict(recipe), states, list(REASONS)], sort_keys=True, default=str)
    return hashlib.sha256(about.encode()).hexdigest()


def write_rows(path: str | Path, records: Iterable[Mapping], about: Mapping[str, str]) -> int:
    """Write records as Parquet with `about` as the file's metadata; returns their number.

    Columns are query and candidate {text, image, video}, negative (a list of such items),
    target_modal, task, source, query_group, candidate_group, group and scores (a list). Images and
    videos are lists of paths, so `"a.png"` is read back as `["a.png"]`, which means the same.
    Several videos given as frame lists do not fit and raise RecordError.
    """
    arrow, parquet = _arrow()
    paths = arrow.list_(arrow.string())
    item = arrow.struct([("text", arrow.string()), ("image", paths), ("video", paths)])
    columns = {"query": item, "candidate": item, "negative": arrow.list_(item)}
    columns |= dict.fromkeys(_LABELS, arrow.string()) | {"scores": arrow.list_(arrow.float64())}
    schema = arrow.schema(list(columns.items()), metadata=dict(about))
    count = 0
    with (
        replacing(path) as partial,
        parquet.ParquetWriter(partial, schema, compression="zstd") as file,
    ):
        for rows in _batches(map(_flat, records)):
            file.write_table(arrow.Table.from_pylist(rows, schema))
            count += len(rows)
    return count


def write_columns(path: str | Path, columns: Mapping) -> None:
    """Write columns of equal length (arrays or lists) as Parquet."""
    arrow, parquet = _arrow()
    with replacing(path) as partial:
        parquet.write_table(arrow.table(dict(columns)), partial, compression="zstd")


def _flat(record: Mapping) -> dict:
    negative = record.get("negative") or []
    negatives = [negative] if isinstance(negative, Mapping) else negative
    row = {side: _item(record[side]) for side in ("query", "candidate")}
    row["negative"] = [_item(negative) for negative in negatives] or None
    return row | {key: record.get(key) for key in (*_LABELS, "scores")}


def _item(item: Mapping) -> dict:
    paths = {key: _paths(item.get(key)) for key in ("image", "video")}
    return {"text": item.get("text")} | paths


def _paths(value) -> list[str] | None:
    if value is None or isinstance(value, str):
        return None if value is None else [value]
    if not all(isinstance(path, str) for path in value):
        raise RecordError(
            f"{value!r}: several videos of frames do not fit a Parquet column of paths; save each "
            "as one video file, or leave the record out"
        )
    return list(value)


def _batches(rows: Iterable) -> Iterator[list]:
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH)):
        yield batch


def _arrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install 'unite-workbook[curate]'") from None
    return pyarrow, pyarrow.parquet
