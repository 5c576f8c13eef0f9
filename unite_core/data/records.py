"""Records: the schema of training and evaluation data, its checks, and content identities.

A record is a JSON object `{query, candidate, negative?, target_modal?}` as in the released data
(docs/method.md), with `task` and `source` as free labels. `scores` are a teacher's, such as a
reranker's: of the candidate, then of each hard negative. `instruction` is that of the query,
unless the query has its own; each item can have one. Items with the same `query_group` or
`candidate_group` count as one item: candidates of one group are positives of each other's queries.
Records of one `group`, such as those of a product, belong together without being positives: they
are on one side of a split, mining takes none of their candidates as a negative of another's query,
and training keeps them out of each other's batches. Items are described in `data.items`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..files import replacing
from .embedded import is_cell
from .items import (
    IMAGE_PLACEHOLDER,
    ITEM_KEYS,
    VIDEO_PLACEHOLDER,
    ItemError,
    images_of,
    instructed,
    instruction_fault,
    path_fault,
    text_fault,
    videos_of,
)
from .json_stream import RecordError
from .modality import KEYS, Modality, modality_of, parse_modality
from .readers import iter_values

__all__ = [
    "GROUPS", "ITEM_GROUPS", "RecordError", "content_id", "instructed_query", "iter_records",
    "read_records", "target_modality", "validate_item", "validate_record", "write_records",
]  # fmt: skip


ITEM_GROUPS = ("query_group", "candidate_group")
GROUPS = (*ITEM_GROUPS, "group")
FIELDS = (
    "query", "candidate", "negative", "target_modal", "task", "source", "instruction", "scores",
    *GROUPS,
)  # fmt: skip

_URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:[\\/]", re.IGNORECASE)


def read_records(path: str | Path, **checks) -> list[dict]:
    """Read and validate all records of a file or folder; arguments as `iter_records`."""
    return list(iter_records(path, **checks))


def iter_records(path, media_root=None, check_media=False) -> Iterator[dict]:
    """Read and validate records one by one, in order; the file is never held whole.

    Takes any format of `data.readers`: JSON, JSON Lines, Parquet, and so on. Errors name the row
    (1-based; the line for JSON Lines). `media_root` and `check_media`: see `validate_record`.
    """
    for where, record in iter_values(path, media_root=media_root):
        validate_record(record, where, media_root, check_media)
        yield record


def write_records(path: str | Path, records: Iterable[Mapping]) -> int:
    """Validate records, write them as JSON Lines atomically, and return their number.

    Media must be paths.
    """
    count = 0
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as lines:
        for count, record in enumerate(records, 1):
            where = f"{path}, line {count}"
            validate_record(record, where)
            lines.write(_as_json(record, where) + "\n")
    return count


def validate_record(record, where="record", media_root=None, check_media=False) -> None:
    """Check a record; a RecordError names place, field and remedy.

    Args
        where        how the error names the record, such as "train.jsonl, line 3"
        media_root   if given, absolute paths and paths with `..` are refused; URLs always are
        check_media  also require each media file to exist under `media_root` (default: the
                     working directory) and not to be empty
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
    if record.get("scores") is not None:
        _validate_scores(record, f"{where}, field scores")
    for label in ("task", "source", *GROUPS):
        if not isinstance(record.get(label), str | None):
            raise RecordError(
                f"{where}, field {label}: {_shown(record[label])} is not a string; "
                f"quote it or leave it out"
            )
        if fault := text_fault(record.get(label) or ""):
            raise RecordError(f"{where}, field {label}: {fault}")
    if fault := instruction_fault(record.get("instruction")):
        raise RecordError(f"{where}, field instruction: {fault}")
    target_modality(record, where)


def instructed_query(record: Mapping) -> dict:
    """The query of a record with the record's instruction, unless it has its own."""
    given = record.get("instruction")
    return record["query"] if given is None else instructed(record["query"], given)


def validate_item(item, where="item", media_root=None, check_media=False) -> None:
    """Check an item; arguments and errors as `validate_record`."""
    if not isinstance(item, Mapping):
        raise RecordError(
            f"{where}: an item is an object with {', '.join(KEYS)}, not {_shown(item)}; "
            f'write {{"text": ...}}, {{"image": ...}} or {{"video": ...}}'
        )
    _refuse_unknown(item, ITEM_KEYS, where, "item")
    if not modality_of(item):
        raise RecordError(f"{where}: empty item; give it at least one of {', '.join(KEYS)}")
    if item.get("text") is not None:
        _validate_text(item["text"], f"{where}.text")
    if fault := instruction_fault(item.get("instruction")):
        raise RecordError(f"{where}.instruction: {fault}")
    for kind, split in (("image", images_of), ("video", videos_of)):
        try:
            media = split(item)
        except ItemError as error:
            raise RecordError(f"{where}.{kind}: {error}") from None
        for entry in media:
            _validate_media(entry, f"{where}.{kind}", media_root, check_media, kind == "video")
        _check_placeholders(item, kind, len(media), where)


def target_modality(record: Mapping, where="record") -> Modality:
    """The candidate's modality; a `target_modal` that is unknown or disagrees is a RecordError."""
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
    """Hash an item's content to 32 hex digits, whatever the order of its keys and its instruction.

    Paths count by name (`./a.png` is `a.png`; the file is not opened), images in memory by mode,
    size and pixels.
    """
    content = {
        "text": item.get("text"),
        "image": [_fingerprint(image) for image in images_of(item)],
        "video": [_fingerprint(video) for video in videos_of(item)],
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


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


def _validate_scores(record, where) -> None:
    negative, scores = record.get("negative") or [], record["scores"]
    wanted = 1 + (1 if isinstance(negative, Mapping) else len(negative))
    if not isinstance(scores, list | tuple) or len(scores) != wanted:
        raise RecordError(
            f"{where}: {_shown(scores)}; write a list of {wanted} numbers, of the candidate and of "
            "each hard negative"
        )
    for number, score in enumerate(scores, 1):
        if type(score) not in (int, float) or not math.isfinite(score):
            raise RecordError(f"{where}[{number}]: {_shown(score)} is no finite number; correct it")


def _validate_text(text, where) -> None:
    if not isinstance(text, str):
        raise RecordError(f"{where}: {_shown(text)} is not a string; quote the text")
    if not text.strip():
        raise RecordError(f"{where}: blank text; write something or leave the field out")
    if fault := text_fault(text):
        raise RecordError(f"{where}: {fault}")


def _check_placeholders(item, kind, count, where) -> None:
    placeholder = IMAGE_PLACEHOLDER if kind == "image" else VIDEO_PLACEHOLDER
    places = (item.get("text") or "").count(placeholder)
    if places not in (0, count):
        raise RecordError(
            f"{where}.text: {places} {placeholder} for {count} {kind}(s); write the placeholder "
            f"once per {kind}, or never to have them before the text"
        )


def _validate_media(media, where, media_root, check_media, frames_allowed) -> None:
    if frames_allowed and isinstance(media, list | tuple) and media:
        for number, frame in enumerate(media, 1):
            _validate_media(frame, f"{where}, frame {number}", media_root, check_media, False)
    elif isinstance(media, str | os.PathLike):
        _validate_path(os.fspath(media), where, media_root)
        if check_media:
            _validate_file(Path(media_root or ".") / media, where)
    elif is_cell(media):
        raise RecordError(
            f"{where}: media inside a table; name a media root, below which they become files"
        )
    elif not _is_in_memory(media):
        raise RecordError(
            f"{where}: {_shown(media)} is no medium; give a path, an image in memory, or a "
            f"non-empty list of these"
        )


def _validate_path(path: str, where, media_root) -> None:
    if fault := path_fault(path):
        raise RecordError(f"{where}: {path!r}: {fault}")
    if _URL.match(path):
        raise RecordError(f"{where}: {path!r} is a URL; download it and give the file's path")
    parts = path.replace("\\", "/").split("/")
    if media_root is not None and (parts[0] == "" or _DRIVE.match(path) or ".." in parts):
        raise RecordError(
            f"{where}: {path!r} leaves the media root {os.fspath(media_root)!r}; give a path "
            f"below it, without .. and not absolute"
        )


def _validate_file(path: Path, where) -> None:
    missing = f"{where}: no file {path}"
    try:
        state = path.stat()
    except OSError as error:
        why = "" if isinstance(error, FileNotFoundError) else f" ({error.strerror})"
        raise RecordError(f"{missing}{why}; correct the path or the media root") from None
    if not stat.S_ISREG(state.st_mode):
        raise RecordError(f"{missing}; correct the path or the media root")
    if state.st_size == 0:
        raise RecordError(f"{where}: {path} is empty; fetch the file again")


def _is_in_memory(value) -> bool:
    """Whether a value is a PIL image or an array, without importing either library."""
    return hasattr(value, "tobytes") and (hasattr(value, "mode") or hasattr(value, "dtype"))


def _fingerprint(media):
    if isinstance(media, list | tuple):
        return [_fingerprint(frame) for frame in media]
    if not _is_in_memory(media):
        return posixpath.normpath(os.fspath(media).replace(os.sep, "/"))
    kind = getattr(media, "mode", None) or str(media.dtype)
    shape = list(getattr(media, "shape", None) or media.size)
    return {"pixels": hashlib.sha256(media.tobytes()).hexdigest(), "kind": kind, "size": shape}


def _as_json(record, where) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, default=os.fspath)
    except TypeError:
        raise RecordError(
            f"{where}: media in memory cannot be written; save them and give their paths"
        ) from None


def _shown(value) -> str:
    """A value, cut to fit a message."""
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= 60 else text[:57] + "..."
