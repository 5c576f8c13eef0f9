"""Qwen2-VL, and UNITE, GME, VLM2Vec-V2 and LamRA, which were trained on it."""

from __future__ import annotations

from ..family import Backbone, Recipe, Template

__all__ = ["GME", "LAMRA", "QWEN2_VL", "RAW", "UNITE", "VLM2VEC"]


_TURN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
)
RAW = Template(_TURN + "<|endoftext|>", stripped=True)
UNITE = Recipe(
    name="unite",
    title="UNITE",
    template=Template(
        _TURN + "<|endoftext|>",
        summary="\nSummary above {modalities} in one word:",
        stripped=True,
    ),
    known_as=r"unite[-_](base|instruct).*|unite_?qwen.*",
    config={"positions": "sequential", "video_pixels": "released"},
    source="friedrichor/UNITE, unite/dataset/ret_dataset.py and unite/model/modeling_unite.py, "
    "da30e44",
)
GME = Recipe(
    name="gme",
    title="GME",
    template=Template(
        "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n"
        "<|im_start|>assistant\n<|endoftext|>",
        instruction="You are a helpful assistant.",
        media=("image", "video"),
        gap="",
    ),
    known_as=r"gme[-_]?qwen2[-_]?vl.*",
    config={
        "positions": "sequential",
        "image_min_pixels": 256 * 28 * 28,
        "image_max_pixels": 1280 * 28 * 28,
        "max_length": 1800,
    },
    source="Alibaba-NLP/gme-Qwen2-VL-2B-Instruct, gme_inference.py; the same file in "
    "TIGER-AI-Lab/VLM2Vec, src/model/baseline_backbone/gme/gme_inference.py, 6e1e1d4",
)
# The prompts have no <|vision_start|>, by which transformers found media for M-RoPE at the time:
# it found none, so that the positions were sequential.
VLM2VEC = Recipe(
    name="vlm2vec-v2",
    title="VLM2Vec-V2",
    template=Template(
        "{content}",
        instruction={
            "image": "Represent the given image.",
            "video": "Represent the given video.",
            "text+image": "Represent the given image with the following question:",
        },
        joint=" ",
        media=("image", "video"),
        gap=" ",
        image="<|image_pad|>",
        video="<|video_pad|>",
    ),
    known_as=r"vlm2vec[-_]v2.*",
    config={
        "positions": "sequential",
        "image_pixels": "once",
        "image_min_pixels": 4 * 28 * 28,
        "image_max_pixels": 1280 * 28 * 28,
        "video_min_pixels": 4 * 28 * 28,
        "video_max_pixels": 1280 * 28 * 28,
        "max_frames": 8,
    },
    source="TIGER-AI-Lab/VLM2Vec, src/model/processor.py, src/arguments.py, "
    "src/model/vlm_backbone/qwen2_vl and experiments/examples/qwen2vl/demo_v2_image.py, 6e1e1d4",
)
# The state before <emb>, which the released code appends, is that of the last token here.
LAMRA = Recipe(
    name="lamra",
    title="LamRA-Ret",
    template=Template(
        _TURN,
        joint=" ",
        summary="\nSummarize above {modalities} in one word: ",
        media=("image", "video"),
        gap="",
    ),
    known_as=r"lamra[-_]ret.*",
    config={
        "positions": "sequential",
        "image_pixels": "once",
        "image_min_pixels": 4 * 28 * 28,
        "image_max_pixels": 300 * 28 * 28,
    },
    source="Code-kunkun/LamRA, dataset/datasets_mbeir.py, collators/qwen2_vision_process.py and "
    "models/qwen2_vl.py, 7286399",
)
QWEN2_VL = Backbone(
    "Qwen2VLConfig",
    "Qwen2VLModel",
    cached_vision=True,
    pooled_decoder=("Qwen2VLTextModel", "Qwen2VLDecoderLayer"),
    packed_decoder=True,
    plain_tower=("Qwen2VisionTransformerPretrainedModel", "Qwen2VLVisionBlock"),
    plain_text=True,
    known_as=r"qwen2-vl-\d+b(-instruct)?",
    recipes=(UNITE, GME, VLM2VEC, LAMRA),
)
