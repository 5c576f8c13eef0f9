"""Phase "look" of unite-tiny: contrastive training of its vision tower.

Qwen2-VL's tower was trained contrastively before it met the language model; so is this one. A batch
has B texts, two pictures of each (in two styles if possible), and a caption of each. Symmetric
InfoNCE aligns pictures and captions; captions go through a bag of tokens that is discarded, so
whatever is learned is in the tower.
"""

# Shapes: B texts in a batch, C channels of all frames, H x W pixels, D width of the tower's tokens.

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.media import load_image
from ..loss.contrastive import info_nce
from ..model.preprocessing import Layout, patchify
from ..model.vision import visual_tokens

__all__ = ["Concept", "ConceptCollator", "TowerContrast", "augment", "concepts_of", "seeded"]


TEMPERATURE = 0.07


@dataclass
class Concept:
    """A text, its pictures, and all other texts of these pictures."""

    pictures: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def concepts_of(records: Iterable[Mapping]) -> list[Concept]:
    """Group records of one text and one picture by the text that asks for the picture."""
    concepts, said = defaultdict(Concept), defaultdict(list)
    for record in records:
        query, candidate = record["query"], record["candidate"]
        if set(query) == {"text"} and set(candidate) == {"image"}:
            concept = concepts[query["text"]]
            concept.pictures.append(candidate["image"])
            concept.texts = concept.texts or [query["text"]]
        elif set(query) == {"image"} and set(candidate) == {"text"}:
            said[query["image"]].append(candidate["text"])
    for concept in concepts.values():
        more = [text for picture in concept.pictures for text in said[picture]]
        concept.texts = list(dict.fromkeys(concept.texts + more))
        concept.pictures = list(dict.fromkeys(concept.pictures))
    return list(concepts.values())


def seeded(*parts) -> torch.Generator:
    """A generator seeded by these numbers and strings alone."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def augment(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate, scale, shift and recolour each picture or clip, and blur some.

    frames [B, C, H, W] in [0, 1], one per row, the RGB frames of a clip stacked in C so that they
    change together. Pixels from outside are white. Returns the same shape.
    """
    low = torch.tensor([-0.2, 0.8, -0.1, -0.1])
    high = torch.tensor([0.2, 1.25, 0.1, 0.1])
    draws = low + (high - low) * torch.rand(len(frames), 4, generator=generator)
    angle, scale, right, down = draws.T
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cos, -sin, right, sin, cos, down], 1).reshape(-1, 2, 3)
    grid = F.affine_grid(rows, list(frames.shape), align_corners=False)
    moved = 1 - F.grid_sample(1 - frames, grid, align_corners=False)  # outside: 1 - 0 = white
    return _blurred(_coloured(moved, generator), generator)


def _coloured(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and saturation, and mix the channels a little."""
    count = len(frames)
    draws = torch.rand(count, 3, generator=generator)
    gain, contrast, saturation = (0.8 + 0.35 * draws[:, 0], 0.7 + 0.5 * draws[:, 1],
                                  0.4 + 1.1 * draws[:, 2])  # fmt: skip
    grey = torch.full((3, 3), 1 / 3)
    mix = torch.eye(3) * saturation[:, None, None] + grey * (1 - saturation)[:, None, None]
    mix = mix + 0.04 * torch.randn(count, 3, 3, generator=generator)
    mix = mix * (gain * contrast)[:, None, None]
    offset = 1 - mix.sum(2)  # white stays white, so that the background tells nothing
    channels = frames.unflatten(1, (-1, 3)).flatten(3)  # [B, frames, 3, H W]
    mixed = mix[:, None] @ channels + offset[:, None, :, None]
    return mixed.reshape(frames.shape).clamp(0, 1)


def _blurred(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Blur a third of the rows."""
    chosen = torch.rand(len(frames), generator=generator) < 1 / 3
    if chosen.any():
        small = F.avg_pool2d(frames[chosen], 2)
        frames[chosen] = F.interpolate(small, frames.shape[-2:], mode="bilinear")
    return frames


class ConceptCollator:
    """Collate concept numbers into two augmented pictures and one text of each.

    Draws depend on the seed and the batch's concepts alone, so a resumed run sees the same.
    """

    def __init__(self, concepts: Sequence[Concept], root: str | Path, tokenizer, seed: int):
        self.concepts, self.root, self.tokenizer, self.seed = concepts, root, tokenizer, seed
        self.layout = Layout()
        self.decoded: dict[str, np.ndarray] = {}  # cache; the pictures are small

    def __call__(self, samples: Sequence[int]) -> dict[str, Tensor]:
        generator = seeded(self.seed, *samples)
        chosen = [self.concepts[sample] for sample in samples]
        pairs = [self._two(concept.pictures, generator) for concept in chosen]
        pictures = [pair[side] for side in (0, 1) for pair in pairs]
        texts = [c.texts[int(torch.randint(len(c.texts), (), generator=generator))] for c in chosen]
        tokens = self.tokenizer(texts)["input_ids"]
        lengths = torch.tensor([len(ids) for ids in tokens])
        return {
            "pixels": self._patches(pictures, generator),
            "tokens": torch.tensor([token for ids in tokens for token in ids]),
            "offsets": lengths.cumsum(0) - lengths,
        }

    @staticmethod
    def _two(pictures: Sequence[str], generator: torch.Generator) -> tuple[str, str]:
        order = torch.randperm(len(pictures), generator=generator).tolist()
        return pictures[order[0]], pictures[order[-1]]

    def _patches(self, pictures: Sequence[str], generator: torch.Generator) -> Tensor:
        """Patches [pictures, patches, values] of paths; all pictures have the same size."""
        for path in pictures:
            if path not in self.decoded:
                pixels = np.asarray(load_image(path, self.root))
                self.decoded[path] = pixels.transpose(2, 0, 1)
        media = torch.from_numpy(np.stack([self.decoded[path] for path in pictures]))
        moved = augment(media.float() / 255, generator)
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.layout.mean, self.layout.std))
        return torch.stack(
            [patchify(picture[None], self.layout)[0] for picture in (moved - mean) / std]
        )


class TowerContrast(torch.nn.Module):
    """The tower and what contrastive training adds: a bag of tokens for texts, a projection."""

    def __init__(self, visual: torch.nn.Module, vocabulary: int, width: int = 256):
        super().__init__()
        self.visual = visual
        self.words = torch.nn.EmbeddingBag(vocabulary, width, mode="mean")
        torch.nn.init.normal_(self.words.weight, std=0.02)  # the default, 1, is too large
        self.projection = torch.nn.Linear(visual.config.hidden_size, width)

    def forward(self, pixels: Tensor, tokens: Tensor, offsets: Tensor) -> dict[str, Tensor]:
        """The loss of a batch: both pictures with the text, and with each other."""
        count, patches, _ = pixels.shape
        side = round(patches**0.5)
        grids = torch.tensor([[1, side, side]] * count)
        states = visual_tokens(self.visual, pixels.flatten(0, 1), grids)  # [2 B tokens, D]
        states = self.projection(states.unflatten(0, (count, -1)).mean(1))
        first, second = F.normalize(states, dim=1).chunk(2)
        words = F.normalize(self.words(tokens, offsets), dim=1)
        pairs = ((words, first), (words, second), (first, second))
        losses = [info_nce(a, b, TEMPERATURE, symmetric=True) for a, b in pairs]
        return {"loss": torch.stack(losses).mean()}
