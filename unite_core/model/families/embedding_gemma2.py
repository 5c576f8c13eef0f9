"""EmbeddingGemma 2: an encoder, whose vector is the mean over all tokens.

Its files hold an audio tower too, which is not loaded: there is no audio here.
"""

# Shapes: F frames of one size, P = h w patches of a frame, S side of a patch, D width.

from __future__ import annotations

from ..family import Backbone, Recipe, Template

__all__ = ["EMBEDDING_GEMMA2", "EMBEDDING_GEMMA2_RECIPE"]


_TOKEN = 48 * 48  # pixels: 3 x 3 patches of 16 x 16
EMBEDDING_GEMMA2_RECIPE = Recipe(
    name="embedding-gemma-2",
    title="EmbeddingGemma 2",
    template=Template(
        "{instruction}{content}",
        joint=" ",
        by_keys=True,
        gap="",
        image="<|image><|image|><image|>",
        video="<|image><|video|><image|>",
        special_tokens=True,
        reserved=(
            "<|image>",
            "<|image|>",
            "<image|>",
            "<|video|>",
            "<|audio>",
            "<|audio|>",
            "<audio|>",
        ),
    ),
    known_as=r"embedding[-_]?gemma[-_]?2.*",
    config={
        "positions": "sequential",
        "image_pixels": "largest",
        "image_min_pixels": 1,
        "image_max_pixels": 280 * _TOKEN,
        "video_pixels": "largest",
        "video_min_pixels": 1,
        "video_max_pixels": 140 * _TOKEN,
        "min_frames": 1,
        "max_frames": 32,
        "max_length": 8192,
    },
    source="huggingface/transformers, docs/source/en/model_doc/embedding_gemma2.md, 560c4ac, "
    "models/embedding_gemma2 of 5.23.0 and the chat template in "
    "tests/models/embedding_gemma2/test_processing_embedding_gemma2.py",
)


def _encode_frames(model, patches, positions):
    """Visual tokens [F, P / 9, D] of patches [F, P, 3 S S] at positions [P, 2], row and column."""
    import torch

    colours_last = patches.unflatten(-1, (3, -1)).transpose(-1, -2).flatten(-2)
    places = positions.flip(-1).expand(len(patches), -1, -1)  # column and row
    return torch.stack(model.get_image_features(colours_last, places).pooler_output)


EMBEDDING_GEMMA2 = Backbone(
    "EmbeddingGemma2Config",
    "EmbeddingGemma2Model",
    tokens=("<pad>", "<|image|>", "<|video|>"),
    pooling="mean",
    width="embedding_dim",
    axes=1,
    video_time="frames",
    merge="pooling_kernel_size",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    vision=r"(vision_tower|embed_vision)\.",
    projector=r"embed_vision\.",
    encode_frames=_encode_frames,
    cached_vision=True,
    # no other fast path: no token is last, and most layers attend inside a window
    unused_weights=r"(audio_tower|embed_audio)\..*",
    left_out=("audio_config",),
    fixed={"positions": "sequential", "parity": "corrected"},
    float16=False,
    known_as=r"embedding[-_]?gemma[-_]?2",
    recipes=(EMBEDDING_GEMMA2_RECIPE,),
)
