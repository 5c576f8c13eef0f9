"""Padded decoder tokens per real token of every training recipe, on a simulated mix of lengths.

    python speed/padding.py [--steps 200]

Records are drawn in the shares that the paper gives for its two stages; lengths of texts, sizes of
pictures and lengths of clips are assumed (the tables below), tokens follow from them by the
recipe's own limits, groups are those of `PairCollator`. No media file and no model is needed. On a
GPU in bfloat16 items are packed (`unite_core.model.packing`) and nothing is padded; the table is
about all other devices and attentions, and about what a group holds.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
from _report import RESULTS, table, write_section

from unite_core.model.config import EmbedConfig
from unite_core.model.preprocessing import Layout, frame_sizes, grid_of, image_sizes
from unite_core.settings import read_config
from unite_core.train.collator import group_sizes
from unite_core.train.config import TrainConfig

PROMPT = 28  # tokens around the content
# Tokens of a text: median, and sigma of its logarithm.
TEXTS = {"question": (14, 0.5), "passage": (110, 0.6), "caption": (16, 0.5), "long": (130, 0.5)}
SIDES = (240, 1280)  # pixels of a picture's sides, uniform in the logarithm
FRAMES = ((320, 240), (640, 360), (1280, 720))  # sizes of clips, width and height
SECONDS = (3, 30)  # of a clip, uniform in the logarithm; one frame a second is taken
# Thousands of records of each kind: query and candidate.
STAGES = {
    "stage1": [
        (1380, ["question"], ["passage"]), (2500, ["caption"], ["image"]),
        (2000, ["caption"], ["video"]), (500, ["long"], ["video"]),
    ],
    "stage2": [
        (16, ["image"], ["image"]), (323, ["question"], ["image"]), (350, ["image"], ["caption"]),
        (17, ["question"], ["image", "long"]), (187, ["image", "question"], ["caption"]),
        (175, ["image", "question"], ["image"]), (200, ["video", "question"], ["video"]),
    ],
}  # fmt: skip


def tokens_of(parts: list[str], rng, config: EmbedConfig, layout: Layout) -> int:
    """Tokens of one item, at most the limit."""
    total = PROMPT
    for part in parts:
        if part in TEXTS:
            median, sigma = TEXTS[part]
            total += round(median * np.exp(sigma * rng.standard_normal()))
            continue
        frames = 1
        if part == "image":
            height, width = np.exp(rng.uniform(*np.log(SIDES), 2)).astype(int)
            size = image_sizes(int(height), int(width), config, layout)[-1]
        else:
            seconds = np.exp(rng.uniform(*np.log(SECONDS)))
            frames = int(np.clip(round(seconds * config.fps / 2) * 2, 4, config.max_frames))
            width, height = FRAMES[rng.integers(len(FRAMES))]
            size = frame_sizes(height, width, config, layout, True)[-1]
        total += int(np.prod(grid_of(frames, size, layout))) // layout.merge**2
    return min(total, config.max_length)


def batch(stage: str, pairs: int, rng, config: EmbedConfig, layout: Layout) -> list[int]:
    """Lengths of the items of one process's batch, ascending."""
    kinds = STAGES[stage]
    counts = np.array([count for count, *_ in kinds], dtype=float)
    drawn = rng.choice(len(kinds), pairs, p=counts / counts.sum())
    return sorted(tokens_of(side, rng, config, layout) for n in drawn for side in kinds[n][1:])


def padding(batches: list[list[int]], items: int, tokens: int | None) -> tuple[float, float, int]:
    """Padded tokens per real one, groups per batch, and the most tokens of a group."""
    cells = real = groups = most = 0
    for lengths in batches:
        start = 0
        for size in group_sizes(lengths, items, tokens):
            part = lengths[start : start + size]
            cells, groups, start = cells + size * part[-1], groups + 1, start + size
            most = max(most, size * part[-1])
        real += sum(lengths)
    return cells / real, groups / len(batches), most


def recipes() -> dict[str, TrainConfig]:
    folder = Path(str(resources.files("unite_core.train") / "recipes"))
    files = [*sorted(folder.glob("multi*.json")), *sorted((folder / "launch").glob("*.json"))]
    return {file.stem: read_config(TrainConfig, file) for file in files}


def measure(config: TrainConfig, steps: int) -> tuple:
    """A recipe's padding as it is, and in groups of 32 items."""
    rng, embed = np.random.default_rng(0), replace(EmbedConfig(), **config.embed)
    batches = [batch(config.stage.name, config.stage.batch_size, rng, embed, Layout())
               for _ in range(steps)]  # fmt: skip
    now = padding(batches, config.forward_items, config.forward_tokens)
    return (*now, padding(batches, 32, None)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = []
    for name, config in recipes().items():
        ratio, groups, most, before = measure(config, options.steps)
        rows.append([name, str(config.stage.batch_size), str(config.forward_tokens),
                     f"{ratio:.3f}", f"{groups:.1f}", str(most), f"{before:.2f}"])  # fmt: skip
    head = ["recipe", "pairs per GPU", "`forward_tokens`", "padded per real token", "groups",
            "most tokens of a group", "in groups of 32 items"]  # fmt: skip
    text = f"""## Padding of the recipes (`speed/padding.py`)

Simulated: {options.steps} batches of one process each, kinds of records in the paper's shares,
lengths of texts, pictures and clips assumed (`speed/padding.py`). Padded decoder tokens per real
one without packing; packed, as on a GPU in bfloat16, it is 1.

{table(head, rows)}"""
    write_section("padding", text, options.output)
    print(text)


if __name__ == "__main__":
    main()
