"""Verbs of vectors: encode a corpus, index and search it, fit a probe, mine hard negatives."""

from __future__ import annotations

from pathlib import Path

import click

from .options import (
    as_pairs,
    config_command,
    from_options,
    load_options,
    loading,
    options_of,
)

_FOLDER = click.Path(file_okay=False, path_type=Path)


def encode() -> click.Command:
    from ..search.config import EncodeConfig

    def run(config) -> None:
        from ..distributed import join_processes, leave_processes, processes
        from ..search.encode import encode_corpus

        join_processes()
        try:
            folder = encode_corpus(config)
            if processes()[0] == 0:
                click.echo(folder)
        finally:
            leave_processes()

    return config_command(
        EncodeConfig,
        "Embed a corpus into shards of vectors; goes on with the next shard after a kill.",
        run,
        "unite encode --model runs/main/stage2/train/model --data items.jsonl --output vectors",
    )


def index() -> click.Command:
    from ..search.config import IndexConfig

    def run(vectors: Path, output: Path, **given) -> None:
        from ..search.index import build_index
        from ..search.index_files import check_target
        from ..search.shards import ShardFolder

        config = from_options(IndexConfig, given)
        check_target(output)  # before the work
        built = build_index(ShardFolder(vectors), config)
        built.save(output)
        counts = ", ".join(f"{count:,} {name}" for name, count in built.counts.items())
        click.echo(f"{output}: {counts}")

    return click.Command(
        None,
        help="Build a search index, one part for each modality, over vectors that encode wrote.",
        epilog="Example: unite index vectors index --kind hnsw",
        params=[
            click.Argument(["vectors"], type=click.Path(exists=True, file_okay=False)),
            click.Argument(["output"], type=_FOLDER),
            *options_of(IndexConfig),
        ],
        callback=run,
    )


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


def _search(index, model, embed, queries, output, media_root, modality, k, score, probe,
            temperature, **given):  # fmt: skip
    """Print what one query finds, or write what a file of queries finds as a TREC run."""
    item = click.get_current_context().meta["unite.item"]
    if bool(item) == bool(queries) or bool(queries) != bool(output):
        raise click.UsageError(
            "give one query by --text, --image or --video, or --queries with --output"
        )
    from ..model.embedder import UniteEmbedder
    from ..search import query
    from ..search.corpus import Corpus
    from ..search.index import load_index

    how = loading(given)
    found = load_index(index)
    embedder = UniteEmbedder.load(model, **how, **as_pairs(embed))
    query.check_model(found, embedder)
    options = {"k": min(k, len(found.ids)), "modalities": list(modality) or None,
               "scorer": _scorer(found, model, score, probe, temperature),
               "media_root": media_root}  # fmt: skip
    if item:
        results = query.search_items(found, embedder, [item], where=["the query"], **options)
        click.echo(query.result_table(found, results))
        return
    corpus = Corpus(list(queries), take=("query",), media_root=media_root)
    total, _ = corpus.survey()
    query.write_run(output, query.run_lines(found, embedder, corpus, **options), total)


def search() -> click.Command:
    from ..data.modality import KEYS

    parts = [
        click.Option([f"--{key}"], multiple=True, callback=_add_to_query, expose_value=True,
                     metavar="TEXT" if key == "text" else "FILE",
                     help=f"{key.capitalize()} of the query.")
        for key in KEYS
    ]  # fmt: skip
    return click.Command(
        None,
        help="Search an index with one query, or with a file of them into a TREC run.",
        epilog='Example: unite search index --model MODEL --text "a waving hand" --modality image',
        params=[
            click.Argument(["index"], type=_FOLDER),
            click.Option(["--model"], required=True, help="Model that encoded the corpus."),
            *parts,
            click.Option(["--queries"], multiple=True, metavar="FILE", help="Items or records."),
            click.Option(["--output"], type=click.Path(dir_okay=False, path_type=Path),
                         help="TREC run of --queries."),
            click.Option(["--media-root"], default=".", show_default=True,
                         help="Folder that media paths are relative to."),
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
                         help="Temperature for factorised; default: the probe's."),
            click.Option(["--embed"], multiple=True, metavar="NAME=VALUE",
                         help="Fields of EmbedConfig, as they were for encode."),
            *load_options(),
        ],
        callback=_search,
    )  # fmt: skip


def probe() -> click.Command:
    from ..search.config import ProbeConfig

    def run(config) -> None:
        from ..search.modality_probe import load_modality_probe
        from ..search.probing import fit_probe

        path = fit_probe(config)
        fitted = load_modality_probe(path)
        count, accuracy = fitted.fitted["queries"], fitted.fitted["held_out_accuracy"]
        click.echo(
            f"{path}: temperature {fitted.temperature:.4f}, {accuracy:.1%} of {count:,} training "
            "queries right when held out"
        )

    return config_command(
        ProbeConfig,
        "Fit which modality a query asks for, and save it with the model for `search --score "
        "factorised`.",
        run,
        "unite probe --model runs/main/stage2/train/model --data data/emoji/stage2.jsonl "
        "--media-root data/emoji",
    )


def mine() -> click.Command:
    from ..search.config import MineConfig

    def run(config) -> None:
        from ..search.hard_negatives import mine

        click.echo(mine(config))

    return config_command(
        MineConfig,
        "Find hard negatives for records among all their candidates.",
        run,
        "unite mine --model MODEL --data pairs.jsonl --output pairs_hard.jsonl --negatives 4",
    )
