"""`python -m unite_core.curate RECIPE.json`: make the mix that a recipe describes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..data.json_stream import RecordError
from .build import MixError, build_mix
from .recipe import read_recipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the mix, print its data card; 2 if recipe or sources do not allow it."""
    parser = argparse.ArgumentParser(prog="python -m unite_core.curate", description=__doc__)
    parser.add_argument("recipe", help="JSON file; its paths are relative to its own folder")
    parser.add_argument("--workers", type=int, default=0, help="processes for decoding")
    parser.add_argument("--no-figures", action="store_true", help="leave figures out of the card")
    options = parser.parse_args(arguments)
    try:
        recipe = read_recipe(options.recipe)
        embed = _embedder(recipe.model) if recipe.model else None
        draw = None if options.no_figures else _draw
        done = build_mix(recipe, Path(options.recipe).parent, embed, draw, options.workers)
    except (OSError, ValueError, RecordError, MixError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print((done.parent / "card.md").read_text(encoding="utf-8"))
    return 0


def _embedder(model: str):
    from ..model.embedder import UniteEmbedder

    embedder = UniteEmbedder.load(model)
    return embedder.embed


def _draw(card, folder: Path) -> list[str]:
    from ..plots.curation import draw_card

    return draw_card(card, folder)


if __name__ == "__main__":
    sys.exit(main())
