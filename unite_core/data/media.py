"""Media files below a root, and images decoded to RGB; every failure is a MediaError.

Paths must stay below `root`; URLs are refused. `data.videos` decodes videos. No other exception
leaves these functions, whatever the file or the object is.
"""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from .items import path_fault

__all__ = [
    "MAX_PIXELS", "MAX_RATIO", "MediaError", "check_sides", "image_shape", "inside", "load_image",
    "naming_file", "opened", "resolve", "thumbnail", "to_rgb",
]  # fmt: skip


MAX_PIXELS = 89_478_485  # per picture, Pillow's own limit
MAX_RATIO = 200  # of the sides, the limit of Qwen2-VL
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # of a PNG
_IN_MEMORY = "image in memory"
_PIXELS = re.compile(r"\((\d+) pixels\)")  # in Pillow's words
_NEXT_TO_WHITE = 8  # grey levels


class MediaError(ValueError):
    """A media file that cannot be used; the message has file, cause and remedy."""


def load_image(source: Any, root: str | Path = ".", as_stored: bool = False) -> Image.Image:
    """Load an image as RGB.

    Args
        source     a path under `root`, a PIL image, or a uint8 array [H, W] or [H, W, 3 or 4]
        as_stored  neither turned nor put on white, as in the released code
    Applies the camera's orientation and takes the first frame of an animation. Transparent pixels
    become white, unlike in the released code, which shows the colour hidden under them; black where
    white would hide the picture (`info["page"]` says so). Of the metadata only the orientation
    counts, and where it cannot be read the image is not turned.
    """
    if not isinstance(source, (str, os.PathLike)):
        with naming_file(_IN_MEMORY):
            return to_rgb(_picture(source), _IN_MEMORY, as_stored)
    path = resolve(source, root)
    return _from_file(path, lambda image: to_rgb(image, path, as_stored))


def image_shape(source: Any, root: str | Path = ".", as_stored: bool = False) -> tuple[int, int]:
    """Height and width as `load_image` gives them, from the header alone."""
    if not isinstance(source, (str, os.PathLike)):
        with naming_file(_IN_MEMORY):
            return _shape(_picture(source), _IN_MEMORY, as_stored)
    path = resolve(source, root)
    return _from_file(path, lambda image: _shape(image, path, as_stored))


def resolve(source: str | os.PathLike, root: str | Path) -> Path:
    """The file of a path below `root`; a MediaError where there is none, or it is empty."""
    text = os.fspath(source)
    if not isinstance(text, str):
        raise MediaError(f"{text!r:.200}: a path must be a string, not {type(text).__name__}")
    shown = text if text.isprintable() else ascii(text)[1:-1]
    shown = shown if len(shown) <= 300 else shown[:300] + "..."
    if "://" in text or text.startswith("data:"):
        raise MediaError(f"{shown}: remote media are refused; download it and give its path")
    if fault := path_fault(text):
        raise MediaError(f"{shown}: {fault}")
    base = os.path.realpath(root)
    path = inside(os.path.join(base, text), base)
    if path is None:
        raise MediaError(
            f"{shown}: lies outside the media root {base}; move it there or pass another media_root"
        )
    try:
        status = os.stat(path)
    except OSError as error:
        raise MediaError(
            f"{shown}: no such file under the media root {base} ({error.strerror}); check the name "
            "and media_root"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(
            f"{shown}: no such file under the media root {base} (it is a folder or device); check "
            "the name and media_root"
        )
    if not status.st_size:
        raise MediaError(f"{shown}: empty file; fetch it again")
    return Path(path)


def inside(path: str, base: str) -> str | None:
    """The real path of `path` if it lies below the real folder `base`, else None.

    A snapshot of the Hugging Face cache counts together with the `blobs` that its links lead to.
    """
    real = os.path.realpath(path)
    if _below(real, base):
        return real
    blobs = _blobs(base)
    is_blob = blobs is not None and _below(real, blobs)
    return real if is_blob and _below(os.path.realpath(os.path.dirname(path)), base) else None


def _below(path: str, base: str) -> bool:
    return (path + os.sep).startswith(base.rstrip(os.sep) + os.sep)


@lru_cache
def _blobs(base: str) -> str | None:
    """`CACHE/blobs` for a folder `CACHE/snapshots/...`."""
    for folder in (Path(base), *Path(base).parents):
        if folder.name == "snapshots" and (folder.parent / "blobs").is_dir():
            return str(folder.parent / "blobs")
    return None


@contextmanager
def naming_file(path: Any) -> Iterator[None]:
    """Turn every error into a MediaError; truncated files are refused, not padded."""
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except MediaError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        counted = _PIXELS.search(str(error))
        size = f" ({int(counted[1]) / 1e6:.0f} megapixels)" if counted else ""
        raise MediaError(
            f"{path}: more than {MAX_PIXELS} pixels{size}; shrink it before use"
        ) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise MediaError(
            f"{path}: cannot be decoded ({_words(error)}); it is damaged or of another type: "
            "replace it, or leave its row out"
        ) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file, without decoding its pixels; errors inside are MediaErrors too."""
    with naming_file(path), Image.open(path) as image:
        yield image


def _from_file(path: Path, use: Callable[[Image.Image], Any]) -> Any:
    """What `use` makes of the image; a PNG or JPEG with damaged metadata is read without them."""
    try:
        with opened(path) as image:
            return use(image)
    except MediaError:
        with naming_file(path):
            plain = _without_metadata(path)
        if plain is None:
            raise
    with naming_file(path), Image.open(io.BytesIO(plain)) as image:
        return use(image)


def _without_metadata(path: Path) -> bytes | None:
    """A PNG or JPEG without what decides neither its pixels nor its turn; None if it has only such.

    It is only looked at after an error.
    """
    data = path.read_bytes() if path.stat().st_size <= 4 * MAX_PIXELS else b""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        plain = _png_pixels(data)
    elif data.startswith(b"\xff\xd8\xff"):
        plain = _jpeg_pixels(data)
    else:
        return None
    return plain if len(plain) < len(data) else None


def _jpeg_pixels(data: bytes) -> bytes:
    kept, start = [data[:2]], 2
    while data[start : start + 1] == b"\xff" and data[start + 1 : start + 2] != b"\xda":
        marker, end = data[start + 1], start + 2 + int.from_bytes(data[start + 2 : start + 4])
        is_short_adobe = marker == 0xEE and end - start < 16
        if marker in (0xE1, 0xEE) and not is_short_adobe or not 0xE0 <= marker <= 0xFE:
            kept.append(data[start:end])
        start = end
    return b"".join(kept) + data[start:]


def _png_pixels(data: bytes) -> bytes:
    kept, start = [data[:8]], 8
    while start + 8 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4])
        name, checksum = data[start + 4 : start + 8], data[end - 4 : end]
        whole = zlib.crc32(data[start + 4 : end - 4]).to_bytes(4) == checksum
        if name in _PIXEL_CHUNKS or (name == b"eXIf" and whole):
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def _picture(source: Any) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        shape_fits = source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4))
        if source.dtype == np.uint8 and shape_fits and source.size:
            return Image.fromarray(source)
        raise MediaError(
            f"{_IN_MEMORY}: an array must be uint8 [H, W], [H, W, 3] or [H, W, 4], not "
            f"{source.dtype} {list(source.shape)}"
        )
    raise MediaError(
        f"{_IN_MEMORY}: give a path, a PIL image or a uint8 array, not {type(source).__name__}"
    )


def to_rgb(image: Image.Image, name: Any, as_stored: bool = False) -> Image.Image:
    """Upright RGB on white, or as stored.

    A MediaError for pixels of more than 8 bits or sides that do not fit; other errors are for the
    caller's `naming_file`.
    """
    _check_fit(image, name)
    image.load()
    if as_stored:
        return image.convert("RGB")
    turn = _turn(image)
    if turn is not None:
        image = image.transpose(turn)
    if not image.has_transparency_data:
        return image.convert("RGB")
    return _on_page(image.convert("RGBA"))


def _on_page(image: Image.Image) -> Image.Image:
    """RGB on white, or on black where white hides what the picture shows."""
    page = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if min(low for low, _ in page.getextrema()) < 255 - _NEXT_TO_WHITE:
        return page
    dark = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    if not any(low < high for low, high in dark.getextrema()):
        return page  # nothing is drawn at all
    dark.info["page"] = "black"
    return dark


def _check_fit(image: Image.Image, name: Any) -> None:
    if image.mode[0] in "IF":
        raise MediaError(f"{name}: mode {image.mode} has no 8-bit pixels; save it with 8 bits")
    check_sides(image.height, image.width, name)


def check_sides(height: int, width: int, name: Any) -> None:
    """Raise a MediaError for a picture or frame without pixels, or too long for the model."""
    if min(height, width) < 1:
        raise MediaError(f"{name}: cannot be decoded (no size is given); replace it")
    if max(height, width) > MAX_RATIO * min(height, width):
        raise MediaError(
            f"{name}: sides of more than {MAX_RATIO} : 1 ({width} x {height} pixels); crop it"
        )


def _shape(image: Image.Image, name: Any, as_stored: bool) -> tuple[int, int]:
    _check_fit(image, name)
    height, width = image.height, image.width
    if as_stored:
        return height, width
    if image.format != "TIFF" and _turn(image) in (_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]):
        return width, height  # Pillow gives the size of a TIFF upright
    return height, width


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How the camera's orientation turns an image; None where it is not stated or unreadable."""
    try:
        return _TURNS.get(Image.Image.getexif(image).get(_ORIENTATION))
    except Exception:  # whatever damaged metadata raise
        return None


def thumbnail(image: Image.Image, side: int = 28) -> np.ndarray:
    """Mean colours on a grid of side x side cells: [3 side^2] float32 in [0, 1]."""
    small = image.resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel() / 255
