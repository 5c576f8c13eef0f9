"""Held-out retrieval tasks of the emoji corpus: every pair type and instruction, by split.

A single target style (Noto; Twemoji in the style split) makes every answer unique. Pools hold the
split's items and those of training, so that a composed query cannot be answered by elimination; the
concept split's pools hold unseen families only.

Plain tasks, whose queries are bare, have a twin whose queries are in the words of stage 2. Concepts
are emoji codes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from .catalogue import HELD_OUT_STYLE, Emoji, split_of
from .corpus import Corpus
from .pairs import (
    SENTENCES,
    STYLE_NAMES,
    captioned,
    coarse,
    edit_text,
    gender_variants,
    question_and_answers,
    tagged,
    tone_variants,
)

__all__ = ["SPLITS", "TASKS_FORMAT", "retrieval_tasks"]


SPLITS = ("style", "composition", "concept")
TARGET_STYLE = "noto"
QUERIES = 300  # at most, per task
TASKS_FORMAT = 3
"""Raised when the tasks or concepts of a corpus change, so that those on disk are written anew."""

Match = tuple[dict, dict, Emoji]  # query item, positive item, target emoji
Pool = Iterable[tuple[dict, str]]  # candidate item and its concept, "" for none


def retrieval_tasks(corpus: Corpus, seed: int) -> list[dict]:
    """All tasks of all splits, as the JSON objects that `read_tasks` reads."""
    tasks = []
    for split in (*SPLITS, "development"):
        of_split = {}
        for kind, definitions in (("plain", _PLAIN), ("instructed", _INSTRUCTED)):
            for name, matches, pool in definitions:
                rng = random.Random(f"{name} {split} {seed}")
                task = _task(matches(corpus, split, rng), pool(corpus, split), rng)
                of_split[name] = {"name": name, "split": split, "kind": kind} | task
        tasks += of_split.values()
        tasks += [_as_trained(of_split[name], words) for name, words in _ASKED.items()]
    return tasks


def _text_to_image(corpus, split, rng) -> Iterable[Match]:
    for emoji in _asked(corpus, split):
        yield {"text": coarse(emoji)}, _picture(corpus, split, emoji), emoji


def _image_to_text(corpus, split, rng) -> Iterable[Match]:
    for emoji in _asked(corpus, split):
        yield _picture(corpus, split, emoji), {"text": coarse(emoji)}, emoji


def _text_to_video(corpus, split, rng) -> Iterable[Match]:
    for emoji in corpus.of("animated", split):
        yield {"text": coarse(emoji)}, _clip(corpus, emoji), emoji


def _video_to_text(corpus, split, rng) -> Iterable[Match]:
    for emoji in corpus.of("animated", split):
        yield _clip(corpus, emoji), {"text": coarse(emoji)}, emoji


def _image_to_image(corpus, split, rng) -> Iterable[Match]:
    for emoji in _asked(corpus, split):
        yield _query_picture(corpus, split, emoji), _target_picture(corpus, emoji), emoji


def _edited_image(variants: Callable, kind: str) -> Callable:
    def matches(corpus, split, rng) -> Iterable[Match]:
        asked = {emoji.code for emoji in _asked(corpus, split)}
        for group in variants(_siblings(corpus, split)).values():
            for target in (variant for variant in group if variant.code in asked):
                sources = _sources(group, target)
                if not sources:
                    continue
                source = rng.choice(sources)
                query = {"text": edit_text(kind, "IMAGE", target)}
                query |= _query_picture(corpus, split, source)
                yield query, _target_picture(corpus, target), target

    return matches


def _edited_video(corpus, split, rng) -> Iterable[Match]:
    asked = {emoji.code for emoji in corpus.of("animated", split)}
    shown = corpus.of("animated", *_with_siblings(split))
    for kind, variants in (("tone", tone_variants), ("gender", gender_variants)):
        for group in variants(shown).values():
            for target in (variant for variant in group if variant.code in asked):
                for source in _sources(group, target):
                    query = {"text": edit_text(kind, "VIDEO", target)}
                    yield query | _clip(corpus, source), _clip(corpus, target), target


def _restyled(corpus, split, rng) -> Iterable[Match]:
    text = SENTENCES["style"].format(style=STYLE_NAMES[TARGET_STYLE])
    for emoji in _asked(corpus, split):
        query = {"text": text} | _query_picture(corpus, split, emoji)
        yield query, _target_picture(corpus, emoji), emoji


def _set_moving(corpus, split, rng) -> Iterable[Match]:
    for emoji in corpus.of("animated", split):
        query = {"text": SENTENCES["move"]} | _query_picture(corpus, split, emoji)
        yield query, _clip(corpus, emoji), emoji


def _questions(corpus, split, rng) -> Iterable[Match]:
    for emoji in _asked(corpus, split):
        question, answer = rng.choice(question_and_answers(emoji))
        query = {"text": f"<|IMAGE|>\n{question}"} | _query_picture(corpus, split, emoji)
        yield query, {"text": answer}, emoji


def _captioned(corpus, split, rng) -> Iterable[Match]:
    for emoji in _asked(corpus, split):
        if emoji.tags:
            query = {"text": SENTENCES["about"].format(text=tagged(emoji))}
            yield query, captioned(corpus, emoji, _shown_style(split)), emoji


def _all_pictures(corpus, split) -> Pool:
    return ((_picture(corpus, split, emoji), emoji.code) for emoji in _siblings(corpus, split))


def _all_target_pictures(corpus, split) -> Pool:
    return ((_target_picture(corpus, emoji), emoji.code) for emoji in _siblings(corpus, split))


def _all_texts(corpus, split) -> Pool:
    return (({"text": coarse(emoji)}, emoji.code) for emoji in _siblings(corpus, split))


def _all_clips(corpus, split) -> Pool:
    shown = corpus.of("animated", *_with_siblings(split))
    return ((_clip(corpus, emoji), emoji.code) for emoji in shown)


def _all_clip_texts(corpus, split) -> Pool:
    shown = corpus.of("animated", *_with_siblings(split))
    return (({"text": coarse(emoji)}, emoji.code) for emoji in shown)


def _all_answers(corpus, split) -> Pool:
    for emoji in _siblings(corpus, split):
        for _, answer in question_and_answers(emoji):
            yield {"text": answer}, emoji.code if answer == emoji.label else ""


def _all_captioned(corpus, split) -> Pool:
    style = _shown_style(split)
    return ((captioned(corpus, emoji, style), emoji.code) for emoji in _siblings(corpus, split))


_PLAIN = (
    ("text → image", _text_to_image, _all_pictures),
    ("image → text", _image_to_text, _all_texts),
    ("text → video", _text_to_video, _all_clips),
    ("video → text", _video_to_text, _all_clip_texts),
    ("image → image", _image_to_image, _all_target_pictures),
)
_INSTRUCTED = (
    ("image + tone → image", _edited_image(tone_variants, "tone"), _all_target_pictures),
    ("image + gender → image", _edited_image(gender_variants, "gender"), _all_target_pictures),
    ("image + style → image", _restyled, _all_target_pictures),
    ("image + moving → video", _set_moving, _all_clips),
    ("video + change → video", _edited_video, _all_clips),
    ("image + question → text", _questions, _all_answers),
    ("text → image + text", _captioned, _all_captioned),
)
# sentence of stage 2 that asks what a plain task asks; there is none for video → text
_ASKED = {
    "text → image": "picture", "image → text": "describe", "text → video": "clip",
    "image → image": "same",
}  # fmt: skip


def _as_trained(task: dict, words: str) -> dict:
    """The task with its queries in the words of stage 2."""
    queries = [query | {"text": SENTENCES[words].format(**query)} for query in task["queries"]]
    return task | {"name": f"{task['name']}, asked", "kind": "asked", "queries": queries}


def _asked(corpus: Corpus, split: str) -> list[Emoji]:
    """Target emoji of a split."""
    return corpus.of(HELD_OUT_STYLE, "style") if split == "style" else corpus.of("text", split)


def _sources(group: list[Emoji], target: Emoji) -> list[Emoji]:
    """Variants that an edit may start from; unseen combinations are excluded."""
    return [v for v in group if v is not target and not _is_unseen_combination(v)]


def _is_unseen_combination(emoji: Emoji) -> bool:
    return split_of(emoji.code, "text") == "composition"


def _with_siblings(split: str) -> tuple[str, ...]:
    """Splits from which a split's pools are drawn."""
    alone = split in ("concept", "development")
    return (split,) if alone else ("train", "style", "composition")


def _siblings(corpus: Corpus, split: str) -> list[Emoji]:
    return corpus.of("text", *_with_siblings(split))


def _shown_style(split: str) -> str:
    """Style of a split's pictures."""
    return HELD_OUT_STYLE if split == "style" else TARGET_STYLE


def _picture(corpus: Corpus, split: str, emoji: Emoji) -> dict:
    return {"image": corpus.image(emoji.code, _shown_style(split))}


def _query_picture(corpus: Corpus, split: str, emoji: Emoji) -> dict:
    style = HELD_OUT_STYLE if split == "style" else "openmoji"
    return {"image": corpus.image(emoji.code, style)}


def _target_picture(corpus: Corpus, emoji: Emoji) -> dict:
    return {"image": corpus.image(emoji.code, TARGET_STYLE)}


def _clip(corpus: Corpus, emoji: Emoji) -> dict:
    return {"video": corpus.clip(emoji.code)}


def _task(matches: Iterable[Match], pool: Pool, rng: random.Random) -> dict:
    matches = list(matches)
    chosen = rng.sample(matches, min(QUERIES, len(matches)))
    candidates, concepts = {}, {}
    for item, concept in pool:
        candidates.setdefault(repr(item), item)
        concepts[repr(item)] = concepts.get(repr(item)) or concept
    index = {key: position for position, key in enumerate(candidates)}
    return {
        "queries": [query for query, _, _ in chosen],
        "candidates": list(candidates.values()),
        "positives": [[index[repr(item)]] for _, item, _ in chosen],
        "families": [target.family for _, _, target in chosen],
        "description": f"{len(matches)} queries exist, {len(chosen)} drawn",
        "query_concepts": [target.code for _, _, target in chosen],
        "candidate_concepts": list(concepts.values()),
    }
