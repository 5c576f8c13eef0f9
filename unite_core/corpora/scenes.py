"""Scenes of one shape: attributes, captions, splits and drawing. The splits:

    concept      a shape that is never in training
    composition  shape and colour are in training, their combination is not
    development  other such combinations, for model selection
    style        a drawing style that is never in training

Captions never name the style.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

__all__ = [
    "BACKGROUNDS", "COLOURS", "FRAMES", "HELD_OUT_SHAPES", "HELD_OUT_STYLE", "MOTIONS",
    "POSITIONS", "SHAPES", "SIZES", "SPLITS", "STYLES", "Scene", "caption", "draw", "draw_clip",
    "paraphrase", "place", "split_of",
]  # fmt: skip


SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart")
HELD_OUT_SHAPES = ("hexagon", "crescent")
COLOURS = {
    "red": (215, 38, 38), "orange": (245, 140, 20), "yellow": (240, 220, 40),
    "green": (40, 150, 60), "blue": (35, 90, 200), "purple": (130, 50, 160),
    "pink": (245, 130, 180), "brown": (150, 95, 50),
}  # fmt: skip
BACKGROUNDS = {"white": (255, 255, 255), "grey": (150, 150, 150), "black": (0, 0, 0)}
SIZES = {"small": 0.13, "medium": 0.2, "large": 0.28}  # radius as a share of the image
_AXIS = {"left": 0.29, "right": 0.71, "top": 0.29, "bottom": 0.71}
POSITIONS = (
    "top left", "top", "top right", "left", "centre", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
STYLES = ("solid", "striped")
HELD_OUT_STYLE = "outlined"
MOTIONS = ("left", "right", "up", "down", "growing", "shrinking")
SPLITS = ("style", "composition", "concept", "development")
FRAMES = 8


@dataclass(frozen=True)
class Scene:
    """What an image, or with a motion a clip, shows."""

    shape: str
    colour: str
    size: str = "medium"
    position: str = "centre"
    background: str = "white"
    style: str = "solid"
    motion: str = ""

    @property
    def path(self) -> str:
        """Below the corpus: `images/solid/red-circle-large-top_left-grey.png`."""
        words = [self.colour, self.shape, self.size, self.position, self.background, self.motion]
        name = "-".join(word.replace(" ", "_") for word in words if word)
        kind, suffix = ("videos", "webp") if self.motion else ("images", "png")
        return f"{kind}/{self.style}/{name}.{suffix}"

    @classmethod
    def from_path(cls, path: str) -> Scene:
        """The scene that a file's `path` names."""
        _, style, name = path.rsplit("/", 2)
        colour, shape, size, position, background, *motion = name.split(".")[0].split("-")
        return cls(shape, colour, size, position.replace("_", " "), background, style, *motion)

    @property
    def item(self) -> dict:
        """{"image": path} or {"video": path}."""
        return {"video" if self.motion else "image": self.path}


def split_of(scene: Scene) -> str:
    """The split of a scene: train, style, composition, concept or development."""
    if scene.shape in HELD_OUT_SHAPES:
        return "concept"
    if scene.style == HELD_OUT_STYLE:
        return "style"
    spot = SHAPES.index(scene.shape) + 3 * list(COLOURS).index(scene.colour)
    return {0: "composition", 3: "composition", 5: "development"}.get(spot % 8, "train")


def caption(scene: Scene, granularity: str = "fine") -> str:
    """Coarse: `"a red circle"`; fine: `"a large red circle at the top left on white"`."""
    motion = f" moving {scene.motion}" if scene.motion in MOTIONS[:4] else f" {scene.motion}"
    motion = motion if scene.motion else ""
    if granularity == "coarse":
        return f"{_article(scene.colour)} {scene.colour} {scene.shape}{motion}"
    where = "" if scene.motion else f" {place(scene.position)}"
    return f"a {scene.size} {scene.colour} {scene.shape}{motion}{where} on {scene.background}"


def paraphrase(scene: Scene) -> str:
    """The fine caption in other words: `"white background, top left: circle, red, large"`."""
    where = scene.motion or scene.position
    return f"{scene.background} background, {where}: {scene.shape}, {scene.colour}, {scene.size}"


def draw(scene: Scene, size: int, time: float = 0.0) -> Image.Image:
    """Draw a scene as an RGB image [size, size]; `time` from 0 to 1 is the moment of a motion."""
    x, y, radius = _geometry(scene, time)
    scale = 3 * size
    parts = [part * radius + (x, y) for part in _outline(scene.shape)]
    parts = [[tuple(point) for point in part * scale] for part in parts]
    mask = Image.new("L", (scale, scale))
    for points, ink in zip(parts, (255, 0), strict=False):
        ImageDraw.Draw(mask).polygon(points, fill=ink)
    if scene.style == "striped":
        mask = ImageChops.multiply(mask, _stripes(scale))
    elif scene.style == "outlined":
        mask = ImageChops.multiply(mask, _strokes(parts, scale))
    image = Image.new("RGB", (size, size), BACKGROUNDS[scene.background])
    image.paste(COLOURS[scene.colour], mask=mask.reduce(3))
    return image


def draw_clip(scene: Scene, size: int) -> list[Image.Image]:
    """Draw the frames of a moving scene."""
    return [draw(scene, size, frame / (FRAMES - 1)) for frame in range(FRAMES)]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def place(position: str) -> str:
    """The position as a caption has it: `"at the top left"`."""
    return "in the centre" if position == "centre" else f"at the {position}"


def _geometry(scene: Scene, time: float) -> tuple[float, float, float]:
    """Centre x, y and radius as shares of the image."""
    words = scene.position.split()
    x = next((_AXIS[word] for word in words if word in ("left", "right")), 0.5)
    y = next((_AXIS[word] for word in words if word in ("top", "bottom")), 0.5)
    way = 0.44 * (time - 0.5)
    x += {"left": -way, "right": way}.get(scene.motion, 0.0)
    y += {"up": -way, "down": way}.get(scene.motion, 0.0)
    growth = {"growing": 2 * time - 1, "shrinking": 1 - 2 * time}.get(scene.motion, 0.0)
    return x, y, SIZES[scene.size] * 1.6**growth


def _strokes(parts: list, scale: int) -> Image.Image:
    """Lines along the edges, [scale, scale]."""
    strokes = Image.new("L", (scale, scale))
    for points in parts:
        ImageDraw.Draw(strokes).line(
            points + points[:2], fill=255, width=scale // 20, joint="curve"
        )
    return strokes


@cache
def _stripes(size: int) -> Image.Image:
    rows, columns = np.mgrid[:size, :size]
    band = (rows + columns) // max(2, size // 24) % 2
    return Image.fromarray((band * 255).astype(np.uint8))


@cache
def _outline(shape: str) -> tuple[np.ndarray, ...]:
    """Polygon [points, 2] of radius about 1 around 0, y downwards, and the hole in it, if any."""
    circle = _polygon(60, 0)
    arm = np.array([(-0.3, -1), (0.3, -1), (0.3, -0.3)])
    turn = np.linspace(0, 2 * math.pi, 60)
    wave = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
    return {
        "circle": (circle,),
        "ring": (circle, 0.55 * circle),
        "crescent": (circle, 0.8 * circle + (0.4, -0.1)),
        "square": (_polygon(4, 45),),
        "diamond": (_polygon(4, 0) * (0.7, 1),),
        "triangle": (_polygon(3, -90),),
        "hexagon": (_polygon(6, 0),),
        "star": (_polygon(10, -90) * np.resize([1, 0.42], (10, 1)),),
        "cross": (np.concatenate([arm @ _rotation(90 * quarter) for quarter in range(4)]),),
        "heart": (np.stack([np.sin(turn) ** 3, -wave / 16], 1),),
    }[shape]


def _polygon(corners: int, degrees: float) -> np.ndarray:
    angle = np.radians(degrees) + np.arange(corners) * 2 * math.pi / corners
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def _rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, s], [-s, c]])
