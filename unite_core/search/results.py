"""What a search found, to read: path or text, score, modality; as text, or as a page of pictures.

Beside vectors and beside an index lies `items.jsonl`: a line with the folder of the media, then
the items with their ids. Results of an index without it show ids.
"""

# Shapes: Q queries, k results.

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.items import files_of
from ..data.media import MediaError
from ..data.modality import Modality
from ..data.shown import item_picture, item_text
from ..files import replacing
from .index import SearchResult, VectorIndex

__all__ = [
    "Hit", "Items", "caption_id", "contact_page", "copy_items", "hit_table", "hits_of",
    "item_words", "thumbnail_of", "write_items",
]  # fmt: skip


ITEMS = "items.jsonl"
_THUMBNAIL = 160  # pixels of the longer side
_ROW = re.compile(r"(\S+:)?\d+(:(query|candidate))?")  # an id that only tells the row
_WORDS = 100  # characters of a text in a table


@dataclass(frozen=True)
class Hit:
    """One result of a query.

    item         None where it is not known what stands behind the id
    caption      text of the query that the item is the candidate of, "" if none is known
    probability  of the modality, given the query; None unless the score has it
    """

    rank: int
    score: float
    modality: str
    id: str
    item: Mapping | None = None
    probability: float | None = None
    caption: str = ""

    @property
    def words(self) -> str:
        """Caption, if known, and path or text of the item, else its id."""
        named = item_words(self.item) if self.item else self.id
        return f"{self.caption} ({named})" if self.caption else named


class Items:
    """Items by id that `write_items` put into a folder, or none.

    media_root  folder that their paths are relative to
    """

    def __init__(self, folder: str | Path):
        self.file, self.media_root = Path(folder, ITEMS), Path()
        if self.file.is_file():
            with self.file.open(encoding="utf-8") as lines:
                self.media_root = Path(json.loads(next(lines))["media_root"])

    def take(self, ids: Iterable[str]) -> dict[str, dict]:
        """The items of those ids that are known; the file is read until all are found."""
        wanted, found = set(ids), {}
        if not self.file.is_file():
            return found
        with self.file.open(encoding="utf-8") as lines:
            next(lines)
            for line in lines:
                row = json.loads(line)
                if row["id"] in wanted:
                    found[row["id"]] = row["item"]
                    if len(found) == len(wanted):
                        break
        return found


def write_items(folder: str | Path, corpus: Iterable[tuple[str, Mapping, str]],
                media_root: str | Path) -> None:  # fmt: skip
    """Write the items of a corpus beside its vectors, atomically; media in memory are left out.

    `corpus` yields (id, item, how errors name it).
    """
    with replacing(Path(folder, ITEMS)) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"media_root": str(Path(media_root).resolve())}) + "\n")
        for name, item, _ in corpus:
            row = {"id": name, "item": dict(item)}
            file.write(json.dumps(row, ensure_ascii=False, default=_named) + "\n")


def copy_items(source: str | Path, target: str | Path) -> None:
    """Put the items beside vectors beside their index, too; nothing where there are none."""
    file = Path(source, ITEMS)
    if file.is_file():
        with replacing(Path(target, ITEMS)) as partial:
            partial.write_bytes(file.read_bytes())


def hits_of(index: VectorIndex, found: SearchResult, items: Items | None = None) -> list[list[Hit]]:
    """Results of Q queries, each at most k, best first."""
    names = index.names(found.rows)
    wanted = {name for row in names for name in row}
    known = items.take(wanted | set(map(caption_id, wanted))) if items else {}
    labels = {code: Modality(code).label for code in set(found.modality.ravel().tolist()) - {0}}
    hits = []
    for query, ids in enumerate(names):
        shares = [None] * len(ids) if found.probability is None else found.probability[query]
        hits.append([
            Hit(place + 1, float(found.scores[query, place]),
                labels[int(found.modality[query, place])], name, known.get(name),
                None if shares[place] is None else float(shares[place]),
                _caption_of(name, known))
            for place, name in enumerate(ids)
        ])  # fmt: skip
    return hits


def caption_id(name: str) -> str:
    """The id of the query whose candidate an item is.

    >>> caption_id("7:candidate"), caption_id("a.png")
    ('7:query', 'a.png:query')
    """
    return f"{name.removesuffix(':candidate')}:query"


def _caption_of(name: str, known: Mapping[str, Mapping]) -> str:
    """The text that stands with a medium, "" of a text."""
    if (known.get(name) or {}).get("text"):
        return ""
    return item_text(known.get(caption_id(name)) or {})


def hit_table(hits: Sequence[Hit]) -> str:
    """The results of one query as text: rank, score, modality, its probability if known, item.

    An id of the item's own follows in brackets; the number of its row does not.
    """
    labels = [
        hit.modality if hit.probability is None else f"{hit.modality} {hit.probability:.3f}"
        for hit in hits
    ]
    width = max(map(len, labels), default=0)
    lines = []
    for hit, label in zip(hits, labels, strict=True):
        words = " ".join(hit.words.split())
        words = words if len(words) <= _WORDS else words[: _WORDS - 3] + "..."
        told = hit.words == hit.id or (hit.item and item_words(hit.item) == hit.id)
        own = "" if told or _ROW.fullmatch(hit.id) else f"  [{hit.id}]"
        lines.append(f"{hit.rank:>4}  {hit.score:7.4f}  {label:<{width}}  {words}{own}")
    return "\n".join(lines)


def item_words(item: Mapping) -> str:
    """Paths of an item's media and its text, on one line."""
    return " ".join(filter(None, [*files_of(item), item_text(item)])) or "(in memory)"


def thumbnail_of(item: Mapping, media_root: str | Path):
    """A small picture of an item's first image, or of its video's middle frame; None without.

    A file that is gone or damaged is no picture, too: results are shown all the same.
    """
    try:
        image = item_picture(item, media_root)
    except MediaError:
        return None
    if image is not None:
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return image


def contact_page(query: Mapping, hits: Sequence[Hit], media_root: str | Path,
                 query_root: str | Path = ".") -> str:  # fmt: skip
    """One query and its results as a page of HTML that needs no other file.

    Thumbnails stand in the page; every text is escaped, every picture has its words as alt text.
    """
    about = html.escape(item_words(query))
    cells = [
        _cell(hit.item or {}, hit.words, media_root,
              f"{hit.rank} · {hit.score:.4f} · {hit.modality}")
        for hit in hits
    ]  # fmt: skip
    head = _cell(query, item_words(query), query_root, "query")
    return _PAGE.format(title=about, query=head, cells="\n".join(cells))


def _cell(item: Mapping, words: str, media_root: str | Path, caption: str) -> str:
    image, escaped = thumbnail_of(item, media_root), html.escape(words, quote=True)
    body = f'<p class="text">{escaped}</p>'
    if image is not None:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        body = f'<img src="data:image/png;base64,{data}" alt="{escaped}"><p>{escaped}</p>'
    return f"<figure>{body}<figcaption>{html.escape(caption)}</figcaption></figure>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #1a1a1a; background: #fff; }}
main {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
figure {{ margin: 0; width: 176px; padding: 8px; border: 1px solid #767676; }}
img {{ max-width: 160px; max-height: 160px; display: block; margin: auto; }}
p {{ margin: .4rem 0; overflow-wrap: anywhere; }}
.text {{ min-height: 6rem; }}
figcaption {{ color: #595959; }}
</style></head>
<body><h1>{title}</h1>
<section aria-label="query">{query}</section>
<h2>Results, best first</h2>
<main>
{cells}
</main></body></html>
"""


def _named(value) -> str | None:
    return str(value) if isinstance(value, Path) else None
