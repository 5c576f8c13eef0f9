"""Adapters turn the rows of public data sets into records; a registry makes them extensible.

An adapter yields zero or more records for a row and raises RecordError for a row that it does not
understand. It never fills in, repairs or invents content: records are validated afterwards, and an
instruction comes from the caller. A new layout is one function, in this package or outside it:

    from unite_core.curate.adapters import ADAPTERS, require_columns

    @ADAPTERS.register("my-set")
    def my_set(row, language="en"):
        require_columns(row, ("title", "file"), "my-set")
        yield {"query": {"text": row["title"]}, "candidate": {"image": row["file"]}}

A recipe's source then names it: `"adapter": "my-set", "options": {"language": "de"}`.

The adapter "folder" takes the rows of `media_folders`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath

from ..data.embedded import FOLDER as EMBEDDED
from ..data.items import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from ..data.json_stream import RecordError
from ..data.records import FIELDS
from ..registry import Registry
from .media_folders import VIDEOS

__all__ = ["ADAPTERS", "Adapter", "adapter", "require_columns"]


Adapter = Callable[[Mapping], Iterator[dict]]

ADAPTERS: Registry[Callable[..., Iterator[dict]]] = Registry("adapter")
"""Functions (row, **options) -> records by name; every option has a default."""

_SIDES = ("query", "candidate")
_COMMON = ("instruction", "task", "source", "group")  # options that every adapter has
_MMEB_IMAGE = "<|image_1|>"
_MMEB = ("qry", "qry_image_path", "pos_text", "pos_image_path")
_COVR = ("pth1", "pth2", "edit")
_CAPTIONS = ("caption", "captions", "sentences", "text")
_MEDIA = ("image", "video", "image_path", "video_path", "file_name", "video_name", "path")
_PAIRS = (  # columns of query, positive and hard negative in text data sets
    ("sent0", "sent1", "hard_neg"),  # NLI as in SimCSE
    ("anchor", "positive", "negative"),
    ("query", "positive_passages", "negative_passages"),  # MS MARCO as in Tevatron
    ("question", "positive_ctxs", "hard_negative_ctxs"),  # NQ, TriviaQA, SQuAD as in DPR
    ("query", "pos", "neg"),
    ("query", "positive", "negative"),
    ("question", "answer", "negative"),
    ("sentence1", "sentence2", "negative"),
)


def adapter(name: str, /, **options) -> Adapter:
    """Return the adapter of this name with its options set: a function row -> records.

        native         UNITE's rows {query, candidate, negative?, target_modal?}: those of
                       Unite-Base-Retrieval-Train, Unite-Instruct-Retrieval-Train, and our own
        mmeb           MMEB-train: qry, qry_image_path, pos_text, pos_image_path, neg_...
        covr           WebVid-CoVR: pth1, pth2, edit; videos are `pth` + suffix (".mp4")
        captions       an image or video with one or more captions; direction "text-media" or
                       "media-text"; media "image" or "video" if the column does not tell
        folder         the same for the rows of `folder_rows`
        text-pairs     NLI, MS MARCO, NQ and similar; `negatives` limits those of a row
    All take `instruction`, put before the query's text (or alone), `task` and `source`, and
    `group`, the column whose values become the records' `group`.
    Raises RecordError for an unknown name or option.

    >>> convert = adapter("captions", instruction="Find an image:")
    >>> list(convert({"image": "a.png", "captions": ["a cat"]}))
    [{'query': {'text': 'Find an image:\\na cat'}, 'candidate': {'image': 'a.png'}}]
    """
    try:
        convert = ADAPTERS[name]
    except ValueError as error:
        raise RecordError(str(error)) from None
    common = {key: options.pop(key) for key in _COMMON if key in options}
    known = list(inspect.signature(convert).parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        raise RecordError(
            f"adapter {name} has no option {', '.join(unknown)}; it has "
            f"{', '.join((*known, *_COMMON))}"
        )
    return partial(_converted, name, partial(convert, **options), common)


def require_columns(row: Mapping, names: tuple[str, ...], layout: str) -> None:
    """Raise a RecordError if a row lacks one of the columns that its layout needs."""
    if missing := [name for name in names if name not in row]:
        raise RecordError(f"no column {', '.join(missing)}; a {layout} row has {', '.join(names)}")


def _converted(name: str, convert: Adapter, common: Mapping[str, str], row) -> Iterator[dict]:
    if not isinstance(row, Mapping):
        raise RecordError(f"a row is an object with named fields, not {type(row).__name__}")
    try:
        for record in _labelled(convert(row), common):
            yield _grouped(record, row, common["group"]) if "group" in common else record
    except RecordError:
        raise
    except Exception as error:  # a value of another type than the adapter takes for granted
        raise RecordError(
            f"does not fit the layout of adapter {name} ({type(error).__name__}: "
            f"{str(error)[:200]}); correct the row or choose another adapter"
        ) from error


def _labelled(records: Iterable[dict], common: Mapping[str, str]) -> Iterator[dict]:
    for record in records:
        if (instruction := common.get("instruction")) and "query" in record:
            record["query"] = _instructed(record["query"], instruction)
        labels = {key: common[key] for key in ("task", "source") if key in common}
        yield labels | record if "task" in record or "source" in record else record | labels


def _grouped(record: dict, row: Mapping, column: str) -> dict:
    """The record with the row's value of a column as its group, none where that is empty."""
    value = row.get(column)
    kept = {key: each for key, each in record.items() if key in FIELDS or key != column}
    return kept if value is None or value == "" else kept | {"group": str(value)}


def _instructed(query, instruction: str):
    if not isinstance(query, Mapping):
        return query  # the validator refuses it
    text = query.get("text")
    if text is None:
        placeholders = [
            placeholder
            for key, placeholder in (("image", IMAGE_PLACEHOLDER), ("video", VIDEO_PLACEHOLDER))
            for _ in range(_count(query.get(key)))
        ]
        return {"text": "\n".join([*placeholders, instruction]), **query}
    if not isinstance(text, str):
        return query  # the validator refuses it, too
    return {**query, "text": f"{instruction}\n{text}"}


def _count(media) -> int:
    return len(media) if isinstance(media, list) else int(media is not None)


@ADAPTERS.register("native")
def _native(row: Mapping) -> Iterator[dict]:
    """Drop the nulls that Parquet and `datasets` fill in, and unwrap {"image": x}."""
    record = {key: value for key, value in row.items() if value is not None and value != {}}
    for side in _SIDES:
        if isinstance(record.get(side), Mapping):
            record[side] = _item(record[side])
    negative = record.get("negative")
    if isinstance(negative, Mapping):
        record["negative"] = _item(negative)
    elif isinstance(negative, list):
        record["negative"] = [_item(n) if isinstance(n, Mapping) else n for n in negative]
    if record.get("negative") in ({}, []):  # how a table says that there is none
        del record["negative"]
    yield record


def _item(item: Mapping) -> dict:
    return {key: _unwrapped(key, value) for key, value in item.items() if value is not None}


def _unwrapped(key: str, value):
    """The value of {"type": "image", "image": value}, which UNITE's released reader accepts."""
    if isinstance(value, Mapping) and key in value and set(value) <= {"type", key}:
        return value[key]
    return value


@ADAPTERS.register("mmeb")
def _mmeb(row: Mapping) -> Iterator[dict]:
    require_columns(row, _MMEB, "MMEB")
    record = {
        "query": _mmeb_item(row["qry"], row["qry_image_path"]),
        "candidate": _mmeb_item(row["pos_text"], row["pos_image_path"]),
    }
    if negative := _mmeb_item(row.get("neg_text"), row.get("neg_image_path")):
        record["negative"] = negative
    yield record


def _mmeb_item(text, image) -> dict:
    """Item without the parts that are empty or null; a placeholder alone counts as no text."""
    item = {}
    text = text.replace(_MMEB_IMAGE, IMAGE_PLACEHOLDER) if isinstance(text, str) else text
    words = text.replace(IMAGE_PLACEHOLDER, "").strip() if isinstance(text, str) else text
    if words:
        item["text"] = text.strip() if isinstance(text, str) else text
    if image:
        item["image"] = image
    return item


@ADAPTERS.register("covr")
def _covr(row: Mapping, suffix: str = ".mp4", folder: str = "") -> Iterator[dict]:
    require_columns(row, _COVR, "WebVid-CoVR")
    source, target = (_covr_path(row[key], suffix, folder) for key in _COVR[:2])
    text = row["edit"]
    if text and isinstance(text, str):
        text = f"{VIDEO_PLACEHOLDER}\n{text}"
    yield {"query": {"text": text, "video": source}, "candidate": {"video": target}}


def _covr_path(path, suffix: str, folder: str):
    if not isinstance(path, str):
        return path
    named = path if PurePosixPath(path).suffix else path + suffix
    return f"{folder}/{named}" if folder else named


@ADAPTERS.register("captions")
@ADAPTERS.register("folder")
def _captions(row: Mapping, direction: str = "text-media", media: str = "", image: str = "",
              caption: str = "", folder: str = "") -> Iterator[dict]:  # fmt: skip
    """`image` names the column of the media file, `caption` that of the captions."""
    if direction not in ("text-media", "media-text"):
        raise RecordError(f"direction is text-media or media-text, not {direction!r}")
    require_columns(row, tuple(name for name in (image, caption) if name), "captions")
    column = image or _first_column(row, _MEDIA, "a media file")
    texts = row[caption or _first_column(row, _CAPTIONS, "captions")]
    path = row[column]
    if isinstance(path, str) and folder and not path.startswith(f"{EMBEDDED}/"):
        path = f"{folder}/{path}"
    item = {media or _kind(column, path): path}
    for text in texts if isinstance(texts, list) else [texts]:
        pair = ({"text": _caption(text)}, dict(item))
        yield dict(zip(_SIDES, pair if direction == "text-media" else pair[::-1], strict=True))


def _caption(text):
    """The sentence; Karpathy's files store it as {"raw": ..., "tokens": ...}."""
    return text["raw"] if isinstance(text, Mapping) and "raw" in text else text


def _kind(column: str, path) -> str:
    if column.startswith("video"):
        return "video"
    is_video = isinstance(path, str) and PurePosixPath(path).suffix.lower() in VIDEOS
    return "video" if is_video else "image"


@ADAPTERS.register("text-pairs")
def _text_pairs(row: Mapping, query: str = "", positive: str = "", negative: str = "",
                negatives: int | None = None, positives: int | None = None,
                ) -> Iterator[dict]:  # fmt: skip
    """One record per positive, each with all hard negatives of the row in their order."""
    names = (query, positive, negative) if query and positive else _pair_columns(row)
    require_columns(row, names[:2], "text-pairs")
    hard = [{"text": text} for text in _passages(row.get(names[2]))][:negatives]
    for text in _passages(row[names[1]])[:positives]:
        record = {"query": {"text": row[names[0]]}, "candidate": {"text": text}}
        yield record | ({"negative": hard} if hard else {})


def _pair_columns(row: Mapping) -> tuple[str, str, str]:
    for names in _PAIRS:
        if names[0] in row and names[1] in row:
            return names
    known = "; ".join(f"{query}, {positive}" for query, positive, _ in _PAIRS)
    raise RecordError(f"no columns of pairs among {', '.join(row)}; known are {known}: name them")


def _passages(value) -> list:
    """Texts of one passage or a list of passages {title, text}, without "" and null."""
    passages = value if isinstance(value, list) else [value]
    return [_passage(passage) for passage in passages if passage not in (None, "")]


def _passage(passage):
    if not isinstance(passage, Mapping):
        return passage
    title, text = passage.get("title"), passage.get("text")
    return f"{title} {text}" if title and isinstance(text, str) else text


def _first_column(row: Mapping, names: tuple[str, ...], what: str) -> str:
    for name in names:
        if row.get(name) is not None:
            return name
    raise RecordError(f"no column of {what} among {', '.join(row)}; known are {', '.join(names)}")
