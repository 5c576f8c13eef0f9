"""Each known embedder gives the vectors of its own recipe, written out here in transformers' calls.

The checkpoints are random and narrow, with the heads, rotary sections, patches, configuration
fields and weight names of the released ones.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.nn.functional import normalize
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
    smart_resize,
)

from tests.model.training import check_training
from unite_core import UniteEmbedder

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
RNG = np.random.default_rng(1)
FIND = "Find what matches"
IDS = {
    "image_token_id": 429, "video_token_id": 430,
    "vision_start_token_id": 426, "vision_end_token_id": 427,
}  # fmt: skip
TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 448, "rms_norm_eps": 1e-6,
    "bos_token_id": 418, "eos_token_id": 417,
}  # fmt: skip
QWEN3_ROPE = {
    "rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20],
    "mrope_interleaved": True,
}  # fmt: skip
CONFIGS = {
    # Qwen2-VL's files are of before transformers 4.52: no text_config
    "qwen2_vl": TEXT | IDS | {
        "architectures": ["Qwen2VLForConditionalGeneration"], "num_attention_heads": 1,
        "max_window_layers": 28, "sliding_window": 32768, "use_sliding_window": False,
        "rope_theta": 1e6, "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        "tie_word_embeddings": True,
        "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2,
                          "in_chans": 3, "mlp_ratio": 4, "spatial_patch_size": 14},
    },
    "qwen2_5_vl": TEXT | IDS | {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "num_attention_heads": 1,
        "use_sliding_window": False, "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        "vision_config": {"depth": 2, "hidden_size": 32, "out_hidden_size": 64, "num_heads": 2,
                          "intermediate_size": 48, "fullatt_block_indexes": [1],
                          "window_size": 112, "tokens_per_second": 2},
    },
    "qwen3_vl": IDS | {
        "architectures": ["Qwen3VLForConditionalGeneration"], "tie_word_embeddings": True,
        "text_config": TEXT | {"head_dim": 128, "rope_scaling": QWEN3_ROPE, "rope_theta": 5e6},
        "vision_config": {"depth": 3, "hidden_size": 32, "out_hidden_size": 64, "num_heads": 2,
                          "intermediate_size": 48, "deepstack_visual_indexes": [0, 1],
                          "num_position_embeddings": 2304},
    },
}  # fmt: skip
CONFIGS["qwen3_5"] = IDS | {
    "architectures": ["Qwen3_5ForConditionalGeneration"], "tie_word_embeddings": True,
    "text_config": TEXT | {
        "head_dim": 256, "num_hidden_layers": 4, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "mrope_interleaved": True,
                            "mrope_section": [11, 11, 10], "partial_rotary_factor": 0.25},
    },
    "vision_config": {"depth": 2, "hidden_size": 32, "out_hidden_size": 64, "num_heads": 2,
                      "intermediate_size": 48, "num_position_embeddings": 2304},
}  # fmt: skip
CLASSES = {
    "qwen2_vl": transformers.Qwen2VLForConditionalGeneration,
    "qwen2_5_vl": transformers.Qwen2_5_VLForConditionalGeneration,
    "qwen3_vl": transformers.Qwen3VLForConditionalGeneration,
    "qwen3_5": transformers.Qwen3_5ForConditionalGeneration,
}
SYSTEM = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
HELPFUL = "You are a helpful assistant."
BLOCKS = {"image": "<|vision_start|><|image_pad|><|vision_end|>",
          "video": "<|vision_start|><|video_pad|><|vision_end|>"}  # fmt: skip


def gme(images, videos, text, instruction):
    media = BLOCKS["image"] * images + BLOCKS["video"] * videos
    return SYSTEM.format(instruction or HELPFUL, media + text) + "<|endoftext|>"


def qwen3(images, videos, text, instruction):
    media = BLOCKS["video"] * videos + BLOCKS["image"] * images
    return SYSTEM.format(f"{instruction}." if instruction else "Represent the user's input.",
                         media + text)  # fmt: skip


def vlm2vec(images, videos, text, instruction):
    kind = "image" if images else "video"
    default = f"Represent the given {kind}." if images + videos else ""
    if images and text:
        default = "Represent the given image with the following question:"
    if images and videos or (videos and text):
        default = ""
    marks = ["<|image_pad|>"] * images + ["<|video_pad|>"] * videos
    words = [part for part in (instruction or default, text) if part]
    return " ".join([*marks, *words]) + ("" if words else " ")


def lamra(images, videos, text, instruction):
    media = BLOCKS["image"] * images + BLOCKS["video"] * videos
    words = " ".join(part for part in (instruction, text) if part)
    named = ["image"] * bool(images) + ["video"] * bool(videos) + ["sentence"] * bool(words)
    asked = f"\nSummarize above {' and '.join(named)} in one word: "
    return SYSTEM.format(HELPFUL, media + words + asked)


def unite(images, videos, text, instruction):
    marks = [f"{BLOCKS['image']}\n"] * images + [f"{BLOCKS['video']}\n"] * videos
    words = "\n".join(part for part in (instruction, text) if part)
    named = ["sentence"] * bool(words) + ["image"] * bool(images) + ["video"] * bool(videos)
    asked = f"\nSummary above {' and '.join(named)} in one word:"
    content = ("".join(marks) + words).strip() + asked
    return SYSTEM.format(HELPFUL, content) + "<|endoftext|>"


# recipe: family, hub id, prompt, has M-RoPE, limits of an image, resized twice, of a frame
KNOWN = {
    "unite": ("qwen2_vl", "friedrichor/Unite-Base-Qwen2-VL-2B", unite, False,
              (200704, 1003520), True, None),
    "gme": ("qwen2_vl", "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", gme, False,
            (200704, 1003520), True, (100352, 76800)),
    "vlm2vec-v2": ("qwen2_vl", "VLM2Vec/VLM2Vec-V2.0", vlm2vec, False,
                   (3136, 1003520), False, (3136, 1003520)),
    "lamra": ("qwen2_vl", "code-kunkun/LamRA-Ret", lamra, False,
              (3136, 235200), False, (100352, 76800)),
    "gve": ("qwen2_5_vl", "Alibaba-NLP/GVE-3B", gme, True, (200704, 1003520), True,
            (100352, 156800)),
    "qwen3-vl-embedding": ("qwen3_vl", "Qwen/Qwen3-VL-Embedding-2B", qwen3, True,
                           (4096, 1843200), False, (131072, 786432)),
    "plain qwen3.5": ("qwen3_5", "Qwen/Qwen3.5-2B", unite, True, (200704, 1003520), True,
                      (100352, 76800)),
}  # fmt: skip
SMALL = Image.fromarray(RNG.integers(0, 255, (70, 110, 3), np.uint8))
OTHER = Image.fromarray(RNG.integers(0, 255, (90, 60, 3), np.uint8))
CLIP = RNG.integers(0, 255, (5, 64, 96, 3), np.uint8)
ITEMS = {  # images, videos, text
    "text": ((), (), "a red circle left of a blue square"),
    "image": ((SMALL,), (), ""),
    "images": ((SMALL, OTHER), (), ""),
    "video": ((), (CLIP,), ""),
    "fused": ((SMALL,), (), "what is this?"),
    "everything": ((OTHER,), (CLIP,), "what moves?"),
}


def checkpoint(family: str, folder: Path):
    """Write a random model under the released names of its weights; returns transformers' model."""
    torch.manual_seed(0)
    raw = CONFIGS[family] | {"model_type": family, "torch_dtype": "bfloat16"}
    folder.mkdir(parents=True)
    if family == "qwen3_5":
        transformers.Qwen2TokenizerFast.from_pretrained(FOLDER).save_pretrained(folder)
    else:
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json"):
            shutil.copy(FOLDER / name, folder)
    described = json.loads(json.dumps(raw))
    vision = described["vision_config"]
    for old, new in (("in_chans", "in_channels"), ("spatial_patch_size", "patch_size")):
        if old in vision:
            vision[new] = vision.pop(old)
    model = CLASSES[family](CLASSES[family].config_class.from_dict(described)).float().eval()
    with torch.no_grad():  # large enough to make positions matter
        for name, weight in model.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                weight.mul_(8)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder, max_shard_size="200KB")
    (folder / "config.json").write_text(json.dumps(raw))
    size = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "merge_size": 2}
    if family.startswith("qwen3"):
        size = {"size": {"longest_edge": 16777216, "shortest_edge": 65536}, "patch_size": 16,
                "merge_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(size))
    return model


def frame_size(height, width, factor, low, high):
    """One resize within the limits; the upper one holds where both cannot."""
    size = smart_resize(height, width, factor, min(low, high), high)
    return smart_resize(*size, factor, 1, high)


def video_patches(frames, size, patch, mean, std):
    frames = [Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC)
              for frame in frames]  # fmt: skip
    frames += [frames[-1]] * (len(frames) % 2)
    pixels = (np.stack([np.asarray(f, np.float32) for f in frames]) / 255 - mean) / std
    t, h, w = len(frames) // 2, size[0] // patch, size[1] // patch
    cut = pixels.transpose(0, 3, 1, 2).reshape(t, 2, 3, h // 2, 2, patch, w // 2, 2, patch)
    cut = cut.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, -1)
    return torch.tensor(cut, dtype=torch.float32), (t, h, w)


class Chain:
    """The recipe of one embedder, without this package."""

    def __init__(self, recipe: str, folder: Path, model):
        self.family, _, self.prompt, self.mrope, limits, twice, self.frame = KNOWN[recipe]
        self.tokenizer, self.model = AutoTokenizer.from_pretrained(folder), model
        self.patch = 16 if self.family.startswith("qwen3") else 14
        colours = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if self.patch == 16 else {}
        processor = Qwen2VLImageProcessorPil(
            patch_size=self.patch, size={"shortest_edge": limits[0], "longest_edge": limits[1]},
            **colours,
        )  # fmt: skip
        self.images, self.twice = processor, twice

    def __call__(self, images, videos, text, instruction=None) -> np.ndarray:
        factor = 2 * self.patch
        inputs, pads = {}, {"image": [], "video": []}
        if images:
            if self.twice:
                images = [
                    image.resize(smart_resize(image.height, image.width, factor, 4 * factor**2,
                                              16384 * factor**2)[::-1], Image.Resampling.BICUBIC)
                    for image in images
                ]  # fmt: skip
            found = self.images(list(images), return_tensors="pt")
            inputs |= {name: found[name] for name in ("pixel_values", "image_grid_thw")}
            pads["image"] = [int(grid.prod()) // 4 for grid in found["image_grid_thw"]]
        prompt = self.prompt(len(images), len(videos), text, instruction)
        if videos:
            size = frame_size(64, 96, factor, *self.frame)
            mean, std = np.float32(self.images.image_mean), np.float32(self.images.image_std)
            patches, grid = video_patches(list(videos[0]), size, self.patch, mean, std)
            inputs |= {"pixel_values_videos": patches, "video_grid_thw": torch.tensor([grid])}
            each = grid[1] * grid[2] // 4
            pads["video"] = [grid[0] * each]
            if self.patch == 16:  # a stamp before each pair of frames, at 1 per second
                block, pads["video"] = BLOCKS["video"], [each] * grid[0]
                stamps = "".join(f"<{t:.1f} seconds>{block}" for t in (0.5, 2.5, 4.0))
                prompt = prompt.replace(block, stamps)
            if self.family == "qwen2_5_vl":
                inputs["second_per_grid_ts"] = torch.tensor([2.0])
        for kind, counts in pads.items():
            head, *tails = prompt.split(f"<|{kind}_pad|>")
            prompt = head + "".join(
                f"<|{kind}_pad|>" * n + tail for n, tail in zip(counts, tails, strict=True)
            )
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            states = self._mrope(ids, inputs) if self.mrope else self._sequential(ids, inputs)
        return normalize(states[0, -1].float(), dim=0).numpy()

    def _mrope(self, ids, inputs):
        kinds = (ids == 429).int() + 2 * (ids == 430).int()
        mask = torch.ones_like(ids)
        found = self.model(input_ids=ids, attention_mask=mask, mm_token_type_ids=kinds,
                           output_hidden_states=True, **inputs)  # fmt: skip
        return found.hidden_states[-1]

    def _sequential(self, ids, inputs):
        embeddings = self.model.get_input_embeddings()(ids)
        for token, pixels, grid in ((429, "pixel_values", "image_grid_thw"),
                                    (430, "pixel_values_videos", "video_grid_thw")):  # fmt: skip
            if pixels in inputs:
                tokens = self.model.model.visual(inputs[pixels], grid_thw=inputs[grid])
                embeddings[ids == token] = tokens.pooler_output
        return self.model.model.language_model(inputs_embeds=embeddings).last_hidden_state


def item_of(images, videos, text, instruction=None) -> dict:
    item = {"text": text or None, "image": list(images) or None, "video": list(videos) or None}
    return item | {"instruction": instruction}


@pytest.mark.parametrize("recipe", KNOWN)
def test_vectors_are_those_of_the_recipe(recipe, tmp_path):
    family, hub_id, prompt, *_, frame = KNOWN[recipe]
    folder = tmp_path / f"models--{hub_id.replace('/', '--')}" / "snapshots" / "0123abcd"
    chain = Chain(recipe, folder, checkpoint(family, folder))
    embedder = UniteEmbedder.load(folder)
    plain = recipe.startswith("plain")
    assert embedder.config.prompt == ("unite" if plain else recipe)
    assert (embedder.describe()["source"] == "") == plain
    names = [name for name, (_, videos, _) in ITEMS.items() if frame or not videos]
    given = [(name, None) for name in names] + [(name, FIND) for name in names]
    items = [item_of(*ITEMS[name], instruction) for name, instruction in given]
    if prompt is unite:  # else a warning says that media without placeholders go first
        for item in items:
            if item["text"] and item["image"]:
                marks = "<|IMAGE|>\n" + "<|VIDEO|>\n" * (item["video"] is not None)
                item["text"] = marks + item["text"]
    expected = np.stack([chain(*ITEMS[name], instruction) for name, instruction in given])
    alone = embedder.embed(items, batch_size=1, progress=False)
    together = embedder.embed(items, batch_size=len(items), progress=False)
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    np.testing.assert_allclose(together, expected, atol=1e-5)
    assert np.abs(expected[: len(names)] - expected[len(names) :]).max(1).min() > 1e-4

    embedder.save(tmp_path / "saved")
    again = UniteEmbedder.load(tmp_path / "saved")
    assert again.config == embedder.config
    np.testing.assert_allclose(again.embed(items, batch_size=1, progress=False), alone, atol=1e-6)


@pytest.mark.parametrize("recipe", KNOWN)
def test_each_trains_merges_and_saves(recipe, tmp_path):
    family, hub_id, *_ = KNOWN[recipe]
    folder = tmp_path / hub_id
    checkpoint(family, folder)
    embedder = UniteEmbedder.load(folder)
    items = [item_of(*ITEMS[name]) for name in ("text", "image")]
    before = embedder.embed(items, progress=False)
    embedder.attach_lora(rank=4, alpha=8, dropout=0.0)
    check_training(embedder, items, before, tmp_path / "merged")
