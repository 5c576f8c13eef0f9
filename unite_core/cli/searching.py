"""The verb `search`: in an index, or at once in a folder or table of the user's."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..data.readers import HUB
from .options import as_pairs, load_options, loading, remembered

_FOLDER = click.Path(file_okay=False, path_type=Path)
_STORE = Path(".unite", "vectors")  # of data that are searched without an index


def _add_to_query(context: click.Context, option: click.Parameter, values) -> None:
    """Collect the query's parts in the order in which they are given."""
    item = context.meta.setdefault("unite.item", {})
    if values:
        item[option.name] = list(values) if len(values) > 1 else values[0]


def _scorer(found, model, score, probe, temperature):
    """The scorer that --score names; its probe must be of the index's model."""
    from ..search import query, scorers

    if score != "factorised" and (probe or temperature):
        raise click.UsageError("--probe and --temperature belong to --score factorised")
    if score == "factorised":
        return query.load_factorised(model, temperature, probe, found.model)
    return scorers.Standardised() if score == "standardised" else scorers.COSINE


def _search(source, model, embed, queries, output, media_root, instruction, modality, k, score,
            probe, temperature, column, page, sheet, **given):  # fmt: skip
    """Print what one query finds, or write what a file of queries finds as a TREC run."""
    item = click.get_current_context().meta["unite.item"]
    if bool(item) == bool(queries) or bool(queries) != bool(output):
        raise click.UsageError(
            "give one query by --text, --image or --video, or --queries with --output"
        )
    if queries and (page or sheet):
        raise click.UsageError("--html and --sheet show one query: give it by --text, --image, ...")
    from .sources import check_names

    how, is_index = loading(given), _is_index(source)
    if not (is_index or os.path.exists(source) or source.startswith(HUB)):
        raise FileNotFoundError(f"{source}: no whole index, and no folder or table; correct it")
    check_names(model)
    data = None if is_index else _own_source(source, column, media_root)
    if is_index:
        from ..search.index import load_index

        found = load_index(source)
    from ..data.items import instructed
    from ..model.embedder import UniteEmbedder
    from ..search import query
    from ..search.corpus import Corpus

    if score == "factorised" and probe is None:
        query.load_factorised(model, temperature)  # before anything is embedded: is there one?
    embedder = UniteEmbedder.load(model, **how, **as_pairs(embed))
    if data:
        found, items = _index_of(data, embedder)
    else:
        from ..search.results import Items

        query.check_model(found, embedder)
        items = Items(source)
    options = {"k": min(k, len(found.ids)), "modalities": list(modality) or None,
               "scorer": _scorer(found, model, score, probe, temperature)}  # fmt: skip
    if item:
        item, root = _query_files(item, media_root or ".")
        told = item if instruction is None else instructed(item, instruction)
        results = query.search_items(
            found, embedder, [told], where=["the query"], media_root=root, **options
        )
        _show(item, root, found, results, items, page, sheet)
        return
    root = media_root or "."
    corpus = Corpus(list(queries), take=("query",), media_root=root, instruction=instruction)
    total, _ = corpus.survey()
    lines = query.run_lines(found, embedder, corpus, media_root=root, **options)
    query.write_run(output, lines, total)


def _is_index(source: str) -> bool:
    """Whether an index lies here, or beside, where a save was cut short."""
    from ..files import whole_folder

    return Path(whole_folder(source), "index.json").is_file()


def _own_source(source: str, column: str, media_root: str | None):
    """The user's own data, whose media, or else texts, are searched."""
    from dataclasses import replace

    from .sources import find_sources

    (data,) = find_sources([source], {"text": column} if column else {}, media_root)
    return replace(data, media="") if column and column != data.media else data


def _index_of(data, embedder):
    """An exact index of the items of own data, embedded once for all searches from this folder."""
    import numpy as np

    from ..curate.validate import Reject, Report
    from ..data.modality import modality_of
    from ..search.blocks import model_key
    from ..search.index import build_index
    from ..search.shards import Shard
    from ..search.vector_store import encode_items
    from .sources import say

    report, rows = Report(), _items_of(data)
    items = [item for item in rows(report) if not isinstance(item, Reject)]
    names = [item.pop("id") for item in items]
    if not items:
        first = report.examples[0].message if report.examples else "it has no rows"
        raise ValueError(f"{data.source.path}: nothing to search; {first}")
    stored = encode_items(embedder, items, _STORE, data.media_root)
    good = np.array([n for n in range(len(items)) if n not in stored.bad])
    if lost := report.rejects + len(stored.bad):
        first = report.examples[0].message if report.examples else next(iter(stored.bad.values()))
        say(f"{lost} cannot be read and are left out, the first: {first}")
    codes = np.array([int(modality_of(items[n])) for n in good], np.uint8)
    shard = Shard([names[n] for n in good], stored.rows(good), codes)
    index = build_index([shard])
    index.model = model_key(embedder)
    known = dict(zip(names, items, strict=True)) | _captions(data)
    return index, _Known(known, data.media_root)


def _items_of(data):
    from ..curate.own_data import own_items, own_pairs
    from ..curate.validate import Reject

    def of_records(report):
        known = set()
        for number, result in enumerate(own_pairs(data, report), 1):
            if isinstance(result, Reject):
                yield result
                continue
            item = result["candidate"]
            key = repr(sorted(item.items(), key=str))
            if key not in known:
                known.add(key)
                yield {"id": f"{number}:candidate", **item}

    return of_records if data.layout == "records" else lambda report: own_items(data, report)


def _captions(data) -> dict[str, dict]:
    """{id of a caption: its text as an item} of the media of own data, the first of each."""
    from ..curate.own_data import own_pairs
    from ..curate.validate import Reject, Report
    from ..data.items import files_of
    from ..search.results import caption_id

    is_records, found = data.layout == "records", {}
    if not (is_records or (data.text and data.media)):
        return found
    for number, result in enumerate(own_pairs(data, Report()), 1):
        if not isinstance(result, Reject) and result["query"].get("text"):
            paths = files_of(result["candidate"])
            name = f"{number}:candidate" if is_records else next(iter(paths), "")
            found.setdefault(caption_id(name), {"text": result["query"]["text"]})
    return found


class _Known:
    """Items by id that are in memory, as `results.Items`."""

    def __init__(self, items, media_root):
        self.items, self.media_root = items, media_root

    def take(self, ids):
        return {name: self.items[name] for name in ids if name in self.items}


def _query_files(item: dict, media_root: str) -> tuple[dict, str]:
    """The query with paths below a root: the user's own files may lie anywhere."""
    keys = [key for key in ("image", "video") if key in item]
    files = {key: item[key] if isinstance(item[key], list) else [item[key]] for key in keys}
    paths = [Path(path) for found in files.values() for path in found]
    if not any(path.is_absolute() or ".." in path.parts for path in paths):
        return item, media_root
    anchor = Path(media_root).resolve().anchor
    moved = dict(item)
    for key, found in files.items():
        whole = [os.path.abspath(os.path.join(media_root, os.path.expanduser(p))) for p in found]
        below = [os.path.relpath(path, anchor) for path in whole]
        moved[key] = below if isinstance(item[key], list) else below[0]
    return moved, anchor


def _show(item, root, index, results, items, page, sheet) -> None:
    """The results as text, and as the pages asked for."""
    from ..search.results import contact_page, hit_table, hits_of
    from .sources import say

    (hits,) = hits_of(index, results, items)
    click.echo(hit_table(hits))
    if page:
        from ..files import replacing

        with replacing(page) as partial:
            text = contact_page(item, hits, items.media_root, root)
            partial.write_text(text, encoding="utf-8")
        say(page)
    if sheet:
        from ..plots.items import draw_results

        draw_results(item, hits, sheet, items.media_root, root)
        say(sheet)


def search() -> click.Command:
    from ..data.modality import KEYS

    parts = [
        click.Option([f"--{key}"], multiple=True, callback=_add_to_query, expose_value=True,
                     metavar="TEXT" if key == "text" else "FILE",
                     help=f"{key.capitalize()} of the query.")
        for key in KEYS
    ]  # fmt: skip
    return remembered(click.Command(
        None,
        help="Search an index, or a folder or table of your own, with one query, or with a file of "
        "them into a TREC run.\n\nYour own data are embedded at the first search and kept in "
        ".unite/vectors; use encode and index for large ones.",
        epilog='Example: unite search index --model tiny-stage2 --text "a red circle" '
        "--modality image",
        params=[
            click.Argument(["source"], metavar="INDEX|DATA"),
            click.Option(["--model"], required=True, help="Model that encoded the corpus."),
            *parts,
            click.Option(["--column"], default="",
                         help="Column of your table that is searched; default: its media."),
            click.Option(["--queries"], multiple=True, metavar="FILE", help="Items or records."),
            click.Option(["--output"], type=click.Path(dir_okay=False, path_type=Path),
                         help="TREC run of --queries."),
            click.Option(["--html", "page"], type=click.Path(dir_okay=False), metavar="FILE",
                         help="Write the query and its results as a page of pictures."),
            click.Option(["--sheet"], type=click.Path(dir_okay=False), metavar="FILE.png",
                         help="The same as one picture."),
            click.Option(["--media-root"],
                         help="Folder of the query's files, and of the media of your own data; "
                         "default: this folder, and the folder of the data."),
            click.Option(["--instruction"], metavar="TEXT",
                         help="What queries ask for that do not say so themselves; put where the "
                         "model reads it."),
            click.Option(["--modality"], multiple=True,
                         help="Only candidates of this modality; may be repeated."),
            click.Option(["--k"], type=click.IntRange(1), default=10, show_default=True,
                         help="Results of a query."),
            click.Option(["--score"], default="cosine", show_default=True,
                         type=click.Choice(["cosine", "standardised", "factorised"]),
                         help="How a mixed pool is ranked: by cosine, by its z-score in each "
                         "modality, or by the modality's probability times the candidate's."),
            click.Option(["--probe"], type=click.Path(exists=True, path_type=Path),
                         help="Probe for factorised; default: the model's, or else its router."),
            click.Option(["--temperature"], type=click.FloatRange(0, min_open=True),
                         help="Temperature for factorised; default: that of the "
                         "probe, or of the router's training."),
            click.Option(["--embed"], multiple=True, metavar="NAME=VALUE",
                         help="Fields of EmbedConfig, as they were for encode."),
            *load_options(),
        ],
        callback=_search,
    ))  # fmt: skip
