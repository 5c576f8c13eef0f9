"""The prompt of an item: what its text, media and instruction become, by a family's template.

UNITE's, for an example:

    <system turn> <user turn: {text} newline Summary above {modalities} in one word:>
    <assistant header> <|endoftext|>

`{modalities}` follows the order of the item's keys, as in the released
code: {"text", "image"} is "sentence and image", {"image", "text"} is "image and sentence".
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Mapping

from ..data.items import (
    IMAGE_PLACEHOLDER,
    PLACEHOLDERS,
    VIDEO_PLACEHOLDER,
    ItemError,
    as_item,
    images_of,
    videos_of,
)
from ..data.modality import modality_of
from .backbones import TEMPLATES
from .family import Template

__all__ = ["build_prompt"]


_WORDS = {"text": "sentence", "image": "image", "video": "video"}
_LEADING = re.compile(rf"(?:\s*(?:{'|'.join(map(re.escape, PLACEHOLDERS.values()))}))*\s*")


def build_prompt(item: Mapping, template: str = "unite", images_first: bool = False) -> str:
    """Write the prompt of an item, with one pad token per image or video.

    Args
        item          text, image, video, instruction; the text may hold <|IMAGE|> and <|VIDEO|>
        template      name in `TEMPLATES`: "unite", "raw" without its summary line, "gme", ...
        images_first  images that have no place in the text precede videos, whatever the order of
                      the item's keys, as in UNITE's released code
    The instruction stands where the template has a place for it, else before the text. UNITE's
    template puts media before a text without placeholders with a warning: the released code drops
    them silently. A wrong number of placeholders is an ItemError.

    >>> print(build_prompt({"text": "a cat"}))
    <|im_start|>system
    You are a helpful assistant.<|im_end|>
    <|im_start|>user
    a cat
    Summary above sentence in one word:<|im_end|>
    <|im_start|>assistant
    <|endoftext|>
    """
    item, known = as_item(item), TEMPLATES[template]
    _check_reserved(item, known)
    order = known.media or (("image", "video") if images_first else tuple(item))
    if not known.by_keys:
        order = (*(key for key in order if key in PLACEHOLDERS), "text")
    instruction = _instruction(item, known)
    content = _placed(item, known, order)
    if "{instruction}" not in known.turn and instruction:
        content = _before_text(content, instruction, known)
        item = item if "text" in item else {"text": instruction} | item
    named = (*known.media, "text") if known.media else item
    words = [_WORDS[key] for key in named if key in item and key in _WORDS]
    for key, mark in PLACEHOLDERS.items():
        content = content.replace(mark, getattr(known, key))
    content = content.strip() if known.stripped else content
    content += known.summary.replace("{modalities}", " and ".join(words))
    head, tail = known.turn.split("{content}")
    if head.endswith("{instruction}") and instruction and not instruction[-1].isspace():
        instruction += known.joint
    return head.replace("{instruction}", instruction) + content + tail


def _instruction(item: Mapping, template: Template) -> str:
    given = item.get("instruction")
    if given is None:
        default = template.instruction
        return default if isinstance(default, str) else default.get(modality_of(item).label, "")
    if template.punctuated:
        given = given.strip()
        ends = unicodedata.category(given[-1]).startswith("P")
        return given if ends else f"{given}."
    return given


def _check_reserved(item: Mapping, template: Template) -> None:
    for part in ("text", "instruction"):
        found = [token for token in template.reserved if token in (item.get(part) or "")]
        if found:
            raise ItemError(
                f"{part} contains the reserved token {found[0]}; mark the place of media with "
                f"{IMAGE_PLACEHOLDER} or {VIDEO_PLACEHOLDER}"
            )


def _placed(item: Mapping, template: Template, order: tuple[str, ...]) -> str:
    """The text with a placeholder for each medium; where it has none, all in `order`."""
    counts = {"image": len(images_of(item)), "video": len(videos_of(item))}
    text = item.get("text", "")
    found = {key: text.count(mark) for key, mark in PLACEHOLDERS.items()}
    if not any(found.values()) and any(counts.values()):
        if text and not (template.media or template.by_keys):
            warnings.warn(
                "a text without <|IMAGE|> or <|VIDEO|> came with media: the media are put before "
                "it. Write the placeholders where the media belong to choose their place.",
                stacklevel=3,
            )
        marks = {key: (mark + template.gap) * counts[key] for key, mark in PLACEHOLDERS.items()}
        return "".join((marks | {"text": text}).get(key, "") for key in order)
    if found != counts:
        raise ItemError(
            f"the text has {found['image']} {IMAGE_PLACEHOLDER} and {found['video']} "
            f"{VIDEO_PLACEHOLDER}, the item {counts['image']} image and {counts['video']} video: "
            "write one placeholder for each, or none"
        )
    return text


def _before_text(content: str, instruction: str, template: Template) -> str:
    """Put an instruction after the media that lead the content, before its text."""
    start = _LEADING.match(content).end()
    media, text = content[:start], content[start:]
    if text and not instruction[-1].isspace():
        instruction += template.joint
    return media + instruction + text
