"""The record schema: streaming readers, a validator that names the remedy, content identities.

A record is the authors' JSON row `{query, candidate, negative?, target_modal?}` (PAPER §7), with
`task` and `source` as free labels. Its items are dicts of `text`, `image` and `video`. An image is
a path or an image in memory (PIL or array [H, W, 3]), or a list of these; a video is a file, a
list of frames, or a list of videos.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .modality import KEYS, Modality, modality_of, parse_modality
from .prompts import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, ItemError, images_of, videos_of

__all__ = [
    "RecordError", "content_id", "iter_records", "iter_rows", "read_records", "target_modality",
    "validate_item", "validate_record", "write_records",
]  # fmt: skip

FIELDS = ("query", "candidate", "negative", "target_modal", "task", "source")

_URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:[\\/]", re.IGNORECASE)
_CHUNK = 1 << 20  # characters read at a time from a JSON list
_CUT = 16  # a value cut by the end of a chunk fails within this many characters of it


class RecordError(ValueError):
    """A record, or a file of records, that cannot be used: where, which field, what to do."""


def read_records(path: str | Path, **checks) -> list[dict]:
    """All records of a JSON list or JSON Lines file, validated; arguments as `iter_records`."""
    return list(iter_records(path, **checks))


def iter_records(path, media_root=None, check_media=False) -> Iterator[dict]:
    """Records of a file one by one, in order, each validated; the file is never read whole.

    `[` as the first character means a JSON list, anything else JSON Lines. Errors name the row
    (1-based; the line for JSON Lines). `media_root` and `check_media` as in `validate_record`.
    """
    for where, record in iter_rows(path):
        validate_record(record, where, media_root, check_media)
        yield record


def iter_rows(path: str | Path) -> Iterator[tuple[str, dict]]:
    """(place, row) of any JSON list or JSON Lines file, streamed, nothing but the JSON checked."""
    path = Path(path)
    return _iter_list(path) if _is_list(path) else _iter_lines(path)


def write_records(path: str | Path, records: Iterable[Mapping]) -> int:
    """Write records as JSON Lines, atomically; returns how many. Media must be paths."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    count = 0
    try:
        with partial.open("w", encoding="utf-8") as lines:
            for count, record in enumerate(records, 1):
                where = f"{path}, line {count}"
                validate_record(record, where)
                lines.write(_as_json(record, where) + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def validate_record(record, where="record", media_root=None, check_media=False) -> None:
    """Raise a RecordError that names place, field and remedy unless the record can be used.

    URLs are refused always, absolute and `..` paths when `media_root` is given. `check_media`
    also asks that each medium is a non-empty file under `media_root` (default: here).
    """
    if not isinstance(record, Mapping):
        raise RecordError(
            f"{where}: a record is an object with query and candidate, not "
            f"{_shown(record)}; write one {{...}} per record"
        )
    _refuse_unknown(record, FIELDS, where, "record")
    for side in ("query", "candidate"):
        if record.get(side) is None:
            raise RecordError(f"{where}, field {side}: missing; every record needs this item")
        validate_item(record[side], f"{where}, field {side}", media_root, check_media)
    if record.get("negative") is not None:
        _validate_negatives(record["negative"], f"{where}, field negative", media_root, check_media)
    for label in ("task", "source"):
        if not isinstance(record.get(label), str | None):
            raise RecordError(
                f"{where}, field {label}: {_shown(record[label])} is not a string; "
                f"quote it or leave it out"
            )
    target_modality(record, where)


def validate_item(item, where="item", media_root=None, check_media=False) -> None:
    """Raise a RecordError unless the item can be embedded; arguments as `validate_record`."""
    if not isinstance(item, Mapping):
        raise RecordError(
            f"{where}: an item is an object with {', '.join(KEYS)}, not {_shown(item)}; "
            f'write {{"text": ...}}, {{"image": ...}} or {{"video": ...}}'
        )
    _refuse_unknown(item, KEYS, where, "item")
    if not modality_of(item):
        raise RecordError(f"{where}: empty item; give it at least one of {', '.join(KEYS)}")
    if item.get("text") is not None:
        _validate_text(item["text"], f"{where}.text")
    for kind, split in (("image", images_of), ("video", videos_of)):
        try:
            media = split(item)
        except ItemError as error:
            raise RecordError(f"{where}.{kind}: {error}") from None
        for medium in media:
            _validate_media(medium, f"{where}.{kind}", media_root, check_media, kind == "video")
        _check_placeholders(item, kind, len(media), where)


def target_modality(record: Mapping, where="record") -> Modality:
    """The candidate's modality; a `target_modal` that is unknown or says otherwise is an error."""
    present = modality_of(record["candidate"])
    names = record.get("target_modal")
    if names is None:
        return present
    field = f"{where}, field target_modal"
    if not isinstance(names, str):
        raise RecordError(f'{field}: {_shown(names)} is not a string; write e.g. "text,image"')
    try:
        stated = parse_modality(names)
    except ValueError as error:
        raise RecordError(f"{field}: {error}") from None
    if stated != present:
        raise RecordError(
            f"{field}: {names!r} disagrees with the candidate, which has {present.label}; "
            f"correct one of them or leave target_modal out"
        )
    return stated


def content_id(item: Mapping) -> str:
    """32 hex digits that are equal for items of equal content, whatever their key order or form.

    Paths count by name (`./a.png` is `a.png`), images in memory by mode, size and pixels.
    """
    content = {
        "text": item.get("text"),
        "image": [_fingerprint(image) for image in images_of(item)],
        "video": [_fingerprint(video) for video in videos_of(item)],
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def _is_list(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; check the path of the records") from None
    if not head:
        raise RecordError(f"{path}: empty file; write one record per line or a JSON list")
    return head.startswith(b"[")


def _iter_lines(path: Path) -> Iterator[tuple[str, object]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield where, _parse_line(line, where)


def _parse_line(line: bytes, where: str):
    try:
        return _DECODER.decode(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}: {_not_json(error)}; put one whole record on a line") from None


def _iter_list(path: Path) -> Iterator[tuple[str, object]]:
    """Decode a JSON list value by value from a sliding buffer."""
    row = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            buffer = _Buffer(file)
            buffer.take("[")
            ended = buffer.take("]")
            while not ended:
                row += 1
                yield f"{path}, row {row}", buffer.value()
                ended = buffer.closes()
            if buffer.peek():
                raise ValueError("text after the closing ] of the list")
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{path}, row {max(row, 1)}: {_not_json(error)}; correct the JSON there"
        ) from None


class _Buffer:
    """A text file seen through a window that holds at least the value being decoded."""

    def __init__(self, file):
        self.file, self.text, self.at, self.chunk = file, "", 0, _CHUNK

    def peek(self) -> str:
        """The next character that is no space, "" at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at].isspace():
                self.at += 1
            if self.at < len(self.text) or not self.grow():
                return self.text[self.at : self.at + 1]

    def take(self, character: str) -> bool:
        found = self.peek() == character
        self.at += found
        return found

    def closes(self) -> bool:
        if self.take("]"):
            return True
        if not self.take(","):
            raise ValueError("expected , or ] after the record")
        return False

    def value(self):
        self.peek()
        while True:
            try:
                value, self.at = _DECODER.raw_decode(self.text, self.at)
                return value
            except json.JSONDecodeError as error:
                is_cut = "Unterminated" in error.msg or error.pos >= len(self.text) - _CUT
                if not (is_cut and self.grow()):
                    raise

    def grow(self) -> bool:
        more = self.file.read(self.chunk)
        self.text, self.at = self.text[self.at :] + more, 0
        self.chunk = max(_CHUNK, len(self.text))
        return bool(more)


def _unique_keys(pairs):
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"field {', '.join(twice)} given twice in one object")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)


def _not_json(error: Exception) -> str:
    cause = getattr(error, "msg", None) or getattr(error, "reason", None) or error
    return f"not valid JSON in UTF-8 ({cause})"


def _refuse_unknown(fields, known, where, kind) -> None:
    unknown = [str(name) for name in fields if name not in known]
    if unknown:
        raise RecordError(
            f"{where}: unknown field {', '.join(unknown)}; {kind}s have {', '.join(known)}: "
            f"rename or remove it"
        )


def _validate_negatives(value, where, media_root, check_media) -> None:
    negatives = value if isinstance(value, list | tuple) else [value]
    if not negatives:
        raise RecordError(f"{where}: empty list; leave the field out when there is no negative")
    for number, negative in enumerate(negatives, 1):
        place = f"{where}[{number}]" if negatives is value else where
        validate_item(negative, place, media_root, check_media)


def _validate_text(text, where) -> None:
    if not isinstance(text, str):
        raise RecordError(f"{where}: {_shown(text)} is not a string; quote the text")
    if not text.strip():
        raise RecordError(f"{where}: blank text; write something or leave the field out")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RecordError(f"{where}: half a surrogate pair; write the character whole, in UTF-8")


def _check_placeholders(item, kind, count, where) -> None:
    placeholder = IMAGE_PLACEHOLDER if kind == "image" else VIDEO_PLACEHOLDER
    places = (item.get("text") or "").count(placeholder)
    if places not in (0, count):
        raise RecordError(
            f"{where}.text: {places} {placeholder} for {count} {kind}(s); write the placeholder "
            f"once per {kind}, or never to have them before the text"
        )


def _validate_media(medium, where, media_root, check_media, frames_allowed) -> None:
    if frames_allowed and isinstance(medium, list | tuple) and medium:
        for number, frame in enumerate(medium, 1):
            _validate_media(frame, f"{where}, frame {number}", media_root, check_media, False)
    elif isinstance(medium, str | os.PathLike):
        _validate_path(os.fspath(medium), where, media_root)
        if check_media:
            _validate_file(Path(media_root or ".") / medium, where)
    elif not _is_in_memory(medium):
        raise RecordError(
            f"{where}: {_shown(medium)} is no medium; give a path, an image in memory, or a "
            f"non-empty list of these"
        )


def _validate_path(path: str, where, media_root) -> None:
    if not path.strip() or "\0" in path:
        raise RecordError(f"{where}: {path!r} is no path; give the name of a file")
    if _URL.match(path):
        raise RecordError(f"{where}: {path!r} is a URL; download it and give the file's path")
    parts = path.replace("\\", "/").split("/")
    if media_root is not None and (parts[0] == "" or _DRIVE.match(path) or ".." in parts):
        raise RecordError(
            f"{where}: {path!r} leaves the media root {os.fspath(media_root)!r}; give a path "
            f"below it, without .. and not absolute"
        )


def _validate_file(path: Path, where) -> None:
    if not path.is_file():
        raise RecordError(f"{where}: no file {path}; correct the path or the media root")
    if path.stat().st_size == 0:
        raise RecordError(f"{where}: {path} is empty; fetch the file again")


def _is_in_memory(value) -> bool:
    """Whether a value is a PIL image or an array, told without importing either library."""
    return hasattr(value, "tobytes") and (hasattr(value, "mode") or hasattr(value, "dtype"))


def _fingerprint(medium):
    if isinstance(medium, list | tuple):
        return [_fingerprint(frame) for frame in medium]
    if not _is_in_memory(medium):
        return posixpath.normpath(os.fspath(medium).replace(os.sep, "/"))
    kind = getattr(medium, "mode", None) or str(medium.dtype)
    shape = list(getattr(medium, "shape", None) or medium.size)
    return {"pixels": hashlib.sha256(medium.tobytes()).hexdigest(), "kind": kind, "size": shape}


def _as_json(record, where) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, default=os.fspath)
    except TypeError:
        raise RecordError(
            f"{where}: media in memory cannot be written; save them and give their paths"
        ) from None


def _shown(value) -> str:
    """A value short enough for a message."""
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= 60 else text[:57] + "..."
