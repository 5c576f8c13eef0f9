"""Build the emoji corpus from packages: media, `stage1.jsonl`, `stage2.jsonl`, `tasks.json`.

Every step skips files that exist, so an interrupted build resumes; the manifest is written last.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ...data.records import write_records
from ...files import read_json, write_json
from ..concepts import write_concepts
from ..packages import fetch
from .catalogue import CLIP_PACKAGES, EXTRA_STYLES, PACKAGES, STYLES, read_catalogue, split_of
from .corpus import Corpus
from .pairs import WEIGHTS, concepts, stage1_records, stage2_records
from .render import clip_sources, icon_names, render_clip, still_renderers
from .tasks import TASKS_FORMAT, retrieval_tasks

__all__ = ["build", "render_media"]


def build(root, cache="data/packages", clips: tuple[int, ...] = (3,), seed: int = 0) -> Path:
    """Build the corpus below `root` and return the path of its manifest.

    `clips` names the animation packages (1 to 4). The same arguments give the same files. Of a
    corpus whose tasks alone are of an older version of this package, only these are written anew.
    """
    root, manifest = Path(root), Path(root) / "manifest.json"
    settings = {"clips": sorted(clips), "seed": seed, "packages": _versions(clips)}
    made = read_json(manifest) if manifest.is_file() else {}
    current = made.get("settings") == settings
    if current and made.get("tasks_format") == TASKS_FORMAT:
        print(f"{manifest} is up to date")
        return manifest
    corpus = render_media(root, cache, clips)
    if not current:
        write_records(root / "stage1.jsonl", stage1_records(corpus, seed))
        write_records(root / "stage2.jsonl", stage2_records(corpus, seed))
    tasks = retrieval_tasks(corpus, seed)
    write_json(root / "tasks.json", tasks)
    write_concepts(root, concepts(corpus))
    counts = {"emoji": len(corpus.emoji), "clips": len(corpus.moving), "tasks": len(tasks)}
    about = {"settings": settings, "tasks_format": TASKS_FORMAT, "counts": counts}
    write_json(manifest, about | {"weights": WEIGHTS})
    print(f"{root}: {counts['emoji']} emoji in {len(STYLES)} styles, {counts['clips']} clips")
    return manifest


def render_media(root, cache, clips: tuple[int, ...]) -> Corpus:
    """Fetch the packages and draw every picture and clip that is not on disk yet."""
    root = Path(root)
    wanted = [*PACKAGES.values(), *(CLIP_PACKAGES[number] for number in clips)]
    folders = fetch(wanted, cache)
    catalogue = read_catalogue(folders[PACKAGES["labels"].name])
    stills = {s: still_renderers(s, folders[PACKAGES[s].name]) for s in STYLES}
    extra = _extra_renderers(folders)
    emoji = [e for e in catalogue if all(e.code in stills[s] for s in STYLES)]
    codes = {e.code for e in emoji}
    sources: dict[str, Path] = {}
    for number in clips:
        sources |= clip_sources(folders[CLIP_PACKAGES[number].name])
    moving = {code: source for code, source in sources.items() if code in codes}
    drawn = {style: frozenset(found) & codes for style, found in extra.items()}
    jobs = [(stills[s][c], (root / Corpus.image(c, s),)) for s in STYLES for c in sorted(codes)]
    jobs += [(extra[s][c], (root / Corpus.image(c, s),)) for s in drawn for c in sorted(drawn[s])]
    jobs += [(render_clip, (moving[c], root / Corpus.clip(c))) for c in sorted(moving)]
    _run([job for job in jobs if not job[1][-1].is_file()])
    return Corpus(tuple(emoji), frozenset(moving), drawn)


def _extra_renderers(folders: dict[str, Path]) -> dict[str, dict]:
    """Renderers of the extra styles by style and code, training split only.

    Two of these icon sets have no character list but share Noto's icon names.
    """
    noto = icon_names(folders[PACKAGES["noto"].name])
    named = {"fluent-flat": None, "noto-v1": noto, "emojione": noto}
    found = {s: still_renderers(s, folders[PACKAGES[s].name], named[s]) for s in EXTRA_STYLES}
    return {
        style: {c: draw for c, draw in renderers.items() if split_of(c, style) == "train"}
        for style, renderers in found.items()
    }


def _run(jobs: list) -> None:
    from tqdm import tqdm

    for folder in {arguments[-1].parent for _, arguments in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        done = pool.map(_draw, jobs, chunksize=32)
        for _ in tqdm(done, total=len(jobs), desc="drawing", mininterval=2):
            pass


def _draw(job) -> None:
    function, arguments = job
    function(*arguments)


def _versions(clips: tuple[int, ...]) -> dict[str, str]:
    used = [*PACKAGES.values(), *(CLIP_PACKAGES[number] for number in sorted(clips))]
    return {package.name: package.version for package in used}
