"""Verbs of data: curate sources by a recipe, make a corpus."""

from __future__ import annotations

from pathlib import Path

import click

from .options import as_pairs

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def curate() -> click.Command:
    def run(recipe: Path, workers: int, no_figures: bool) -> None:
        from ..curate.build import build_mix
        from ..curate.recipe import read_recipe

        plan = read_recipe(recipe)
        embed = _embed(plan.model) if plan.model else None
        done = build_mix(plan, recipe.parent, embed, None if no_figures else _draw_card, workers)
        click.echo((done.parent / "card.md").read_text(encoding="utf-8"))

    return click.Command(
        None,
        help="Make the training file that a recipe describes, and print its data card.",
        epilog="Example: unite curate recipe.json --workers 2",
        params=[
            click.Argument(["recipe"], type=_FILE),
            click.Option(["--workers"], type=click.IntRange(0), default=0, show_default=True,
                         help="Processes that decode media."),
            click.Option(["--no-figures"], is_flag=True, help="Leave figures out of the card."),
        ],
        callback=run,
    )  # fmt: skip


def _embed(model: str):
    from ..model.embedder import UniteEmbedder

    return UniteEmbedder.load(model).embed


def _draw_card(card, folder: Path) -> list[str]:
    from ..plots.curation import draw_card

    return draw_card(card, folder)


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
