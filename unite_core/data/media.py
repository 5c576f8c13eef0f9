"""Media files below a root, and images decoded to RGB; every failure is a MediaError.

Paths must stay below `root`; URLs are refused. `data.videos` decodes videos.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

__all__ = [
    "MAX_PIXELS",
    "MediaError",
    "image_shape",
    "load_image",
    "naming_file",
    "opened",
    "resolve",
    "thumbnail",
    "to_rgb",
]


MAX_PIXELS = 89_478_485  # per picture, Pillow's own limit


class MediaError(ValueError):
    """A media file that cannot be used; the message has file, cause and remedy."""


def load_image(source: Any, root: str | Path = ".") -> Image.Image:
    """Load an image as RGB.

    Args
        source  a path under `root`, a PIL image, or a uint8 array [H, W] or [H, W, 3 or 4]
    Applies the camera's orientation and takes the first frame of an animation. Transparent pixels
    become white, unlike in the released code, which shows the colour hidden under them.
    """
    if not isinstance(source, (str, os.PathLike)):
        return to_rgb(_picture(source), "image in memory")
    path = resolve(source, root)
    with opened(path) as image, naming_file(path):
        image.load()
        return to_rgb(image, path)


def image_shape(source: Any, root: str | Path = ".") -> tuple[int, int]:
    """Height and width from the header alone, before the camera's orientation is applied."""
    if isinstance(source, (str, os.PathLike)):
        with opened(resolve(source, root)) as image:
            return image.height, image.width
    image = _picture(source)
    return image.height, image.width


def resolve(source: str | os.PathLike, root: str | Path) -> Path:
    """The file of a path below `root`; a MediaError where there is none."""
    text = os.fspath(source)
    if "://" in text or text.startswith("data:"):
        raise MediaError(f"{text[:200]}: remote media are refused; download it and give its path")
    base = Path(root).resolve()
    path = (base / text).resolve()
    if not path.is_relative_to(base):
        raise MediaError(
            f"{text}: lies outside the media root {base}; move it there or pass another media_root"
        )
    if not path.is_file():
        raise MediaError(
            f"{text}: no such file under the media root {base}; check the name and media_root"
        )
    return path


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Turn every decoding error into a MediaError; truncated files are refused, not padded."""
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except MediaError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(f"{path}: more than {MAX_PIXELS} pixels; shrink it before use") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise MediaError(
            f"{path}: cannot be decoded ({error}); it is damaged or of another type: "
            "replace it, or leave its row out"
        ) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file, without decoding its pixels."""
    with naming_file(path):
        image = Image.open(path)
    with image:
        yield image


def _picture(source: Any) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        shape_fits = source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4))
        if source.dtype == np.uint8 and shape_fits and source.size:
            return Image.fromarray(source)
        raise MediaError(
            f"image in memory: an array must be uint8 [H, W], [H, W, 3] or [H, W, 4], not "
            f"{source.dtype} {list(source.shape)}"
        )
    raise MediaError(
        f"image in memory: give a path, a PIL image or a uint8 array, not {type(source).__name__}"
    )


def to_rgb(image: Image.Image, name: Any) -> Image.Image:
    """Upright RGB on white; a MediaError for pixels of more than 8 bits."""
    if image.mode[0] in "IF":
        raise MediaError(f"{name}: mode {image.mode} has no 8-bit pixels; save it with 8 bits")
    image = ImageOps.exif_transpose(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def thumbnail(image: Image.Image, side: int = 28) -> np.ndarray:
    """Mean colours on a grid of side x side cells: [3 side^2] float32 in [0, 1]."""
    small = image.resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel() / 255
