"""Pictures and clips of the emoji corpus, rendered from the packages into small files.

Still pictures become PNG of `SIZE` pixels on white. A clip becomes a lossless animated WebP of at
most `CLIP_FRAMES` evenly spaced frames with the true duration.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from PIL import Image

from ...files import replacing
from .catalogue import normalize

__all__ = ["CLIP_FRAMES", "SIZE", "clip_sources", "icon_names", "render_clip", "still_renderers"]


SIZE = 112
CLIP_FRAMES = 8


def still_renderers(
    style: str, package: Path, names: Mapping[str, str] | None = None
) -> dict[str, Callable[[Path], None]]:
    """{code: function that writes the picture in that style to a PNG path}.

    `names` {code: icon name} is for icon sets without a character list.
    """
    if style == "fluent":
        files = (package / "assets").glob("*.webp")
        return {normalize(file.stem): partial(_still_from_file, file) for file in files}
    icons = json.loads((package / "icons.json").read_text(encoding="utf-8"))
    size = {"width": icons["width"], "height": icons["height"]}
    return {
        code: partial(_still_from_svg, {**size, **icons["icons"][name]})
        for code, name in (names or icon_names(package)).items()
        if name in icons["icons"]
    }


def icon_names(package: Path) -> dict[str, str]:
    """{code: icon name} from the character list of an icon set."""
    names = json.loads((package / "chars.json").read_text(encoding="utf-8"))
    return {normalize(code): name for code, name in names.items()}


def clip_sources(package: Path) -> dict[str, Path]:
    """{code: file} of the files in an animation package that move."""
    sources = {}
    for file in sorted((package / "assets").glob("*.webp")):
        with Image.open(file) as image:
            if getattr(image, "n_frames", 1) > 1:
                sources[normalize(file.stem)] = file
    return sources


def render_clip(source: Path, target: Path) -> None:
    """Write `CLIP_FRAMES` evenly spaced frames of an animation, on white, with its duration."""
    with Image.open(source) as image:
        count = min(CLIP_FRAMES, image.n_frames)
        wanted = {round(i * (image.n_frames - 1) / (count - 1)) for i in range(count)}
        frames, duration = [], 0
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            duration += image.info.get("duration", 0)
            if index in wanted:
                frames.append(_on_white(image))
    _save(
        target, frames[0], format="WEBP", lossless=True, save_all=True, append_images=frames[1:],
        duration=max(1, round(duration / len(frames))), loop=0,
    )  # fmt: skip


def _still_from_file(file: Path, target: Path) -> None:
    with Image.open(file) as image:
        _save(target, _on_white(image), format="PNG")


def _still_from_svg(icon: dict, target: Path) -> None:
    import resvg_py

    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {icon['width']} {icon['height']}"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{SIZE}" height="{SIZE}">{icon["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE)
    with Image.open(io.BytesIO(png)) as image:
        _save(target, _on_white(image), format="PNG")


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    page = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(page, image).convert("RGB")


def _save(target: Path, image: Image.Image, **options) -> None:
    with replacing(target, durable=False) as partial:
        image.save(partial, **options)
