"""unite-tiny: a real Qwen2-VL of about 7 million parameters with its own small tokenizer.

The architecture is transformers' Qwen2-VL, narrower and with fewer layers, with UNITE's sequential
positions, so that stage 1 and stage 2 run on it exactly as on Qwen2-VL-2B.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from ..model.config import EmbedConfig

__all__ = ["EMBED_CONFIG", "SPECIAL_TOKENS", "TINY", "new_model", "train_tokenizer"]


TINY = Path(str(resources.files(__package__).joinpath("weights")))
"""Folder of the shipped checkpoint."""

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

EMBED_CONFIG = EmbedConfig(
    positions="sequential",
    image_min_pixels=56 * 56,
    image_max_pixels=112 * 112,  # 16 visual tokens
    video_min_pixels=56 * 56,
    video_max_pixels=112 * 112,
    fps=2.0,
    min_frames=4,
    max_frames=4,  # two temporal patches: 32 visual tokens
    max_length=512,
)


def train_tokenizer(texts: Iterable[str], folder: str | Path, vocab_size: int = 4096):
    """Train a byte-level BPE with Qwen2's splitting rules on `texts` and save it to `folder`.

    `vocab_size` includes the 256 bytes and the 14 special tokens of Qwen2-VL.
    """
    from transformers import Qwen2Tokenizer

    empty = Qwen2Tokenizer(vocab={"<|endoftext|>": 0}, merges=[])
    tokenizer = empty.train_new_from_iterator(
        texts, vocab_size, new_special_tokens=list(SPECIAL_TOKENS)
    )
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    return tokenizer


def new_model(tokenizer, seed: int = 0):
    """A randomly initialised Qwen2VLForConditionalGeneration for `tokenizer`."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    special = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 256,
            "intermediate_size": 704,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6],
            },
            "bos_token_id": special["<|endoftext|>"],
            "eos_token_id": special["<|im_end|>"],
            "pad_token_id": special["<|endoftext|>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 4, "embed_dim": 192, "hidden_size": 256, "num_heads": 4, "mlp_ratio": 4,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(seed)
    return Qwen2VLForConditionalGeneration(config)
