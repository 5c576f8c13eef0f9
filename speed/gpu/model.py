"""A random Qwen2-VL at real sizes, and the texts, pictures and clips that the parts feed it."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode import SIZES, WORDS, make_corpus, picture, write_clip

from unite_core.model.config import EmbedConfig
from unite_core.model.cost import config_2b
from unite_core.model.embedder import UniteEmbedder
from unite_core.model.loading import LoadConfig
from unite_core.model.packing import choose_attention
from unite_core.model.preprocessing import Layout
from unite_core.model.processor import Processor
from unite_core.tiny.model import TINY

from .part import Setup

__all__ = ["corpus", "model_config", "random_embedder", "text", "write_records_of"]


FRAMES = 12
TINY_LIMITS = EmbedConfig(
    image_min_pixels=28 * 28 * 4, image_max_pixels=28 * 28 * 12, video_min_pixels=28 * 28 * 4,
    video_max_pixels=28 * 28 * 6,
)  # fmt: skip


def model_config(setup: Setup, tokenizer, layers: int | None = None):
    """Qwen2-VL-2B's configuration with the tokenizer's special tokens; `layers`: only so many."""
    config = config_2b()
    for kind in ("image", "video"):
        token = tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>")
        setattr(config, f"{kind}_token_id", token)
    for name in ("vision_start", "vision_end"):
        setattr(config, f"{name}_token_id", tokenizer.convert_tokens_to_ids(f"<|{name}|>"))
    if setup.tiny:
        config.text_config.update({
            "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 4096,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3],
            },
        })  # fmt: skip
        config.vision_config.update(
            {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2}
        )
    if layers:
        config.text_config.update(
            {"num_hidden_layers": layers, "layer_types": ["full_attention"] * layers}
        )
        config.vision_config.depth = layers
    if setup.tiny:
        config.text_config.layer_types = ["full_attention"] * config.text_config.num_hidden_layers
    return config


def random_embedder(setup: Setup, layers: int | None = None) -> UniteEmbedder:
    """An embedder with random weights, made on the device; the tokenizer is unite-tiny's."""
    from transformers import AutoTokenizer, Qwen2VLModel

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    torch.manual_seed(0)
    with torch.device(setup.device):
        backbone = Qwen2VLModel._from_config(
            model_config(setup, tokenizer, layers), dtype=setup.dtype
        )
    spread_out(backbone)
    choose_attention(backbone, LoadConfig(), torch.device(setup.device), setup.dtype)
    config = TINY_LIMITS if setup.tiny else EmbedConfig()
    processor = Processor(tokenizer, replace(config, max_frames=FRAMES), Layout())
    return UniteEmbedder(backbone, processor).eval()


@torch.no_grad()
def spread_out(backbone) -> None:
    """Scale weights so that different items get different vectors, as a trained model gives.

    With transformers' own start the last token, equal in all prompts, would decide nearly all.
    """
    for name, weight in backbone.named_parameters():
        if name.endswith("embed_tokens.weight"):
            weight.normal_(std=0.1)
        elif weight.ndim > 1:
            gain = 2.0 if "language_model" in name and ("q_proj" in name or "k_proj" in name) else 1
            weight.normal_(std=gain / weight[0].numel() ** 0.5)


def text(rng, low: int = 3, high: int = 80) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(low, high)))


def clip(folder: Path, name: str, rng) -> Any:
    """A clip of 12 frames: a video file where it can be decoded, else a list of picture files."""
    if importlib.util.find_spec("av") is not None:
        path = folder / f"{name}.mp4"
        write_clip(path, rng, 24 * FRAMES)  # 24 s, of which 12 frames are taken
        return str(path)
    wide = picture(rng, 180, 240 + 2 * FRAMES)
    paths = [folder / f"{name}-{n}.jpg" for n in range(FRAMES)]
    for n, path in enumerate(paths):
        wide.crop((2 * n, 0, 2 * n + 240, 180)).save(path)
    return [str(path) for path in paths]


def corpus(folder: Path, texts: int, images: int, clips: int) -> list[dict]:
    """A mixed corpus of files with absolute paths, in a random but fixed order."""
    rng = np.random.default_rng(1)
    items = make_corpus(folder, texts, images, 0)
    items += [{"video": clip(folder, f"clip-{n}", rng)} for n in range(clips)]
    return [items[n] for n in rng.permutation(len(items))]


def write_records_of(folder: Path, stage: str, count: int) -> Path:
    """Pairs of every kind as the stages train them, and their media, below a folder.

    Stage 1: text to text, image and clip. Stage 2: also image with an instruction to text or image.
    """
    rng = np.random.default_rng(2)
    records = []
    for n in range(count):
        name, kind = f"{stage}-{n}", n % 8
        side = rng.choice(SIZES, 2)
        picture(rng, *side).save(folder / f"{name}.jpg")
        image = {"image": f"{name}.jpg"}
        if kind < 3:
            pair = {"text": text(rng)}, {"text": text(rng)}
        elif kind < 6:
            pair = {"text": text(rng)}, image
        elif kind == 6:
            found = clip(folder, name, rng)
            below = [Path(f).name for f in found] if isinstance(found, list) else Path(found).name
            pair = {"text": text(rng)}, {"video": below}
        else:
            pair = image, {"text": text(rng)}
        if stage == "stage2" and kind in (4, 7):
            pair = {"text": f"<|IMAGE|>\n{text(rng)}", **image}, pair[1]
        records.append({"query": pair[0], "candidate": pair[1]})
    path = folder / f"{stage}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
