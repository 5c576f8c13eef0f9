"""Verbs of data: curate sources, split pairs, make a corpus."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from .options import (
    DataPath,
    as_pairs,
    from_options,
    is_config,
    options_of,
    remembered,
    save_option,
)

_FOLDER = click.Path(file_okay=False, path_type=Path)
_BAD_SHARE = 0.5  # of a recipe made here: found data have rows without text or file


def curate() -> click.Command:
    from ..curate.recipe import Recipe
    from .sources import column_options, group_option

    def run(sources, text, image, video, group, test, workers, no_figures, save_config,
            **given) -> None:  # fmt: skip
        columns = {"text": text, "image": image, "video": video, "group": group}
        base, recipe = _recipe(sources, columns, test, given)
        if save_config:
            _save_recipe(recipe, base, save_config)
        _curate(recipe, base, workers, no_figures)

    shown = [option for option in options_of(Recipe) if option.name != "name"]
    for option in shown:
        if option.name == "max_bad_share":
            own = f"default: 0.01 of a recipe, {_BAD_SHARE:g} of your own data"
            option.help = option.help.replace("default: 0.01", own)
    return click.Command(
        None,
        help="Clean, deduplicate, align and mix data, your own or the sources of a recipe, and "
        "write a data card (card.md), whose summary is printed.",
        epilog="Example: unite curate data/shapes/stage1.jsonl --output data/shapes/curated "
        "--no-figures",
        params=[
            click.Argument(["sources"], nargs=-1, required=True, type=DataPath(),
                           metavar="RECIPE.json|DATA"),
            *column_options(),
            group_option(),
            click.Option(["--test"], multiple=True, type=click.Path(exists=True), metavar="FILE",
                         help="Test data that must not be trained on: tasks.json, or records."),
            click.Option(["--workers"], type=click.IntRange(0), default=0, show_default=True,
                         help="Processes that decode media."),
            click.Option(["--no-figures"], is_flag=True, help="Leave figures out of the card."),
            *shown,
            save_option(),
        ],
        callback=run,
    )  # fmt: skip


def _recipe(sources, columns, test, given):
    """The folder that a recipe's paths are relative to, and the recipe: read, or made of data."""
    from ..curate.own_data import check_pairs
    from ..curate.recipe import Recipe
    from ..files import read_json
    from .sources import check_names, find_sources, say

    if len(sources) == 1 and is_config(sources[0]):
        if named := [name for name, column in columns.items() if column]:
            raise click.UsageError(
                f"--{named[0]}: a recipe names columns in the options of its sources; set it there"
            )
        paths = {name: os.path.abspath(given[name]) for name in ("output", "media_root")
                 if given[name]}  # fmt: skip
        given = given | paths  # those of the file are relative to it, these are not
        recipe = from_options(Recipe, given, read_json(sources[0], strict=True), sources[0])
        return Path(sources[0]).parent, recipe
    check_names(given["model"])
    if not given["output"]:
        raise click.UsageError("--output is missing: name the folder of the curated data")
    found = find_sources(sources, columns, given["media_root"])
    for data in found:
        check_pairs(data)
    root = found[0].media_root.resolve()
    names = [data.source.name for data in found]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise click.UsageError(f"two of the data are called {twice[0]}; rename a file")
    values = {
        "name": "-".join(names),
        "sources": [asdict(data.source) for data in found],
        "tests": [{"name": f"test {n}", "path": os.path.abspath(path)}
                  for n, path in enumerate(test, 1)],
        "media_root": str(root),
        "output": os.path.abspath(given["output"]),
        "max_bad_share": _BAD_SHARE,
    }  # fmt: skip
    say(f"media below {root}; facts about them are kept in {Path(root, '.unite')}, if it can be "
        "written, else in the output")  # fmt: skip
    kept = {name: value for name, value in given.items() if name not in ("output", "media_root")}
    return Path(), from_options(Recipe, kept, values)


def _save_recipe(recipe, base: Path, file: str) -> None:
    from dataclasses import replace

    from ..settings import write_config
    from .sources import say

    def absolute(source):
        is_hub = source.path.startswith("hub:")
        return source if is_hub else replace(source, path=str((base / source.path).resolve()))

    places = {name: str((base / getattr(recipe, name)).resolve()) for name in
              ("output", "media_root")}  # fmt: skip
    moved = {name: tuple(map(absolute, getattr(recipe, name))) for name in ("sources", "tests")}
    write_config(replace(recipe, **places, **moved), file)
    say(f"{file}: what is run now, for unite curate {file}")


def _curate(recipe, base: Path, workers: int, no_figures: bool) -> None:
    from ..curate.build import build_mix
    from ..curate.dataset_card import card_summary
    from ..files import read_json
    from .sources import note_root, say

    embed = _embed(recipe.model) if recipe.model else None
    done = build_mix(recipe, base, embed, None if no_figures else _draw_card, workers)
    click.echo(card_summary(read_json(done.parent / "card.json")))
    click.echo(f"all of it: {done.parent / 'card.md'}")
    note_root(done.parent, base / recipe.media_root)
    say(f"next: unite split {done.parent / 'mix.parquet'} --output data/mine")


def _embed(model: str):
    from ..model.embedder import UniteEmbedder

    return UniteEmbedder.load(model).embed


def _draw_card(card, folder: Path) -> list[str]:
    from ..plots.curation import draw_card

    return draw_card(card, folder)


def split() -> click.Command:
    from ..curate.split import SplitConfig
    from .sources import column_options, group_option, root_option

    def run(source, text, image, video, media_root, group, instruction, output, workers,
            **given) -> None:  # fmt: skip
        from .sources import find_sources

        config = from_options(SplitConfig, given)
        columns = {"text": text, "image": image, "video": video, "group": group}
        (data,) = find_sources([source], columns | {"instruction": instruction}, media_root)
        _split(data, config, output, workers)

    return remembered(click.Command(
        None,
        help="Split pairs into training and test data that share nothing: pairs with a picture, a "
        "near duplicate of it, a caption or a group in common are on one side.\n\nWrites "
        "train.jsonl, test.jsonl and test.tasks.json, which train and evaluate read.",
        epilog="Example: unite split data/shapes/stage1.jsonl --output data/shapes/split",
        params=[
            click.Argument(["source"], type=DataPath(), metavar="DATA"),
            click.Option(["--output"], type=_FOLDER, required=True, help="Folder of the split."),
            *column_options(),
            group_option(),
            click.Option(["--instruction"], default="", help="Put before every query's text."),
            root_option(),
            click.Option(["--workers"], type=click.IntRange(0), default=0, show_default=True,
                         help="Processes that decode media."),
            *options_of(SplitConfig),
        ],
        callback=run,
    ))  # fmt: skip


def _split(data, config, output: Path, workers: int) -> None:
    """Write both sides of a split, the test side as tasks, too."""
    import numpy as np

    from ..curate.dedupe import with_groups
    from ..curate.own_data import own_pairs
    from ..curate.split import split_pairs
    from ..curate.validate import Reject, Report
    from ..data.records import write_records
    from ..files import write_json
    from .sources import note_root, report_rows, say, watched, write_rejects

    report, records, rejects = Report(), [], []
    for result in watched(own_pairs(data, report), "read"):
        (rejects if isinstance(result, Reject) else records).append(result)
    write_rejects(output / "split.rejects.jsonl", rejects)
    report_rows(data, report, output / "split.jsonl")
    say("looking for near duplicates")
    labels = [record.get("group") or "" for record in records]
    found = split_pairs(records, data.media_root, config, labels, workers)
    grouped = list(with_groups(records, found.duplicates, data.source.name))
    for name, side in (("train", ~found.test), ("test", found.test)):
        write_records(output / f"{name}.jsonl", (grouped[n] for n in np.flatnonzero(side)))
    note_root(output, data.media_root)
    sizes = np.bincount(found.groups)
    about = {
        "config": asdict(config), "group": data.group, "pairs": len(records),
        "train": int((~found.test).sum()), "test": int(found.test.sum()),
        "groups": len(sizes), "test_groups": len(set(found.groups[found.test].tolist())),
        "largest_group": int(sizes.max()),
    }  # fmt: skip
    families = [f"group {number}" for number in found.groups[found.test].tolist()]
    tasks = _write_tasks(output, data.media_root, families)
    write_json(output / "split.json", about | {"tasks": tasks}, indent=1)
    click.echo(
        f"{output}: {about['train']} pairs for training, {about['test']} for testing in "
        f"{about['test_groups']} of {about['groups']} groups that share nothing (largest: "
        f"{about['largest_group']}); tasks: {', '.join(tasks) or 'none'}"
    )
    held_out = output / ("test.tasks.json" if tasks else "test.jsonl")
    say(
        f"next: unite train --model tiny-stage1 --data {output / 'train.jsonl'} --output runs/mine"
        f"\n      unite evaluate runs/mine/model --data {held_out} --against tiny-stage1"
    )


def _write_tasks(output: Path, media_root: Path, families: list[str]) -> list[str]:
    from ..data.pairs import PairDataset
    from ..evaluation.own_pairs import pair_tasks
    from ..evaluation.tasks import write_tasks
    from .sources import say

    pairs = PairDataset([output / "test.jsonl"], media_root)
    try:
        tasks = pair_tasks(pairs, both_ways=True, families=families)
    except ValueError as error:  # of a kind of pair that is there once
        say(f"no test.tasks.json: {error}")
        return []
    write_tasks(output / "test.tasks.json", tasks)
    return [task.name for task in tasks]


def corpus() -> click.Command:
    from ..corpora import CORPORA

    def run(name: str, root: Path | None, seed: int, option: tuple[str, ...]) -> None:
        root = root or Path("data", name)
        CORPORA[name].build(root, seed=seed, **as_pairs(option))
        click.echo(root)

    names = ", ".join(CORPORA)
    return click.Command(
        None,
        help=f"Generate or fetch a corpus with pairs and retrieval tasks: {names}.",
        epilog="Example: unite corpus shapes --root data/shapes --option records=200",
        params=[
            click.Argument(["name"]),
            click.Option(["--root"], type=_FOLDER,
                         help="Folder of the corpus.  [default: data/NAME]"),
            click.Option(["--seed"], type=click.IntRange(0), default=0, show_default=True,
                         help="Decides what is drawn."),
            click.Option(["--option"], multiple=True, metavar="NAME=VALUE",
                         help="Further settings of the corpus; may be repeated."),
        ],
        callback=run,
    )  # fmt: skip
