"""Put right what can be, before records are judged: entities, templates, too many pixels.

Files are never changed: a picture that is shrunk becomes a copy below the media root.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image, ImageOps

from ..data.media import MAX_PIXELS, MediaError, image_shape, naming_file, resolve
from ..files import replacing
from .adapters import Adapter
from .config import CleanConfig
from .validate import cause_of

__all__ = ["Repair", "shrunk_copy", "unescaped"]


_ENTITY = re.compile(r"&(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_SHRUNK = ".unite/shrunk"
_MOST_PIXELS = 12 * MAX_PIXELS  # about a gigapixel, 3 GB of memory
_SIDES = ("query", "candidate")


class Repair:
    """Repairs of one build; `done` counts repaired texts and pictures."""

    def __init__(self, config: CleanConfig, root: str | Path = "."):
        self.config, self.root = config, root
        self.done: Counter[str] = Counter()
        self._copies: dict[str, str] = {}

    def texts(self, convert: Adapter) -> Adapter:
        """The adapter with HTML entities in texts unescaped, and `remove` cut out."""
        repairs = self.config.unescape or self.config.remove
        return self._converted(convert) if repairs else convert

    def media(self, record: dict) -> dict:
        """The record with copies instead of pictures of too many pixels."""
        if not self.config.shrink_to:
            return record
        sides = {side: self._small(record[side]) for side in _SIDES}
        return record | sides if any(sides[s] is not record[s] for s in _SIDES) else record

    def _converted(self, convert: Adapter) -> Adapter:
        def repaired(row: Mapping) -> Iterator[dict]:
            for record in convert(row):
                yield record | {
                    side: self._plain(record[side]) for side in _SIDES if side in record
                }

        return repaired

    def _plain(self, item):
        text = item.get("text") if isinstance(item, Mapping) else None
        if not isinstance(text, str):
            return item
        plain = unescaped(text) if self.config.unescape else text
        self.done["texts with HTML entities"] += plain != text
        short = self._cut(plain)
        self.done["texts cut by `remove`"] += short != plain
        return item if short == text else {**item, "text": short}

    def _cut(self, text: str) -> str:
        """The text without what `remove` matches; a text of nothing else stays."""
        short = text
        for pattern in self.config.remove:
            short = re.sub(pattern, "", short, flags=re.IGNORECASE)
        return short.strip() or text if short != text else text

    def _small(self, item: Mapping) -> Mapping:
        image = item.get("image")
        if not image:
            return item
        paths = [image] if isinstance(image, str) else image
        small = [self._copy(path) if isinstance(path, str) else path for path in paths]
        return item if small == list(paths) else {**item, "image": small}

    def _copy(self, path: str) -> str:
        if path not in self._copies:
            self._copies[path] = path
            try:
                image_shape(path, self.root)
            except MediaError as error:
                if cause_of(str(error)) == "too many pixels":
                    self._shrink(path)
        return self._copies[path]

    def _shrink(self, path: str) -> None:
        try:
            self._copies[path] = shrunk_copy(path, self.root, self.config.shrink_to)
            self.done["pictures shrunk"] += 1
        except MediaError:
            self.done["pictures too large to shrink"] += 1


def unescaped(text: str) -> str:
    """The text with the characters that HTML entities mean, also those escaped twice.

    Only entities that end with a semicolon count, and none becomes a media placeholder.

    >>> unescaped("Mother &amp; child &amp;#8211; 1920"), unescaped("R&D; &lt;|IMAGE|&gt;")
    ('Mother & child – 1920', 'R&D; &lt;|IMAGE|&gt;')
    """
    plain = text
    for _ in range(2):
        plain = _ENTITY.sub(lambda found: html.unescape(found[0]), plain)
    plain = plain.replace("\xa0", " ")
    return text if "<|" in plain and "<|" not in text else plain


def shrunk_copy(path: str, root: str | Path, side: int) -> str:
    """Save a copy with `side` pixels on its longer side below `root`; returns its path there.

    A copy that exists for the same file is taken as it is. Raises MediaError for a picture of more
    than a gigapixel.
    """
    source = resolve(path, root)
    state = source.stat()
    digest = hashlib.sha256(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0{side}".encode())
    name = f"{_SHRUNK}/{digest.hexdigest()[:24]}.png"
    if not Path(root, name).is_file():
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with naming_file(source), Image.open(source) as image:
                _check_size(image, path)
                image.draft("RGB", (side, side))
                small = ImageOps.exif_transpose(image)
                small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
        with replacing(Path(root, name)) as partial:
            small.save(partial, "PNG")
    return name


def _check_size(image: Image.Image, path: str) -> None:
    pixels = image.width * image.height
    if pixels > _MOST_PIXELS:
        raise MediaError(
            f"{path}: {pixels / 1e6:.0f} megapixels, more than {_MOST_PIXELS} pixels; shrink it "
            "with another program"
        )
