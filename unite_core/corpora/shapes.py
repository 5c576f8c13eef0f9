"""Shapes: a generated corpus of images and clips whose every attribute is known.

`stage1.jsonl` has retrieval pairs, `stage2.jsonl` instructions, `tasks.json` a task for each pair
type and split. A media file's name says what it shows (`scenes.Scene`), so records can be checked
without looking at pixels.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..data.modality import modality_of
from ..data.records import write_records
from ..files import read_json, replacing, write_json
from ..settings import Count, Natural, Share, settings
from .concepts import Concept, write_concepts
from .scenes import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT_SHAPES,
    HELD_OUT_STYLE,
    MOTIONS,
    POSITIONS,
    SHAPES,
    SIZES,
    SPLITS,
    STYLES,
    Scene,
    caption,
    draw,
    draw_clip,
    paraphrase,
    place,
    split_of,
)

__all__ = ["ShapesConfig", "build"]


FRAME_MILLISECONDS = 250
TASKS_FORMAT = 3
"""Raised when the tasks or concepts of a corpus change, so that those on disk are written anew."""


@settings
class ShapesConfig:
    """What `build` generates; the same configuration gives the same files."""

    records: Count = 600
    """Records in each stage's training file."""
    queries: Annotated[int, Field(ge=2)] = 40
    """Queries in each task."""
    concepts: Annotated[int, Field(ge=1, le=200)] = 40
    """Moving scenes in concepts.json, each with pictures and texts."""
    granularity: Literal["coarse", "fine", "mixed"] = "mixed"
    """Detail of stage 1 captions."""
    noise: Share = 0.0
    """Share of stage 1 records whose caption describes another scene."""
    duplicates: Share = 0.0
    """Share of records that repeat an earlier one."""
    text_share: Share = 0.2
    """Share of text-text pairs in stage 1."""
    video_share: Share = 0.4
    """Share of video-text pairs in stage 1; the rest is image-text."""
    image_size: Annotated[int, Field(ge=28)] = 84
    """Pixels on a side."""
    seed: Natural = 0
    """Decides everything that is drawn."""

    def __post_init__(self):
        if self.text_share + self.video_share > 1:
            raise ValueError("text_share and video_share leave less than nothing to image-text")


def build(root: str | Path, config: ShapesConfig | None = None) -> Path:
    """Generate the corpus below `root` and return the path of its manifest, written last.

    Of a corpus whose tasks alone are of an older version of this package, only these are written
    anew.
    """
    config, root = config or ShapesConfig(), Path(root)
    manifest = root / "manifest.json"
    made = read_json(manifest) if manifest.is_file() else {}
    current = made.get("settings") == asdict(config)
    if current and made.get("tasks_format") == TASKS_FORMAT:
        print(f"{manifest} is up to date")
        return manifest
    stages = {"stage1": list(_stage_1(config)), "stage2": list(_stage_2(config))}
    tasks = [_task(kind, split, config) for split in SPLITS for kind in KINDS]
    rows = [
        row[side] for rows in stages.values() for row in rows for side in ("query", "candidate")
    ]
    rows += [item for task in tasks for item in task["queries"] + task["candidates"]]
    concepts = _concepts(config)
    media = {item[key] for item in rows for key in ("image", "video") if key in item}
    media |= {path for concept in concepts for path in (*concept.images, concept.video)}
    for path in sorted(media):
        if not (current and (root / path).is_file()):
            _save(root / path, Scene.from_path(path), config.image_size)
    if not current:
        for name, records in stages.items():
            write_records(root / f"{name}.jsonl", records)
    write_json(root / "tasks.json", tasks)
    write_concepts(root, concepts)
    counts = {"media": len(media), "tasks": len(tasks)} | {k: len(v) for k, v in stages.items()}
    about = {"settings": asdict(config), "tasks_format": TASKS_FORMAT, "counts": counts}
    write_json(manifest, about)
    print(f"{root}: {', '.join(f'{number} {name}' for name, number in counts.items())}")
    return manifest


@dataclass(frozen=True)
class _Kind:
    """A pair type: how query and candidate present the target scene, given a caption function."""

    name: str
    moves: bool  # whether the target scene is a clip
    query: Callable[[Scene, random.Random, Callable[[Scene], str]], dict]
    candidate: Callable[[Scene, Callable[[Scene], str]], dict]


def _as_words(scene, *arguments):
    return {"text": arguments[-1](scene)}


def _as_media(scene, *_):
    return scene.item


def _as_paraphrase(scene, *_):
    return {"text": paraphrase(scene)}


def _in_other_style(scene, *_):
    return (replace(scene, style="striped") if scene.style == "solid" else scene).item


def _as_solid(scene, *_):
    return replace(scene, style="solid").item


def _recoloured(scene, rng, _):
    return {"text": f"<|IMAGE|>\nthe same in {scene.colour}"} | _other(scene, "colour", rng).item


def _set_moving(scene, *_):
    text = caption(scene, "coarse").split(scene.shape + " ")[1]
    return {"text": f"<|IMAGE|>\nthe same, {text}"} | replace(scene, motion="").item


def _turned(scene, rng, _):
    text = caption(scene, "coarse").split(scene.shape + " ")[1]
    return {"text": f"<|VIDEO|>\nthe same, {text}"} | _other(scene, "motion", rng).item


def _asked(scene, *_):
    return {"text": f"<|IMAGE|>\n{_question(scene)[0]}"} | scene.item


def _answered(scene, *_):
    return {"text": _question(scene)[1]}


RETRIEVAL = (
    _Kind("text → image", False, _as_words, _as_media),
    _Kind("image → text", False, _as_media, _as_words),
    _Kind("text → video", True, _as_words, _as_media),
    _Kind("video → text", True, _as_media, _as_words),
    _Kind("text → text", False, _as_paraphrase, _as_words),
)
SIMILAR = _Kind("image → image", False, _in_other_style, _as_solid)
INSTRUCTIONS = (
    _Kind("image + colour → image", False, _recoloured, _as_media),
    _Kind("image + motion → video", True, _set_moving, _as_media),
    _Kind("video + motion → video", True, _turned, _as_media),
    _Kind("image + question → text", False, _asked, _answered),
)
KINDS = (*RETRIEVAL, SIMILAR, *INSTRUCTIONS)


def _stage_1(config: ShapesConfig) -> Iterator[dict]:
    rng = random.Random(f"stage1 {config.seed}")
    images, videos, texts = RETRIEVAL[0:2], RETRIEVAL[2:4], RETRIEVAL[4:]
    shares = (1 - config.text_share - config.video_share, config.video_share, config.text_share)

    def words(scene: Scene) -> str:
        shown = _sample("train", bool(scene.motion), rng) if rng.random() < config.noise else scene
        mixed = config.granularity == "mixed"
        return caption(shown, rng.choice(("coarse", "fine")) if mixed else config.granularity)

    def draw_record() -> dict:
        kind = rng.choice(rng.choices((images, videos, texts), shares)[0])
        return _record(kind, rng, words)

    return _with_duplicates(draw_record, rng, config)


def _stage_2(config: ShapesConfig) -> Iterator[dict]:
    rng = random.Random(f"stage2 {config.seed}")
    kinds = (*RETRIEVAL[:4], SIMILAR, *INSTRUCTIONS)
    return _with_duplicates(lambda: _record(rng.choice(kinds), rng, caption), rng, config)


def _record(kind: _Kind, rng: random.Random, words) -> dict:
    scene = _sample("train", kind.moves, rng)
    candidate = kind.candidate(scene, words)
    target = modality_of(candidate).label.replace("+", ",")
    pair = {"query": kind.query(scene, rng, words), "candidate": candidate}
    return pair | {"target_modal": target, "task": kind.name, "source": "shapes"}


def _with_duplicates(draw_record: Callable[[], dict], rng, config) -> Iterator[dict]:
    seen = []
    for _ in range(config.records):
        repeats = seen and rng.random() < config.duplicates
        seen.append(rng.choice(seen) if repeats else draw_record())
        yield seen[-1]


def _concepts(config: ShapesConfig) -> list[Concept]:
    """Moving scenes of training with pictures of them standing still."""
    rng, scenes = random.Random(f"concepts {config.seed}"), set()
    while len(scenes) < config.concepts:
        scenes.add(_sample("train", True, rng))
    return [
        Concept(
            caption(scene), f"{scene.colour} {scene.shape}",
            [caption(scene, "coarse"), caption(scene), paraphrase(scene)],
            [replace(scene, motion="", style=style).path for style in STYLES], scene.path,
        )
        for scene in sorted(scenes, key=caption)
    ]  # fmt: skip


def _task(kind: _Kind, split: str, config: ShapesConfig) -> dict:
    """Queries on held-out scenes; the pool adds scenes that differ in one or two attributes."""
    rng = random.Random(f"{kind.name} {split} {config.seed}")
    targets = {}
    while len(targets) < config.queries:
        scene = _sample(split, kind.moves, rng)
        if split != "style":
            scene = replace(scene, style="solid")
        targets[scene] = kind.query(scene, rng, caption)
    pool = [near for scene in targets for near in (scene, *_near(scene, rng))]
    candidates, concepts = {}, {}
    for scene in pool:
        item = kind.candidate(scene, caption)
        candidates.setdefault(repr(item), item)
        # an answer such as "blue" is about many scenes
        concepts[repr(item)] = "" if kind.candidate is _answered else caption(scene)
    index = {key: row for row, key in enumerate(candidates)}
    return {
        "name": kind.name,
        "split": split,
        "kind": "instructed" if kind in INSTRUCTIONS else "plain",
        "queries": list(targets.values()),
        "candidates": list(candidates.values()),
        "positives": [[index[repr(kind.candidate(scene, caption))]] for scene in targets],
        "families": [f"{scene.colour} {scene.shape}" for scene in targets],
        "description": "generated shapes; one answer per query",
        "query_concepts": [caption(scene) for scene in targets],
        "candidate_concepts": list(concepts.values()),
    }


def _sample(split: str, moves: bool, rng: random.Random) -> Scene:
    while True:
        scene = Scene(
            shape=rng.choice(HELD_OUT_SHAPES if split == "concept" else SHAPES),
            colour=rng.choice(list(COLOURS)),
            size=rng.choice(list(SIZES)),
            position="centre" if moves else rng.choice(POSITIONS),
            background=rng.choice(list(BACKGROUNDS)),
            style=HELD_OUT_STYLE if split == "style" else rng.choice(STYLES),
            motion=rng.choice(MOTIONS) if moves else "",
        )
        if split_of(scene) == split:
            return scene


def _near(scene: Scene, rng: random.Random) -> list[Scene]:
    other = _other(scene, rng.choice(("colour", "size", "background")), rng)
    return [other, _other(scene, "motion" if scene.motion else "position", rng)]


def _other(scene: Scene, attribute: str, rng: random.Random) -> Scene:
    """The scene with another value of one attribute, of the same split or of training."""
    values = {
        "colour": COLOURS, "size": SIZES, "background": BACKGROUNDS,
        "position": POSITIONS, "motion": MOTIONS,
    }[attribute]  # fmt: skip
    others = [replace(scene, **{attribute: v}) for v in values if v != getattr(scene, attribute)]
    return rng.choice([o for o in others if split_of(o) in ("train", split_of(scene))])


def _question(scene: Scene) -> tuple[str, str]:
    """A question about a scene, always the same for it, and the answer."""
    questions = (
        ("What colour is it?", scene.colour),
        ("Which shape is it?", scene.shape),
        ("How large is it?", scene.size),
        ("Where is it?", place(scene.position)),
        ("What is behind it?", f"{scene.background} background"),
    )
    return random.Random(scene.path).choice(questions)


def _save(path: Path, scene: Scene, size: int) -> None:
    with replacing(path, durable=False) as partial:
        if scene.motion:
            first, *rest = draw_clip(scene, size)
            first.save(
                partial, "WEBP", save_all=True, append_images=rest, duration=FRAME_MILLISECONDS,
                loop=0, lossless=True, method=0, minimize_size=False,
            )  # fmt: skip
        else:
            draw(scene, size).save(partial, "PNG")
