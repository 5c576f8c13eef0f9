"""From items to model input: prompts, tokens and patches. Needs no model, so workers can run it."""

# Shapes: B items, T tokens, N patches of all media of a batch, V videos, D embedding size.

from __future__ import annotations

import re
import warnings
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..data.items import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, ItemError, as_item
from ..data.media import MediaError
from .backbones import TEMPLATES
from .config import EmbedConfig
from .family import Backbone
from .preprocessing import (
    Grid,
    Layout,
    MediaReader,
    MediaSource,
    media_of,
    normalised,
    patches_of,
)
from .prompts import build_prompt

__all__ = ["Encoded", "MediaTensor", "ItemPlan", "Processor", "naming_item"]


_PLACEHOLDERS = re.compile(f"({re.escape(IMAGE_PLACEHOLDER)}|{re.escape(VIDEO_PLACEHOLDER)})")
_PIXELS = ("pixel_values", "pixel_values_videos")
_STAMPS = {"text": "<{:.1f} seconds>", "frames": ""}  # before each temporal patch of a video
# uint8 patches [n, 3 temporal P P], or visual tokens [n / merge^2, D], and the grid (t, h, w).
MediaTensor = tuple[torch.Tensor, Grid]


class ItemPlan(NamedTuple):
    """An item whose prompt is tokenized and whose media are not read yet."""

    item: dict  # as `as_item` gives it
    prompt: array  # token ids, one pad for each image or video
    media: list[MediaSource]  # images, then videos


class Encoded(NamedTuple):
    """An item with its media, ready for `Processor.collate`."""

    input_ids: list[int]
    images: list[MediaTensor]
    videos: list[MediaTensor]
    video_step: list[float]  # seconds between the temporal patches of each video
    has_features: bool = False  # media are visual tokens: `UniteEmbedder.encode_vision`


class Processor:
    """Turns items into batches with a checkpoint's tokenizer and pixel layout; picklable.

    Args
        tokenizer   a fast tokenizer with the special tokens
        config      prompt and limits of pixels, frames and tokens
        layout      patch sizes and colour normalisation of the vision tower
        video_time  how the model learns of a video's time: "none" (Qwen2-VL), "positions"
                    (Qwen2.5-VL, by `second_per_grid_ts`), "text" (Qwen3-VL, stamps in the prompt),
                    "frames" (EmbeddingGemma 2, by their order alone)
        tokens      of padding, image and video, see `Backbone`
    """

    def __init__(self, tokenizer, config: EmbedConfig, layout: Layout | None = None,
                 video_time: str = "none",
                 tokens: tuple[str, str, str] = Backbone.tokens):  # fmt: skip
        self.tokenizer = tokenizer
        self.config = config
        self.layout = layout or Layout()
        self.video_time = video_time
        self.tokens = tokens
        self.pad_id, self.image_id, self.video_id = (
            _token_id(tokenizer, token) for token in tokens
        )
        self._warned_of_cut = False

    @property
    def reader(self) -> MediaReader:
        """Reads media for this processor."""
        return MediaReader(self.config, self.layout)

    def encode(self, item: Any, media_root: str | Path = ".", where: str = "item") -> Encoded:
        """Encode one item.

        Args
            item   dict of text, image, video; or a PIL image or array
            where  how errors name the item, such as "item 3"
        Text beyond `config.max_length` tokens is cut at its end, with one warning. Raises ItemError
        for a bad item or one whose media alone are too long, MediaError for a bad media file.
        """
        plan = self.plan_item(item, where)
        with naming_item(where):
            read = [self.reader.read(source, media_root) for source in plan.media]
        media = [patches_of(torch.from_numpy(pixels.frames), self.layout) for pixels in read]
        return self.complete(plan, media, [pixels.seconds for pixels in read], where)

    def plan_item(self, item: Any, where: str = "item") -> ItemPlan:
        """Tokenize an item without reading its media; errors as in `encode`."""
        (plan,) = self.plan_items([item], [where])
        if isinstance(plan, ItemError):
            raise plan
        return plan

    def plan_items(self, items: Sequence[Any], where: Sequence[str]) -> list[ItemPlan | ItemError]:
        """`plan_item` of each item, or its error; prompts are tokenized in one call."""
        found: list[tuple[dict, str] | ItemError] = []
        for thing, name in zip(items, where, strict=True):
            try:
                with naming_item(name):
                    item = as_item(thing)
                    found.append((item, self._prompt(item)))
            except ItemError as error:
                found.append(error)
        prompts = [entry[1] for entry in found if not isinstance(entry, ItemError)]
        ids = iter(self._tokenize(prompts) if prompts else ())
        return [
            entry
            if isinstance(entry, ItemError)
            else ItemPlan(entry[0], array("i", next(ids)), media_of(entry[0]))
            for entry in found
        ]

    def complete(self, plan: ItemPlan, media: Sequence[MediaTensor],
                 seconds: Sequence[list[float]], where: str = "item",
                 has_features: bool = False) -> Encoded:  # fmt: skip
        """Add media to a planned item.

        Args
            media         patches and grids of `plan.media`
            seconds       times of their frames, from `MediaReader.read`
            has_features  `media` are visual tokens instead of patches
        """
        count = sum(source.kind == "image" for source in plan.media)
        images, videos, times = list(media[:count]), list(media[count:]), seconds[count:]
        grids = [grid for _, grid in images], [grid for _, grid in videos]
        with naming_item(where):
            ids = self._fitting_ids(plan, grids, times, where)
        steps = [self._step(t) for t in times]
        return Encoded(ids, images, videos, steps, has_features)

    def count_tokens(self, plan: ItemPlan, media_root: str | Path = ".", where: str = "item",
                     shapes: dict[tuple, tuple[int, Grid]] | None = None) -> int:  # fmt: skip
        """Number of tokens of an item from media headers alone; an upper limit for video files.

        Args
            shapes  `MediaReader.shape` by `MediaSource.key`: those missing are read and added
        """
        shapes = {} if shapes is None else shapes
        with naming_item(where):
            for source in plan.media:
                if source.key not in shapes:
                    shapes[source.key] = self.reader.shape(source, media_root)
            images, videos = (
                [shapes[source.key] for source in plan.media if source.kind == kind]
                for kind in ("image", "video")
            )
            grids = [grid for _, grid in images], [grid for _, grid in videos]
            times = [[i / self.config.fps for i in range(frames)] for frames, _ in videos]
            return min(len(self._token_ids(plan, grids, times)), self.config.max_length)

    def collate(self, items: Sequence[Encoded], raw: bool = False) -> dict[str, torch.Tensor]:
        """Make a left-padded batch for `UniteEmbedder.forward`.

        Args
            raw  leave pixels as bytes: `UniteEmbedder.forward` normalises them on its device, to
                 the same numbers
        Returns `input_ids` and `attention_mask` [B, T], and where there are such media
        `pixel_values` [N, .] with `image_grid_thw` [images, 3], `pixel_values_videos` [N, .] with
        `video_grid_thw` [V, 3]; for Qwen2.5-VL also `second_per_grid_ts` [V]. Instead of pixels,
        items with features give `image_features` and `video_features` [tokens, D].
        """
        width = max(len(item.input_ids) for item in items)
        ids = [[self.pad_id] * (width - len(i.input_ids)) + i.input_ids for i in items]
        mask = [[0] * (width - len(i.input_ids)) + [1] * len(i.input_ids) for i in items]
        batch = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
        with_media = [item for item in items if item.images or item.videos]
        if len({item.has_features for item in with_media}) > 1:
            raise ValueError(
                "items with pixels and items with visual tokens do not mix: encode_vision() all"
            )
        has_features = any(item.has_features for item in with_media)
        names = ("image_features", "video_features") if has_features else _PIXELS
        for kind, name, field in zip(("image", "video"), names, ("images", "videos"), strict=True):
            media = [entry for item in items for entry in getattr(item, field)]
            if media:
                values = torch.cat([values for values, _ in media])
                batch[name] = values if raw else normalised(values, self.layout)
                batch[f"{kind}_grid_thw"] = torch.tensor([grid for _, grid in media])
        if "video_grid_thw" in batch and self.video_time == "positions":
            steps = [step for item in items for step in item.video_step]
            batch["second_per_grid_ts"] = torch.tensor(steps)
        return batch

    def visual_tokens(self, grid: Grid) -> int:
        """Number of tokens of an image or video with this grid."""
        t, h, w = grid
        return t * h * w // self.layout.merge**2

    def _step(self, seconds: Sequence[float]) -> float:
        """Seconds between the temporal patches of a video; of a single frame, as at 1 a second."""
        temporal = self.layout.temporal
        if self.config.parity == "released":
            return temporal / self.config.fps
        if len(seconds) < 2:
            return float(temporal)
        return temporal * (seconds[-1] - seconds[0]) / (len(seconds) - 1)

    def _prompt(self, item: dict) -> str:
        return build_prompt(item, self.config.prompt, self.config.parity == "released")

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        special = TEMPLATES[self.config.prompt].special_tokens
        options = {"add_special_tokens": special, "return_attention_mask": False}
        return self.tokenizer(texts, **options).input_ids

    def _fitting_ids(self, plan: ItemPlan, grids, times, where: str) -> list[int]:
        """Token ids, with the text shortened until they fit."""
        limit, item = self.config.max_length, plan.item
        ids = self._token_ids(plan, grids, times)
        if len(ids) > limit and not self._warned_of_cut:
            self._warned_of_cut = True
            warnings.warn(
                f"{where}: {len(ids)} tokens, more than max_length {limit}: its text is cut at the "
                "end, and so are later ones without another word. Raise max_length to keep them.",
                stacklevel=4,
            )
        while len(ids) > limit:
            text = self._without_last_tokens(item.get("text", ""), len(ids) - limit)
            if text is None:
                raise ItemError(
                    f"{len(ids)} tokens without any text, more than max_length {limit}: raise "
                    "max_length, or lower the number or size of images and frames"
                )
            item = {**item, "text": text}
            ids = self._token_ids(self.plan_item(item, where), grids, times)
        return ids

    def _token_ids(self, plan: ItemPlan, grids, times) -> list[int]:
        """The prompt's token ids with one pad per visual token."""
        images, videos = grids
        prompt: Sequence[int] = plan.prompt
        if self.video_time in _STAMPS and videos:
            block, stamp = TEMPLATES[self.config.prompt].video, _STAMPS[self.video_time]
            text = _stamp_videos(self._prompt(plan.item), block, stamp, times, self.layout.temporal)
            (prompt,) = self._tokenize([text])
            videos = [(1, h, w) for t, h, w in videos for _ in range(t)]
        pads = {
            self.image_id: iter([self.visual_tokens(grid) for grid in images]),
            self.video_id: iter([self.visual_tokens(grid) for grid in videos]),
        }
        ids: list[int] = []
        for token in prompt:
            ids += [token] * next(pads[token]) if token in pads else [token]
        return ids

    def _without_last_tokens(self, text: str, excess: int) -> str | None:
        """Cut the last `excess` tokens of a text, but no placeholder; None if nothing is left."""
        pieces = _PLACEHOLDERS.split(text)  # text and placeholders in turn
        for i in range(len(pieces) - 1, -1, -2):
            spans = self.tokenizer(
                pieces[i], add_special_tokens=False, return_offsets_mapping=True
            ).offset_mapping
            cut = min(excess, len(spans))
            excess -= cut
            pieces[i] = pieces[i][: spans[-cut][0]] if cut else pieces[i]
            if not excess:
                shorter = "".join(pieces)
                return shorter if shorter.strip() else None
        return None


@contextmanager
def naming_item(where: str) -> Iterator[None]:
    """Put `where` before the message of an ItemError, MediaError or ValueError."""
    try:
        yield
    except (ItemError, MediaError) as error:
        raise type(error)(f"{where}: {error}") from error
    except ValueError as error:
        raise ItemError(f"{where}: {error}") from error


def _token_id(tokenizer, token: str) -> int:
    index = tokenizer.convert_tokens_to_ids(token)
    if index is None or tokenizer.convert_ids_to_tokens(index) != token:
        raise ValueError(f"the tokenizer has no {token}: use the one of the model's checkpoint")
    return index


def _stamp_videos(
    prompt: str, block: str, stamp: str, times: Sequence[Sequence[float]], temporal: int
) -> str:
    """Replace each video block by one per temporal patch, after a stamp of its mean time."""
    head, *tails = prompt.split(block)
    for seconds, tail in zip(times, tails, strict=True):
        starts = range(0, len(seconds), temporal)
        means = [(seconds[i] + seconds[min(i + temporal, len(seconds)) - 1]) / 2 for i in starts]
        head += "".join(stamp.format(mean) + block for mean in means) + tail
    return head
