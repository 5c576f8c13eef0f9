"""Items to model input: prompt, tokens, pixels. Holds no model, so it travels to loader workers.

# Shapes: B items, T tokens, N patches of all media of a batch, V videos.
"""

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
from .config import EmbedConfig
from .preprocessing import Grid, Layout, MediaReader, Source, media_of, patches_of
from .prompts import VIDEO_BLOCK, build_prompt

__all__ = ["Encoded", "Medium", "ItemPlan", "Processor", "naming"]


_PLACEHOLDERS = re.compile(f"({re.escape(IMAGE_PLACEHOLDER)}|{re.escape(VIDEO_PLACEHOLDER)})")
_PIXELS = ("pixel_values", "pixel_values_videos")
# Patches [n, 3 x temporal x P x P], or visual tokens [n / merge^2, D], and grid (t, h, w).
Medium = tuple[torch.Tensor, Grid]


class ItemPlan(NamedTuple):
    """An item before its media are read."""

    item: dict  # as `as_item` gives it
    prompt: array  # its tokens, one pad for each medium
    media: list[Source]  # images, then videos


class Encoded(NamedTuple):
    """One item, ready to be put in a batch."""

    input_ids: list[int]
    images: list[Medium]
    videos: list[Medium]
    video_step: list[float]  # seconds between the temporal patches of each video
    has_features: bool = False  # media are visual tokens, see `UniteEmbedder.encode_vision`


class Processor:
    """The checkpoint's tokenizer and pixel layout with an EmbedConfig; picklable.

    Args
        tokenizer   a fast tokenizer with the Qwen2-VL special tokens
        config      prompt, limits of pixels, frames and tokens
        layout      patch sizes and colour normalisation of the vision tower
        video_time  where a video's time goes: "none" (Qwen2-VL), "positions" (Qwen2.5-VL, through
                    `second_per_grid_ts`) or "text" (Qwen3-VL, time stamps between frames)
    """

    def __init__(self, tokenizer, config: EmbedConfig, layout: Layout | None = None,
                 video_time: str = "none"):  # fmt: skip
        self.tokenizer = tokenizer
        self.config = config
        self.layout = layout or Layout()
        self.video_time = video_time
        self.pad_id, self.image_id, self.video_id = (
            _token_id(tokenizer, token)
            for token in ("<|endoftext|>", "<|image_pad|>", "<|video_pad|>")
        )
        self._said_shortened = False

    @property
    def reader(self) -> MediaReader:
        """What reads media for this processor."""
        return MediaReader(self.config, self.layout)

    def encode(self, item: Any, media_root: str | Path = ".", where: str = "item") -> Encoded:
        """Tokens and patches of one item.

        Args
            item   dict of text, image, video; or a PIL image or array in memory
            where  how errors name the item, such as "item 3"
        Text beyond `config.max_length` tokens is cut at its end, with one warning; an item that
        does not fit even then is an ItemError. A bad medium is a MediaError.
        """
        outline = self.outline(item, where)
        with naming(where):
            read = [self.reader.read(source, media_root) for source in outline.media]
        media = [patches_of(torch.from_numpy(one.frames), self.layout) for one in read]
        return self.complete(outline, media, [one.seconds for one in read], where)

    def outline(self, item: Any, where: str = "item") -> ItemPlan:
        """What an item asks for, without a look at its media; errors as in `encode`."""
        (outline,) = self.outlines([item], [where])
        if isinstance(outline, ItemError):
            raise outline
        return outline

    def outlines(self, items: Sequence[Any], where: Sequence[str]) -> list[ItemPlan | ItemError]:
        """`outline` of each item, or its error; their prompts are tokenised together."""
        found: list[tuple[dict, str] | ItemError] = []
        for thing, name in zip(items, where, strict=True):
            try:
                with naming(name):
                    item = as_item(thing)
                    found.append((item, build_prompt(item, self.config.prompt)))
            except ItemError as error:
                found.append(error)
        prompts = [each[1] for each in found if not isinstance(each, ItemError)]
        ids = iter(self._tokenize(prompts) if prompts else ())
        return [each if isinstance(each, ItemError)
                else ItemPlan(each[0], array("i", next(ids)), media_of(each[0]))
                for each in found]  # fmt: skip

    def complete(self, outline: ItemPlan, media: Sequence[Medium],
                 seconds: Sequence[list[float]], where: str = "item",
                 has_features: bool = False) -> Encoded:  # fmt: skip
        """The item with its media.

        Args
            media    patches of `outline.media`, or, if `has_features`, their visual tokens, with grids
            seconds  of `MediaReader.read`, for each of them
        """
        count = sum(source.kind == "image" for source in outline.media)
        images, videos, times = list(media[:count]), list(media[count:]), seconds[count:]
        grids = [grid for _, grid in images], [grid for _, grid in videos]
        with naming(where):
            ids = self._fitting_ids(outline, grids, times, where)
        steps = [_step(t, self.layout.temporal) for t in times]
        return Encoded(ids, images, videos, steps, has_features)

    def estimate_tokens(self, item: Any, media_root: str | Path = ".",
                        where: str = "item") -> int:  # fmt: skip
        """Number of tokens that `encode` gives, from file headers alone; at least that many for
        video files, whose frames are not counted."""
        outline = self.outline(item, where)
        with naming(where):
            shapes = [self.reader.shape(source, media_root) for source in outline.media]
            return self.count(outline, shapes)

    def count(self, outline: ItemPlan, shapes: Sequence[tuple[int, Grid]]) -> int:
        """Tokens of an item whose media have these `MediaReader.shape`s."""
        images, videos = (
            [shape for source, shape in zip(outline.media, shapes, strict=True)
             if source.kind == kind] for kind in ("image", "video")
        )  # fmt: skip
        grids = [grid for _, grid in images], [grid for _, grid in videos]
        times = [[i / self.config.fps for i in range(frames)] for frames, _ in videos]
        return min(len(self._token_ids(outline, grids, times)), self.config.max_length)

    def collate(self, items: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Left-padded batch for `UniteEmbedder.forward`.

        Returns `input_ids` and `attention_mask` [B, T], and where there are such media
        `pixel_values` [N, .] with `image_grid_thw` [images, 3], `pixel_values_videos` [N, .] with
        `video_grid_thw` [V, 3]; for Qwen2.5-VL also `second_per_grid_ts` [V]. Items whose media
        were seen have `image_features` and `video_features` [tokens, D] instead of pixels.
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
        for kind, name, each in zip(("image", "video"), names, ("images", "videos"), strict=True):
            media = [medium for item in items for medium in getattr(item, each)]
            if media:
                batch[name] = torch.cat([values for values, _ in media])
                batch[f"{kind}_grid_thw"] = torch.tensor([grid for _, grid in media])
        if "video_grid_thw" in batch and self.video_time == "positions":
            steps = [step for item in items for step in item.video_step]
            batch["second_per_grid_ts"] = torch.tensor(steps)
        return batch

    def visual_tokens(self, grid: Grid) -> int:
        """How many tokens a medium of so many patches takes."""
        t, h, w = grid
        return t * h * w // self.layout.merge**2

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        options = {"add_special_tokens": False, "return_attention_mask": False}
        return self.tokenizer(texts, **options).input_ids

    def _fitting_ids(self, outline: ItemPlan, grids, times, where: str) -> list[int]:
        """Token ids, the text shortened until they fit."""
        limit, item = self.config.max_length, outline.item
        ids = self._token_ids(outline, grids, times)
        if len(ids) > limit and not self._said_shortened:
            self._said_shortened = True
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
            ids = self._token_ids(self.outline(item, where), grids, times)
        return ids

    def _token_ids(self, outline: ItemPlan, grids, times) -> list[int]:
        """The prompt's tokens with as many pads as its media have visual tokens."""
        images, videos = grids
        prompt: Sequence[int] = outline.prompt
        if self.video_time == "text" and videos:
            text = build_prompt(outline.item, self.config.prompt)
            (prompt,) = self._tokenize([_stamp_videos(text, times, self.layout.temporal)])
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
        """The text without its last `excess` tokens, placeholders kept; None when none is left."""
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
def naming(where: str) -> Iterator[None]:
    """Put `where` in front of what is wrong with an item or a medium."""
    try:
        yield
    except (ItemError, MediaError) as error:
        raise type(error)(f"{where}: {error}") from error
    except ValueError as error:
        raise ItemError(f"{where}: {error}") from error


def _token_id(tokenizer, token: str) -> int:
    index = tokenizer.convert_tokens_to_ids(token)
    if index is None or tokenizer.convert_ids_to_tokens(index) != token:
        raise ValueError(f"the tokenizer has no {token}: use the one of a Qwen2-VL checkpoint")
    return index


def _stamp_videos(prompt: str, times: Sequence[Sequence[float]], temporal: int) -> str:
    """Each video block becomes one block per temporal patch, behind its mean time in seconds."""
    head, *tails = prompt.split(VIDEO_BLOCK)
    for seconds, tail in zip(times, tails, strict=True):
        starts = range(0, len(seconds), temporal)
        means = [(seconds[i] + seconds[min(i + temporal, len(seconds)) - 1]) / 2 for i in starts]
        head += "".join(f"<{mean:.1f} seconds>{VIDEO_BLOCK}" for mean in means) + tail
    return head


def _step(seconds: Sequence[float], temporal: int) -> float:
    if len(seconds) < 2:
        return float(temporal)
    return temporal * (seconds[-1] - seconds[0]) / (len(seconds) - 1)
