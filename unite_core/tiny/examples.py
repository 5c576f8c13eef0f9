"""Examples for the generative phases of pretraining: records read towards their text, in batches.

A record with a text-only side is an example: the other side is the user's turn, the text is the
assistant's answer. So what the backbone has seen is exactly a list of training records.
"""

# Shapes: B examples in a batch, T tokens or, of media, frames, H x W pixels.

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..data.items import images_of, videos_of
from ..data.media import load_image
from ..data.modality import Modality, modality_of
from ..data.videos import load_video
from ..model.preprocessing import Layout, patchify
from ..model.prompts import build_prompt
from .model import EMBED_CONFIG
from .pretrain_vision import augment, seeded

__all__ = [
    "IGNORED", "Example", "GenerativeCollator", "generative_examples", "summary_examples",
    "summary_mask",
]  # fmt: skip


IGNORED = -100  # label that transformers' losses skip


@dataclass(frozen=True)
class Example:
    """A user's turn and the assistant's answer."""

    item: dict
    answer: str


def generative_examples(records: Iterable[Mapping]) -> list[Example]:
    """Turn records into examples; of two texts, the query asks and the candidate answers.

    Records without a text-only side are skipped. Equal examples are kept once, in order.
    """
    examples = {}
    for record in records:
        query, candidate = record["query"], record["candidate"]
        if modality_of(candidate) == Modality.TEXT:
            example = Example(dict(query), candidate["text"])
        elif modality_of(query) == Modality.TEXT and modality_of(candidate) != Modality.TEXT:
            example = Example(dict(candidate), query["text"])
        else:
            continue
        examples[repr(example)] = example
    return list(examples.values())


def summary_examples(examples: Sequence[Example]) -> list[Example]:
    """Examples without questions, and every answer also as the text that it summarizes."""
    plain = [e for e in examples if Modality.TEXT not in modality_of(e.item) or len(e.item) == 1]
    answers = dict.fromkeys(e.answer for e in plain)
    return plain + [Example({"text": answer}, answer) for answer in answers]


class GenerativeCollator:
    """Collate example numbers into a padded batch with labels on the answers only.

    Augmentation depends on the seed and the batch's examples alone, so a resumed run sees the same
    pictures.
    """

    def __init__(self, examples: Sequence[Example], root: str | Path, tokenizer, seed: int,
                 phase: str = "describe"):  # fmt: skip
        self.examples, self.root, self.tokenizer, self.seed = examples, root, tokenizer, seed
        self.summarize = phase == "summarize"
        self.layout = Layout()
        self.decoded: dict[str, np.ndarray] = {}  # cache; the media are small

    def __call__(self, samples: Sequence[int]) -> dict[str, torch.Tensor]:
        generator = seeded(self.seed, *samples)
        examples = [self.examples[sample] for sample in samples]
        batch: dict[str, torch.Tensor] = {}
        counts: dict[int, int] = {}
        for kind, read in (("image", images_of), ("video", videos_of)):
            found = [(row, read(e.item)[0]) for row, e in enumerate(examples) if read(e.item)]
            if found:
                media = torch.from_numpy(np.stack([self._frames(kind, path) for _, path in found]))
                patches, grids = self._patches(media, generator)
                suffix = "" if kind == "image" else "_videos"
                batch |= {f"pixel_values{suffix}": patches, f"{kind}_grid_thw": grids}
                tokens = int(grids[0].prod()) // self.layout.merge**2
                counts |= {row: tokens for row, _ in found}
        return batch | self._text(examples, counts)

    def _frames(self, kind: str, source: str | list[str]) -> np.ndarray:
        """[T, 3, H, W] uint8."""
        c, key = EMBED_CONFIG, repr(source)
        if key not in self.decoded:
            frames = (
                [load_image(source, self.root)]
                if kind == "image"
                else load_video(source, self.root, c.fps, c.min_frames, c.max_frames)
            )
            pixels = np.stack([np.asarray(frame) for frame in frames])
            self.decoded[key] = pixels.transpose(0, 3, 1, 2)
        return self.decoded[key]

    def _patches(self, media: torch.Tensor, generator: torch.Generator):
        """Augmented patches of all media [B, T, 3, H, W] uint8, and their grids."""
        moved = augment(media.flatten(1, 2).float() / 255, generator).unflatten(1, (-1, 3))
        mean, std = (
            torch.tensor(values)[:, None, None] for values in (self.layout.mean, self.layout.std)
        )
        patched = [patchify(frames, self.layout) for frames in (moved - mean) / std]
        patches, grids = zip(*patched, strict=True)
        return torch.cat(patches), torch.tensor(grids)

    def _text(self, examples: Sequence[Example], counts: Mapping[int, int]):
        ids, labels, starts = [], [], []
        for row, example in enumerate(examples):
            prompt = build_prompt(example.item, "unite" if self.summarize else "raw")
            ending = "" if self.summarize else "<|endoftext|>"
            prompt = prompt.removesuffix(ending)
            for pad in ("<|image_pad|>", "<|video_pad|>"):
                prompt = prompt.replace(pad, pad * counts.get(row, 0))
            asked = self.tokenizer(prompt)["input_ids"]
            said = self.tokenizer(f"{example.answer}<|im_end|>\n{ending}")["input_ids"]
            ids.append(torch.tensor(asked + said))
            labels.append(torch.tensor([IGNORED] * len(asked) + said))
            starts.append(len(asked))
        pad = torch.nn.utils.rnn.pad_sequence
        input_ids = pad(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        positions = torch.arange(input_ids.shape[1])[None, None]  # sequential, as UNITE's
        batch = {
            "input_ids": input_ids,
            "labels": pad(labels, batch_first=True, padding_value=IGNORED),
            "position_ids": positions.expand(3, *input_ids.shape),
        }
        if self.summarize:
            batch["attention_mask"] = summary_mask(torch.tensor(starts), input_ids.shape[1])
        return batch


def summary_mask(starts: torch.Tensor, width: int) -> torch.Tensor:
    """Attention mask [B, 1, T, T] of booleans: causal, and answers do not see the item.

    `starts` [B] is where each answer begins; the token before it is the pooled one.
    """
    steps = torch.arange(width)
    causal = steps[:, None] >= steps
    starts = starts[:, None, None]
    hidden = (steps[:, None] >= starts) & (steps < starts - 1)  # [B, T, T]
    return (causal & ~hidden)[:, None]
