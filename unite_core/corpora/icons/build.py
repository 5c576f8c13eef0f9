"""Build the icons corpus: pictures, records of both stages, tasks, concepts, a curation recipe.

Pictures stay as published: drawn on nothing, with whatever colour the set has. A picture that
exists is not drawn again, so an interrupted build resumes; the manifest is written last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...data.records import write_records
from ...files import read_json, replacing, write_json
from ..concepts import write_concepts
from ..packages import fetch
from .catalogue import ICON_SETS, Icon, read_icons
from .pairs import concepts, retrieval_tasks, stage1_records, stage2_records

__all__ = ["SIZE", "build", "draw_icons"]


SIZE = 112  # pixels on a side
RECIPE = {
    "name": "icons",
    "sources": [{"name": "icons", "path": "stage1.jsonl"}],
    "tests": [{"name": "tasks", "path": "tasks.json"}],
    "output": "mix",
    "rules": {
        "leaks": "media",
        "clean": {
            "remove": [r" \d\d (filled|regular|light)\b", r"^(file|folder) type ", r" outline\b"]
        },
    },
}
"""What `unite curate data/icons/recipe.json` does."""
FORMAT = 1
"""Raised when records or tasks change, so that those on disk are written anew."""


def build(
    root: str | Path, cache: str | Path = "data/packages", sets: Sequence[str] = (), seed: int = 0
) -> Path:
    """Build the corpus below `root` and return the path of its manifest.

    `sets` are names of ICON_SETS, none for all. The same arguments give the same files.
    """
    root, names = Path(root), list(sets or ICON_SETS)
    if unknown := sorted(set(names) - set(ICON_SETS)):
        raise ValueError(f"sets {', '.join(unknown)}: known are {', '.join(ICON_SETS)}")
    packages = [ICON_SETS[name].package for name in names]
    settings = {"seed": seed, "packages": {p.name: p.version for p in packages}}
    about = {"settings": settings, "format": FORMAT}
    manifest = root / "manifest.json"
    made = read_json(manifest) if manifest.is_file() else {}
    if about.items() <= made.items():
        print(f"{manifest} is up to date")
        return manifest
    folders = fetch(packages, cache)
    icons = [
        icon
        for name, package in zip(names, packages, strict=True)
        for icon in read_icons(ICON_SETS[name], folders[package.name])
    ]
    draw_icons(icons, root)
    write_records(root / "stage1.jsonl", stage1_records(icons))
    write_records(root / "stage2.jsonl", stage2_records(icons, seed))
    tasks = retrieval_tasks(icons, seed)
    write_json(root / "tasks.json", tasks)
    write_concepts(root, concepts(icons))
    write_json(root / "recipe.json", RECIPE, indent=2)
    counts = {"pictures": len(icons), "concepts": len({icon.concept for icon in icons})}
    write_json(manifest, about | {"counts": counts | {"tasks": len(tasks)}})
    print(f"{root}: {counts['pictures']} pictures of {counts['concepts']} concepts")
    return manifest


def draw_icons(icons: Sequence[Icon], root: str | Path) -> None:
    """Draw every picture that is not on disk yet as a transparent PNG of 112 pixels."""
    import resvg_py
    from tqdm import tqdm

    missing = [icon for icon in icons if not Path(root, icon.path).is_file()]
    for folder in {Path(root, icon.path).parent for icon in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    for icon in tqdm(missing, desc="drawing", mininterval=2):
        png = resvg_py.svg_to_bytes(svg_string=icon.svg, width=SIZE, height=SIZE)
        with replacing(Path(root, icon.path), durable=False) as partial:
            partial.write_bytes(bytes(png))
