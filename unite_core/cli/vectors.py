"""Verbs of vectors: encode a corpus, index it, fit a probe, mine hard negatives."""

from __future__ import annotations

from pathlib import Path

import click

from .options import config_command, from_options, options_of

_FOLDER = click.Path(file_okay=False, path_type=Path)


def encode() -> click.Command:
    from ..search.config import EncodeConfig
    from .sources import column_options, with_data

    def fill(given, values, own):
        return with_data(given, values, own, _items_below, items=True)

    def run(config) -> None:
        from ..distributed import join_processes, leave_processes, processes
        from ..search.encode import encode_corpus

        join_processes()
        try:
            folder = encode_corpus(config)
            if processes()[0] == 0:
                _say_left_out(folder)
                click.echo(folder)
        finally:
            leave_processes()

    return config_command(
        EncodeConfig,
        "Embed a corpus into shards of vectors; goes on with the next shard after a kill.",
        run,
        "unite encode data/shapes/split/train.jsonl --model tiny-stage2 --output vectors",
        fill,
        column_options(),
    )


def _say_left_out(folder: Path) -> None:
    """Say how many items have no vector; the report lists them."""
    from ..files import read_json
    from .sources import say

    if left_out := read_json(folder / "report.json")["left_out"]:
        first = left_out[0]["message"]
        say(f"{len(left_out)} cannot be read and have no vector, the first: {first}")


def _items_below(paths, found, config):
    """Files of items or records: those given, or, of other tables, items written below output."""
    from .sources import write_items_of

    folder = Path(config.output, "items")
    return tuple(
        path if data.layout == "records" else write_items_of(data, folder)
        for path, data in zip(paths, found, strict=True)
    )


def _fill(given, values, own):
    from .sources import with_data

    return with_data(given, values, own)


def index() -> click.Command:
    from ..search.config import IndexConfig

    def run(vectors: Path, output: Path, **given) -> None:
        from ..search.index import build_index
        from ..search.index_files import check_target
        from ..search.results import copy_items
        from ..search.shards import ShardFolder

        config = from_options(IndexConfig, given)
        check_target(output)  # before the work
        built = build_index(ShardFolder(vectors), config)
        built.save(output)
        copy_items(vectors, output)
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


def probe() -> click.Command:
    from ..search.config import ProbeConfig
    from .sources import column_options

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
        "factorised`, which takes it before a router.",
        run,
        "unite probe data/shapes/stage2.jsonl --model tiny-stage1 --output probe.safetensors "
        "--records 60",
        _fill,
        column_options(),
    )


def mine() -> click.Command:
    from ..search.config import MineConfig
    from .sources import column_options

    def run(config) -> None:
        from ..search.hard_negatives import mine

        click.echo(mine(config))

    return config_command(
        MineConfig,
        "Find hard negatives for records among all their candidates.",
        run,
        "unite mine data/shapes/split/train.jsonl --model tiny-stage2 --output hard.jsonl",
        _fill,
        column_options(),
    )
