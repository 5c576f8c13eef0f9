"""The prompt of an item: UNITE's chat template with its summary line and vision blocks.

    <system turn> <user turn: {text} newline Summary above {modalities} in one word:>
    <assistant header> <|endoftext|>

The last token is pooled. `{modalities}` follows the order of the item's keys, as in the released
code: {"text", "image"} is "sentence and image", {"image", "text"} is "image and sentence".
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from ..data.items import (
    IMAGE_PLACEHOLDER,
    PLACEHOLDERS,
    VIDEO_PLACEHOLDER,
    ItemError,
    as_item,
    images_of,
    media_first,
    videos_of,
)

__all__ = ["VIDEO_BLOCK", "build_prompt"]


VIDEO_BLOCK = "<|vision_start|><|video_pad|><|vision_end|>"
_BLOCKS = {"image": VIDEO_BLOCK.replace("video", "image"), "video": VIDEO_BLOCK}
_WORDS = {"text": "sentence", "image": "image", "video": "video"}
_TURN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
)


def build_prompt(item: Mapping, template: str = "unite") -> str:
    """Write the prompt of an item, with one pad token per image or video.

    Args
        item      text, image, video; the text may hold <|IMAGE|> and <|VIDEO|> placeholders
        template  "unite" with the summary line, "raw" without it
    Media come before a text without placeholders, with a warning: the released code drops them
    silently. A wrong number of placeholders is an ItemError.

    >>> print(build_prompt({"text": "a cat"}))
    <|im_start|>system
    You are a helpful assistant.<|im_end|>
    <|im_start|>user
    a cat
    Summary above sentence in one word:<|im_end|>
    <|im_start|>assistant
    <|endoftext|>
    """
    item = as_item(item)
    counts = {"image": len(images_of(item)), "video": len(videos_of(item))}
    text = _place_media(item, counts).strip()
    if template == "unite":
        text += f"\nSummary above {' and '.join(_WORDS[key] for key in item)} in one word:"
    elif template != "raw":
        raise ValueError(f"template must be one of unite, raw; not {template!r}")
    return _TURN.format(text)


def _place_media(item: Mapping, counts: Mapping[str, int]) -> str:
    text = item.get("text", "")
    found = {key: text.count(mark) for key, mark in PLACEHOLDERS.items()}
    if not any(found.values()) and any(counts.values()):
        if text:
            warnings.warn(
                "a text without <|IMAGE|> or <|VIDEO|> came with media: the media are put before "
                "it. Write the placeholders where the media belong to choose their place.",
                stacklevel=3,
            )
        text = media_first(item)
    elif found != dict(counts):
        raise ItemError(
            f"the text has {found['image']} {IMAGE_PLACEHOLDER} and {found['video']} "
            f"{VIDEO_PLACEHOLDER}, the item {counts['image']} image and {counts['video']} video: "
            "write one placeholder for each, or none"
        )
    for key, mark in PLACEHOLDERS.items():
        text = text.replace(mark, _BLOCKS[key])
    return text
