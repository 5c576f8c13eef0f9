"""From rows as public sets lay them out to records.

An adapter makes no, one or several records of a row. What it cannot understand is a RecordError;
what it makes is validated like every record. It never fills in, repairs or invents: instructions
are given by whoever calls it.

Plain folders: a medium and beside it a text file of the same name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from ..data.items import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from ..data.json_stream import RecordError
from ..data.readers import Row

__all__ = ["ADAPTERS", "Adapter", "adapter", "folder_files", "folder_rows"]


Adapter = Callable[[Mapping], Iterator[dict]]

_SIDES = ("query", "candidate")
_MMEB_IMAGE = "<|image_1|>"
_MMEB = ("qry", "qry_image_path", "pos_text", "pos_image_path")
_COVR = ("pth1", "pth2", "edit")
_CAPTIONS = ("caption", "captions", "sentences", "text")
_MEDIA = ("image", "video", "image_path", "video_path", "file_name", "video_name", "path")
_VIDEO_SUFFIXES = {".mp4", ".webm", ".mkv", ".avi", ".mov", ".gif", ".m4v", ".mpg", ".mpeg"}
_PAIRS = (  # columns of query, positive and hard negative of sets of texts
    ("sent0", "sent1", "hard_neg"),  # NLI as SimCSE has it
    ("anchor", "positive", "negative"),
    ("query", "positive_passages", "negative_passages"),  # MS MARCO as Tevatron has it
    ("question", "positive_ctxs", "hard_negative_ctxs"),  # NQ, TriviaQA, SQuAD as DPR has them
    ("query", "pos", "neg"),
    ("query", "positive", "negative"),
    ("question", "answer", "negative"),
    ("sentence1", "sentence2", "negative"),
)


def adapter(name: str, **options) -> Adapter:
    """The adapter of this name with its options; RecordError for a name or option it lacks.

        native         UNITE's rows {query, candidate, negative?, target_modal?}: those of
                       Unite-Base-Retrieval-Train, Unite-Instruct-Retrieval-Train, and our own
        mmeb           MMEB-train: qry, qry_image_path, pos_text, pos_image_path, neg_...
        covr           WebVid-CoVR: pth1, pth2, edit; videos are `pth` + suffix (".mp4")
        captions       an image or video and one or many captions; direction "text-media" or
                       "media-text", media "image" or "video" where the column does not tell
        text-pairs     NLI, MS MARCO, NQ and the like; negatives at most so many per row
    All take `instruction`, put before the query's text (or alone), `task` and `source`.
    """
    if name not in ADAPTERS:
        raise RecordError(f"no adapter {name!r}; there are {', '.join(ADAPTERS)}")
    common = {key: options.pop(key) for key in ("instruction", "task", "source") if key in options}
    convert, known = ADAPTERS[name]
    if unknown := sorted(set(options) - set(known)):
        raise RecordError(
            f"adapter {name} has no option {', '.join(unknown)}; it has "
            f"{', '.join((*known, 'instruction', 'task', 'source'))}"
        )
    return partial(_converted, partial(convert, **options), common)


def _converted(convert: Adapter, common: Mapping[str, str], row) -> Iterator[dict]:
    if not isinstance(row, Mapping):
        raise RecordError(f"a row is an object with named fields, not {type(row).__name__}")
    for record in convert(row):
        if (instruction := common.get("instruction")) and "query" in record:
            record["query"] = _instructed(record["query"], instruction)
        labels = {key: common[key] for key in ("task", "source") if key in common}
        yield labels | record if "task" in record or "source" in record else record | labels


def _instructed(query, instruction: str):
    if not isinstance(query, Mapping):
        return query  # for the validator to refuse
    text = query.get("text")
    if text is None:
        marks = [
            mark
            for key, mark in (("image", IMAGE_PLACEHOLDER), ("video", VIDEO_PLACEHOLDER))
            for _ in range(_count(query.get(key)))
        ]
        return {"text": "\n".join([*marks, instruction]), **query}
    return {**query, "text": f"{instruction}\n{text}"}


def _count(media) -> int:
    return len(media) if isinstance(media, list) else int(media is not None)


def _native(row: Mapping) -> Iterator[dict]:
    """Fields that Parquet and `datasets` fill with null are left out; {"image": x} is unwrapped."""
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
    """The released reader also takes {"type": "image", "image": path}."""
    if isinstance(value, Mapping) and key in value and set(value) <= {"type", key}:
        return value[key]
    return value


def _mmeb(row: Mapping) -> Iterator[dict]:
    _need(row, _MMEB, "MMEB")
    record = {
        "query": _mmeb_item(row["qry"], row["qry_image_path"]),
        "candidate": _mmeb_item(row["pos_text"], row["pos_image_path"]),
    }
    if negative := _mmeb_item(row.get("neg_text"), row.get("neg_image_path")):
        record["negative"] = negative
    yield record


def _mmeb_item(text, image) -> dict:
    """ "" and null mean none; a placeholder without words around it says nothing."""
    item = {}
    text = text.replace(_MMEB_IMAGE, IMAGE_PLACEHOLDER) if isinstance(text, str) else text
    words = text.replace(IMAGE_PLACEHOLDER, "").strip() if isinstance(text, str) else text
    if words:
        item["text"] = text.strip()
    if image:
        item["image"] = image
    return item


def _covr(row: Mapping, suffix: str = ".mp4", folder: str = "") -> Iterator[dict]:
    _need(row, _COVR, "WebVid-CoVR")
    source, target = (_covr_path(row[key], suffix, folder) for key in _COVR[:2])
    text = f"{VIDEO_PLACEHOLDER}\n{row['edit']}" if row["edit"] else row["edit"]
    yield {"query": {"text": text, "video": source}, "candidate": {"video": target}}


def _covr_path(path, suffix: str, folder: str):
    if not isinstance(path, str):
        return path
    named = path if PurePosixPath(path).suffix else path + suffix
    return f"{folder}/{named}" if folder else named


def _captions(row: Mapping, direction: str = "text-media", media: str = "", image: str = "",
              caption: str = "", folder: str = "") -> Iterator[dict]:  # fmt: skip
    """`image` names the column of the medium, `caption` that of the captions."""
    if direction not in ("text-media", "media-text"):
        raise RecordError(f"direction is text-media or media-text, not {direction!r}")
    column = image or _first(row, _MEDIA, "a medium")
    texts = row[caption or _first(row, _CAPTIONS, "captions")]
    path = row[column]
    if isinstance(path, str) and folder:
        path = f"{folder}/{path}"
    item = {media or _medium(column, path): path}
    for text in texts if isinstance(texts, list) else [texts]:
        pair = ({"text": _caption(text)}, dict(item))
        yield dict(zip(_SIDES, pair if direction == "text-media" else pair[::-1], strict=True))


def _caption(text):
    """Karpathy's files keep a sentence as {"raw": ..., "tokens": ...}."""
    return text["raw"] if isinstance(text, Mapping) and "raw" in text else text


def _medium(column: str, path) -> str:
    if column.startswith("video"):
        return "video"
    is_video = isinstance(path, str) and PurePosixPath(path).suffix.lower() in _VIDEO_SUFFIXES
    return "video" if is_video else "image"


def _text_pairs(
    row: Mapping,
    query: str = "",
    positive: str = "",
    negative: str = "",
    negatives: int | None = None,
    positives: int | None = None,
) -> Iterator[dict]:
    """One record per positive; each has the row's hard negatives, in their order."""
    names = (query, positive, negative) if query and positive else _pair_columns(row)
    asked = row[names[0]]
    hard = [{"text": text} for text in _passages(row.get(names[2]))][:negatives]
    for text in _passages(row[names[1]])[:positives]:
        record = {"query": {"text": asked}, "candidate": {"text": text}}
        yield record | ({"negative": hard} if hard else {})


def _pair_columns(row: Mapping) -> tuple[str, str, str]:
    for names in _PAIRS:
        if names[0] in row and names[1] in row:
            return names
    known = "; ".join(f"{one}, {other}" for one, other, _ in _PAIRS)
    raise RecordError(f"no columns of pairs among {', '.join(row)}; known are {known}: name them")


def _passages(value) -> list:
    """Texts of a passage, or of a list of passages {title, text}; "" and null are none."""
    passages = value if isinstance(value, list) else [value]
    return [_passage(one) for one in passages if one not in (None, "")]


def _passage(one):
    if not isinstance(one, Mapping):
        return one
    title, text = one.get("title"), one.get("text")
    return f"{title} {text}" if title and isinstance(text, str) else text


def _need(row: Mapping, names: tuple[str, ...], layout: str) -> None:
    missing = [name for name in names if name not in row]
    if missing:
        raise RecordError(f"no column {', '.join(missing)}; a {layout} row has {', '.join(names)}")


def _first(row: Mapping, names: tuple[str, ...], what: str) -> str:
    for name in names:
        if row.get(name) is not None:
            return name
    raise RecordError(f"no column of {what} among {', '.join(row)}; known are {', '.join(names)}")


ADAPTERS: dict[str, tuple[Callable[..., Iterator[dict]], tuple[str, ...]]] = {
    "native": (_native, ()),
    "mmeb": (_mmeb, ()),
    "covr": (_covr, ("suffix", "folder")),
    "captions": (_captions, ("direction", "media", "image", "caption", "folder")),
    "text-pairs": (_text_pairs, ("query", "positive", "negative", "negatives", "positives")),
}


IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".webm", ".mkv", ".avi", ".mov", ".gif", ".m4v"}
_MAX_TEXT = 1 << 20  # bytes of a caption file


def folder_rows(root: str | Path) -> Iterator[Row]:
    """Rows {"image" or "video": path below `root`, "caption": text} in the order of the names.

    `.webp` is taken for a video if it moves. Every line that is not blank is a caption. A medium
    without text is a row with an error, a text without medium too; other files are passed over.
    Links are not followed.
    """
    root = Path(root)
    if not root.is_dir():
        raise RecordError(f"{root}: no folder; name the folder of the media and their texts")
    for folder, names in _folders(root):
        for stem in sorted({Path(name).stem for name in names}):
            yield from _pairs(root, folder, stem, names)


def folder_files(root: str | Path) -> Iterator[Path]:
    """All files that `folder_rows` looks at, in the order of the names."""
    return (folder / name for folder, names in _folders(Path(root)) for name in sorted(names))


def _folders(root: Path) -> Iterator[tuple[Path, set[str]]]:
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        yield Path(folder), {name for name in names if Path(folder, name).is_file()}


def _pairs(root: Path, folder: Path, stem: str, files: set[str]) -> Iterator[Row]:
    suffixes = sorted(Path(name).suffix for name in files if Path(name).stem == stem)
    media = [suffix for suffix in suffixes if suffix.lower() in IMAGES | VIDEOS | {".webp"}]
    has_text = ".txt" in suffixes
    if has_text and not media:
        yield Row(str(folder / f"{stem}.txt"), None, "a text without a medium of the same name")
    for suffix in media:
        path = folder / f"{stem}{suffix}"
        if has_text:
            yield _row(root, path, folder / f"{stem}.txt")
        else:
            yield Row(str(path), None, f"no text file {stem}.txt beside it")


def _row(root: Path, path: Path, text: Path) -> Row:
    if text.is_symlink() or path.is_symlink():
        return Row(str(path), None, "a link; put the file itself into the folder")
    try:
        with text.open("rb") as file:
            content = file.read(_MAX_TEXT + 1)
        captions = content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return Row(str(path), None, f"{text.name} cannot be read as UTF-8 text ({error})")
    if len(content) > _MAX_TEXT:
        return Row(str(path), None, f"{text.name} is longer than {_MAX_TEXT} bytes")
    captions = [line.strip() for line in captions if line.strip()]
    kind = "video" if _moves(path) else "image"
    return Row(str(path), {kind: path.relative_to(root).as_posix(), "caption": captions or ""})


def _moves(path: Path) -> bool:
    if path.suffix.lower() != ".webp":
        return path.suffix.lower() in VIDEOS
    with path.open("rb") as file:
        head = file.read(21)
    return head[12:16] == b"VP8X" and bool(head[20] & 2)  # the animation flag of the header
