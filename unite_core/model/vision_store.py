"""Visual tokens of a frozen vision tower, computed once and shared by all runs that look at them.

A folder holds `tokens.npy` [T, D], memory-mapped by every process, and `index.json`: which rows are
those of which media file, and what decided them (the tower's weights, the limits of pixels and
frames). It is complete or absent.
"""

# Shapes: T visual tokens of all media, N items, D embedding size.

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.items import as_item
from ..files import read_json, write_json
from .checkpoint import publish
from .decoder import takes_visual_tokens
from .inference import encode_media
from .preprocessing import Grid, MediaSource, media_of, patches_of
from .processor import Encoded, ItemPlan, Processor

if TYPE_CHECKING:
    from .embedder import UniteEmbedder

__all__ = ["VisionStore", "build_vision_store", "embed_stored"]


_PORTION = 64  # media that go through the tower together
_TOKENS_PER_BATCH = 2048


class VisionStore:
    """Visual tokens of media files by their path; open one with `VisionStore(folder)`.

    ValueError where the folder holds no store.
    """

    def __init__(self, folder: str | Path):
        index = Path(folder, "index.json")
        if not index.is_file():
            raise ValueError(f"{folder} holds no visual tokens: make it with build_vision_store")
        content = read_json(index)
        self.folder, self.origin = Path(folder), content["origin"]
        self.tokens = np.load(self.folder / "tokens.npy", mmap_mode="r")
        self._media: dict[str, tuple[int, Grid, list[float]]] = {
            name: (start, tuple(grid), seconds) for name, start, grid, seconds in content["media"]
        }

    @property
    def names(self) -> list[str]:
        """Kind and path of each media file."""
        return list(self._media)

    def check(self, embedder: UniteEmbedder) -> None:
        """ValueError where the tokens are of another tower or of other limits than `embedder`'s."""
        now = origin(embedder)
        changed = sorted(name for name in now if self.origin.get(name) != now[name])
        if changed:
            raise ValueError(
                f"{self.folder} holds visual tokens of another {', '.join(changed)}: build the "
                "store again for this model, or leave it out"
            )

    def visual_tokens(self, processor: Processor, item: Mapping) -> int:
        """Number of visual tokens of an item's media, all of which the store must have."""
        grids = [self._media[_name(source)][1] for source in media_of(as_item(item))]
        return sum(map(processor.visual_tokens, grids))

    def complete(self, processor: Processor, plan: ItemPlan, where: str = "item") -> Encoded | None:
        """The planned item with its visual tokens; None if the store lacks one of its media."""
        found = [self._media.get(name) for name in map(_name, plan.media)]
        if None in found:
            return None
        media = []
        for start, grid, _ in found:
            stop = start + processor.visual_tokens(grid)
            media.append((torch.from_numpy(self.tokens[start:stop].copy()), grid))
        return processor.complete(plan, media, [seconds for *_, seconds in found], where, True)


def build_vision_store(embedder: UniteEmbedder, items: Iterable[Mapping], media_root: str | Path,
                       folder: str | Path, progress: bool = True) -> VisionStore:  # fmt: skip
    """Compute the visual tokens of all media files of the items, each once, and open the store.

    An existing store is opened after `VisionStore.check`; ValueError where it lacks media of the
    items, or for a backbone that takes more from its tower than visual tokens (Qwen3-VL). Media in
    memory are not kept. The first media file that cannot be read raises its MediaError.
    """
    from tqdm import tqdm

    if not takes_visual_tokens(embedder.base):
        raise ValueError(f"{type(embedder.base).__name__} takes more than visual tokens")
    sources = {_name(source): source for item in items for source in media_of(as_item(item))}
    sources.pop("", None)
    if Path(folder, "index.json").is_file():
        return _opened(folder, embedder, sources)
    if not sources:
        raise ValueError("none of the items has a media file, so there is nothing to store")
    names, processor = sorted(sources), embedder.processor
    entries: list[list] = []

    def tokens_of_all() -> Iterator[np.ndarray]:
        start, portions = 0, range(0, len(names), _PORTION)
        for first in tqdm(portions, disable=not progress, desc="visual tokens"):
            portion = names[first : first + _PORTION]
            pixels = [processor.reader.read(sources[name], media_root) for name in portion]
            media = [patches_of(torch.from_numpy(p.frames), processor.layout) for p in pixels]
            with torch.inference_mode():
                tokens = encode_media(embedder, media)
            for name, part, (_, grid), read in zip(portion, tokens, media, pixels, strict=True):
                entries.append([name, start, list(grid), read.seconds])
                start += len(part)
                yield part.float().cpu().numpy()

    with publish(folder) as partial:
        _write_rows(partial / "tokens.npy", tokens_of_all())
        write_json(partial / "index.json", {"origin": origin(embedder), "media": entries})
    return VisionStore(folder)


def _write_rows(path: Path, parts: Iterable[np.ndarray]) -> None:
    """Write arrays [n, D] one after another as one .npy file; only one is in memory at a time."""
    rows, header = 0, {}
    with path.open("wb") as stream:
        for part in parts:
            part = np.ascontiguousarray(part)
            if not header:
                header = np.lib.format.header_data_from_array_1_0(part)
                np.lib.format.write_array_header_1_0(stream, header)
            stream.write(part.tobytes())
            rows += len(part)
        header["shape"] = (rows, *header["shape"][1:])
        stream.seek(0)  # numpy pads headers so that the number of rows can grow in place
        np.lib.format.write_array_header_1_0(stream, header)


def _opened(folder: str | Path, embedder: UniteEmbedder, wanted: Iterable[str]) -> VisionStore:
    store = VisionStore(folder)
    store.check(embedder)
    if lacking := sorted(set(wanted) - set(store.names)):
        raise ValueError(
            f"{folder} lacks {len(lacking)} media, such as {lacking[0]!r}: remove it, and it is "
            "built again for these items"
        )
    return store


@torch.inference_mode()
def embed_stored(embedder: UniteEmbedder, items: Sequence[Any], store: VisionStore,
                 media_root: str | Path = ".") -> np.ndarray:  # fmt: skip
    """Embed items whose media are in the store: [N, D] float32 unit vectors, in their order.

    Equal to `embedder.embed` up to rounding. Items with other media are read from `media_root`.
    """
    embedder.eval()
    processor, where = embedder.processor, [f"item {row}" for row in range(len(items))]
    encoded = []
    for plan, name in zip(processor.plan_items(items, where), where, strict=True):
        if isinstance(plan, ValueError):
            raise plan
        found = store.complete(processor, plan, name)
        if found is None:
            (found,) = embedder.encode_vision([processor.encode(plan.item, media_root, name)])
        encoded.append(found)
    vectors = np.empty((len(items), embedder.dim), dtype=np.float32)
    order = sorted(range(len(encoded)), key=lambda row: -len(encoded[row].input_ids))
    while order:
        size = max(1, _TOKENS_PER_BATCH // len(encoded[order[0]].input_ids))
        rows, order = order[:size], order[size:]
        batch = processor.collate([encoded[row] for row in rows])
        batch = {name: value.to(embedder.device) for name, value in batch.items()}
        vectors[rows] = embedder(**batch).cpu().numpy()
    return vectors


def origin(embedder: UniteEmbedder) -> dict[str, Any]:
    """What decides an embedder's visual tokens: its tower, its limits and its pixel layout."""
    digest = hashlib.sha256()
    weights, beginning = embedder.base.state_dict(), re.compile(embedder.family.vision)
    tower = {name[found.end() :]: weight for name, weight in weights.items()
             if (found := beginning.match(name))}  # fmt: skip
    for name, weight in sorted(tower.items()):
        digest.update(name.encode() + weight.float().cpu().numpy().tobytes())
    config, layout = embedder.config, embedder.processor.layout
    limits = ("image_min_pixels", "image_max_pixels", "video_min_pixels", "video_max_pixels",
              "video_pixels", "fps", "min_frames", "max_frames")  # fmt: skip
    return {
        "tower": digest.hexdigest()[:32],
        "limits": [getattr(config, name) for name in limits],
        "layout": repr(layout),
    }


def _name(source: MediaSource) -> str:
    """A media file's key in the store; "" for media in memory."""
    kind, is_list, *names = source.key
    if not all(isinstance(name, str) for name in names):
        return ""
    return "\n".join([kind + ("s" if is_list else ""), *names])
