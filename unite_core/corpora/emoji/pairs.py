"""Training records of the emoji corpus: retrieval pairs (stage 1) and instructions (stage 2).

Stage 1 has the paper's three pair types, text-text, image-text and video-text, in coarse (label)
and fine (label, kind, tags) granularity; stage 2 has instructions of all the paper's types
(docs/method.md#data). The sentences are our templates. Only training renderings are used.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator

from ..concepts import Concept
from .catalogue import TONE_NAMES, Emoji, split_of
from .corpus import Corpus

__all__ = [
    "SENTENCES", "STYLE_NAMES", "WEIGHTS", "captioned", "coarse", "concepts", "edit_text", "fine",
    "gender_variants", "question_and_answers", "stage1_records", "stage2_records", "tagged",
    "tone_variants",
]  # fmt: skip


TAGS = 6  # at most; some lists, in alphabetical order, are very long
STYLE_NAMES = {
    "fluent": "glossy 3-D", "noto": "soft shaded", "openmoji": "black outlined",
    "fluent-flat": "plain flat", "noto-v1": "early soft", "emojione": "bright flat",
}  # fmt: skip
WEIGHTS = {"stage1": {"video-text": 3.0}, "stage2": {"I+T-V": 2.0, "T-V": 2.0}}
"""How often records of a task come up in an epoch: clips are few here, but 39 % and 16 % of the
paper's data."""
SENTENCES = {
    "tone": "<|{medium}|>\nthe same with {tone} skin tone",
    "gender": "<|{medium}|>\nthe same as a {gender}",
    "style": "<|IMAGE|>\nthe same drawn in the {style} style",
    "move": "<|IMAGE|>\nthe same, moving",
    "same": "<|IMAGE|>\nanother drawing of the same",
    "describe": "<|IMAGE|>\nDescribe this picture.",
    "picture": "Find a picture of: {text}",
    "clip": "Find a moving clip of: {text}",
    "about": "Which captioned picture is about {text}?",
    "captioned": "<|IMAGE|>\n{text}",
}


def coarse(emoji: Emoji) -> str:
    """`"waving hand: dark skin tone"`."""
    return emoji.label


def fine(emoji: Emoji) -> str:
    """Label, kind and tags: `"waving hand: dark skin tone. A kind of hands: bye, hello, wave."`"""
    tags = f": {', '.join(emoji.tags[:TAGS])}" if emoji.tags else ""
    return f"{emoji.label}. A kind of {emoji.subgroup}{tags}."


def tagged(emoji: Emoji) -> str:
    """Tags, tone and gender, without the label."""
    parts = [*emoji.tags[:TAGS], *(f"{TONE_NAMES[tone]} skin tone" for tone in emoji.tones)]
    return ", ".join(parts + ([emoji.gender] if emoji.gender else []))


def stage1_records(corpus: Corpus, seed: int) -> Iterator[dict]:
    """Text-text, image-text and video-text pairs of the training split."""
    rng = random.Random(f"stage1 {seed}")
    for emoji in corpus.of("text", "train"):
        if emoji.tags:
            yield _pair("text-text", {"text": coarse(emoji)}, {"text": tagged(emoji)})
        yield _pair("text-text", {"text": emoji.label_de}, {"text": coarse(emoji)})
        for style in corpus.trained_styles(emoji):
            image = {"image": corpus.image(emoji.code, style)}
            yield _pair("image-text", {"text": coarse(emoji)}, image)
            text = fine(emoji) if rng.random() < 0.5 else coarse(emoji)
            yield _pair("image-text", image, {"text": text})
    for emoji in corpus.of("animated", "train"):
        video = {"video": corpus.clip(emoji.code)}
        for text in (coarse(emoji), fine(emoji), tagged(emoji)):
            yield _pair("video-text", {"text": text}, video)
            yield _pair("video-text", video, {"text": text})


def stage2_records(corpus: Corpus, seed: int) -> Iterator[dict]:
    """Instruction pairs of the training split."""
    rng = random.Random(f"stage2 {seed}")
    yield from _edits(corpus, rng)
    for emoji in corpus.of("text", "train"):
        styles = corpus.trained_styles(emoji)
        source, target = rng.sample(styles, 2)
        query, image = (corpus.image(emoji.code, style) for style in (source, target))
        drawn = SENTENCES["style"].format(style=STYLE_NAMES[target])
        yield _pair("I+T-I style", {"text": drawn, "image": query}, {"image": image})
        yield _pair("I-I", {"text": SENTENCES["same"], "image": query}, {"image": image})
        yield _pair("I-T", {"text": SENTENCES["describe"], "image": query}, {"text": coarse(emoji)})
        find = SENTENCES["picture"].format(text=coarse(emoji))
        yield _pair("T-I", {"text": find}, {"image": image})
        if emoji.tags:
            about = {"text": SENTENCES["about"].format(text=tagged(emoji))}
            yield _pair("T-I+T", about, captioned(corpus, emoji, rng.choice(styles)))
        question, answer = rng.choice(question_and_answers(emoji))
        asked = {"text": f"<|IMAGE|>\n{question}", "image": corpus.image(emoji.code, source)}
        yield _pair("I+T-T", asked, {"text": answer})
    for emoji in corpus.of("animated", "train"):
        clip = {"video": corpus.clip(emoji.code)}
        for style in corpus.trained_styles(emoji):
            still = {"text": SENTENCES["move"], "image": corpus.image(emoji.code, style)}
            yield _pair("I+T-V", still, clip)
        yield _pair("T-V", {"text": SENTENCES["clip"].format(text=coarse(emoji))}, clip)


def concepts(corpus: Corpus) -> Iterator[Concept]:
    """The emoji of the training split: label, fine caption, tags and German label."""
    for emoji in corpus.of("text", "train"):
        texts = [coarse(emoji), fine(emoji), *([tagged(emoji)] if emoji.tags else [])]
        images = [corpus.image(emoji.code, style) for style in corpus.trained_styles(emoji)]
        shown = emoji.code in corpus.moving and split_of(emoji.code, "animated") == "train"
        yield Concept(
            emoji.code, emoji.family, [*texts, emoji.label_de], images,
            corpus.clip(emoji.code) if shown else "",
        )  # fmt: skip


def captioned(corpus: Corpus, emoji: Emoji, style: str) -> dict:
    """A picture with its label as one fused item."""
    text = SENTENCES["captioned"].format(text=coarse(emoji))
    return {"text": text, "image": corpus.image(emoji.code, style)}


def question_and_answers(emoji: Emoji) -> list[tuple[str, str]]:
    """Questions about a picture of this emoji, with answers."""
    pairs = [
        ("What is this called?", emoji.label),
        ("What kind of thing is this?", emoji.subgroup),
    ]
    if len(emoji.tones) == 1:
        pairs.append(("What is the skin tone?", f"{TONE_NAMES[emoji.tones[0]]} skin tone"))
    return pairs


def tone_variants(emoji: list[Emoji]) -> dict[str, list[Emoji]]:
    """Variants that differ in one skin tone only, by code without the tone."""
    groups = defaultdict(list)
    for variant in emoji:
        if len(variant.tones) == 1:
            parts = (p for p in variant.code.split("-") if not p.startswith("1f3f"))
            groups["-".join(parts)].append(variant)
    return {key: group for key, group in groups.items() if len(group) > 1}


def gender_variants(emoji: list[Emoji]) -> dict[tuple, list[Emoji]]:
    """Variants that differ in gender only, by family and tones; ambiguous groups are skipped."""
    groups = defaultdict(list)
    for variant in emoji:
        groups[variant.family, variant.tones].append(variant)
    return {
        key: group
        for key, group in groups.items()
        if len(group) > 1 and len({variant.gender for variant in group}) == len(group)
    }


def _edits(corpus: Corpus, rng: random.Random) -> Iterator[dict]:
    """Changes of tone and gender, image to image and clip to clip."""
    for kind, groups in (("tone", tone_variants), ("gender", gender_variants)):
        for group in groups(corpus.of("text", "train")).values():
            for target in group:
                others = [variant for variant in group if variant is not target]
                for source in rng.sample(others, min(2, len(others))):
                    yield _image_edit(corpus, rng, kind, source, target)
        for group in groups(corpus.of("animated", "train")).values():
            for target in group:
                for source in group:
                    if source is not target:
                        query = {"text": edit_text(kind, "VIDEO", target)}
                        query["video"] = corpus.clip(source.code)
                        yield _pair(f"V+T-V {kind}", query, {"video": corpus.clip(target.code)})


def edit_text(kind: str, medium: str, target: Emoji) -> str:
    """The sentence that asks for the target's tone or gender."""
    tone = TONE_NAMES[target.tones[0]] if target.tones else ""
    gender = target.gender or "person"
    return SENTENCES[kind].format(medium=medium, tone=tone, gender=gender)


def _image_edit(corpus: Corpus, rng: random.Random, kind: str, source: Emoji, target: Emoji):
    style = rng.choice(corpus.trained_styles(target))
    other = rng.choice([s for s in corpus.trained_styles(source) if s != style])
    query = {"text": edit_text(kind, "IMAGE", target), "image": corpus.image(source.code, other)}
    return _pair(f"I+T-I {kind}", query, {"image": corpus.image(target.code, style)})


def _pair(task: str, query: dict, candidate: dict) -> dict:
    return {"query": query, "candidate": candidate, "task": task, "source": "emoji"}
