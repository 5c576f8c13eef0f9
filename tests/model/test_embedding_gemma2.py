"""EmbeddingGemma 2 gives the vectors of its documentation, written out here in transformers' calls.

The checkpoint is random and narrow, with the configuration fields, file set, weight names, patches,
windows and audio tower of the released one.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers.processors import TemplateProcessing
from torch.nn.functional import normalize
from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model, GemmaTokenizer
from transformers.models.gemma4.image_processing_pil_gemma4 import (
    Gemma4ImageProcessorPil,
    get_aspect_ratio_preserving_size,
)
from transformers.utils import logging

from tests.model.training import check_training
from unite_core import UniteEmbedder
from unite_core.data.records import write_records
from unite_core.export.sentence_transformers import export_model
from unite_core.files import read_json
from unite_core.model.backbones import BACKBONES
from unite_core.model.config import EmbedConfig
from unite_core.model.preprocessing import Layout, image_sizes
from unite_core.train.config import TrainConfig
from unite_core.train.run import train

RNG = np.random.default_rng(2)
MARKS = ["<|image>", "<|image|>", "<image|>", "<|video|>", "<|audio>", "<|audio|>", "<audio|>"]
WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *MARKS,
         *(f"<0x{byte:02X}>" for byte in range(256))]  # fmt: skip
IDS = {word: number for number, word in enumerate(WORDS)}
CONFIG = {
    "architectures": ["EmbeddingGemma2Model"], "model_type": "embedding_gemma2",
    "dtype": "bfloat16", "image_token_id": IDS["<|image|>"], "video_token_id": IDS["<|video|>"],
    "audio_token_id": IDS["<|audio|>"], "boi_token_id": IDS["<|image>"],
    "eoi_token_id": IDS["<image|>"], "boa_token_id": IDS["<|audio>"],
    "eoa_token_index": IDS["<audio|>"],
    "text_config": {
        "model_type": "embedding_gemma2_text", "vocab_size": len(WORDS), "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "hidden_size_per_layer_input": 16,
        "embedding_dim": 48, "sliding_window": 20,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        "per_layer_config": {"05": {"head_dim": 32, "num_key_value_heads": 1}},
    },
    "vision_config": {
        "model_type": "gemma4_vision", "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "head_dim": 16, "position_embedding_size": 256,
    },
    "audio_config": {
        "model_type": "gemma4_audio", "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "output_proj_dims": 16, "use_clipped_linears": True,
        "subsampling_conv_channels": [128, 1],
    },
}  # fmt: skip
PROCESSOR = {
    "processor_class": "EmbeddingGemma2Processor",
    "image_processor": {"do_normalize": False, "image_mean": [0.0] * 3, "image_std": [1.0] * 3,
                        "max_soft_tokens": 280, "patch_size": 16, "pooling_kernel_size": 3},
    "video_processor": {"add_timestamps": False, "fps": 1, "max_frames": 32,
                        "max_soft_tokens": 140},
}  # fmt: skip
# of transformers' tests/models/embedding_gemma2, which have that of the checkpoint
CHAT = (
    "{%- for m in messages if m.role == 'system' -%}{{ m.content }}{%- endfor -%}"
    "{%- for m in messages if m.role != 'system' -%}"
    "{%- set text = m.content | selectattr('type', 'equalto', 'text') | map(attribute='text')"
    " | join -%}{%- set placed = '<|image|>' in text or '<|video|>' in text -%}"
    "{%- for part in m.content -%}{%- if part.type == 'text' -%}{{ part.text }}"
    "{%- elif not placed -%}{{ '<|' + part.type + '|>' }}{%- endif -%}{%- endfor -%}"
    "{%- endfor -%}"
)
QUERY = "task: search result | query: "
SMALL = Image.fromarray(RNG.integers(0, 255, (70, 110, 3), np.uint8))
OTHER = Image.fromarray(RNG.integers(0, 255, (400, 90, 3), np.uint8))
CLIP = RNG.integers(0, 255, (5, 64, 96, 3), np.uint8)
ITEMS = {
    "text": {"text": "a red circle left of a blue square, twice as large as all the others"},
    "image": {"image": SMALL},
    "images": {"image": [SMALL, OTHER]},
    "video": {"video": CLIP},
    "image, text": {"image": SMALL, "text": "what is this?"},
    "text, image": {"text": "what is this?", "image": SMALL},
    "everything": {"video": CLIP, "text": "what moves?", "image": [OTHER, SMALL]},
    "placed": {"text": "like <|IMAGE|> but as in <|VIDEO|>", "image": SMALL, "video": CLIP},
}


def checkpoint(folder: Path) -> EmbeddingGemma2Model:
    """Write a random model as it is released; returns transformers' model, its audio tower too."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    tokenizer = GemmaTokenizer(
        vocab=IDS, merges=[], extra_special_tokens=MARKS, padding_side="right", chat_template=CHAT
    )
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    tokenizer.save_pretrained(folder)
    model = EmbeddingGemma2Model(EmbeddingGemma2Config.from_dict(dict(CONFIG))).float().eval()
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if weight.ndim > 1 and not name.startswith("audio"):
                weight.copy_(torch.randn_like(weight) * 0.2)
            elif "norm" in name or name.endswith("layer_scalar"):
                weight.copy_(1 + 0.3 * torch.randn_like(weight))
            elif not weight.isfinite().all():  # bounds of clipped layers
                weight.copy_(weight.sign() * 20)
    logging.disable_progress_bar()
    model.save_pretrained(folder, max_shard_size="200KB")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "processor_config.json").write_text(json.dumps(PROCESSOR))
    return model


class Chain:
    """The documented calls, with transformers' Pillow image processor for pictures and frames."""

    def __init__(self, folder: Path, model: EmbeddingGemma2Model):
        self.tokenizer, self.model = GemmaTokenizer.from_pretrained(folder), model

    def __call__(self, item: dict, instruction: str | None = None) -> np.ndarray:
        parts, inputs, counts = [], {}, {"image": [], "video": []}
        for key, value in item.items():
            if key == "text":
                words = value.replace("<|IMAGE|>", "<|image|>").replace("<|VIDEO|>", "<|video|>")
                parts.append({"type": "text", "text": words})
            elif key == "image":
                images = value if isinstance(value, list) else [value]
                found = Gemma4ImageProcessorPil()(images, return_tensors="pt")
                inputs |= {name: found[name] for name in ("pixel_values", "image_position_ids")}
                counts["image"] = [[int(n)] for n in found["num_soft_tokens_per_image"]]
                parts += [{"type": "image"}] * len(images)
            else:
                found = Gemma4ImageProcessorPil(max_soft_tokens=140)(
                    list(value), return_tensors="pt"
                )
                inputs |= {
                    "pixel_values_videos": found["pixel_values"],
                    "video_position_ids": found["image_position_ids"],
                    "num_frames_per_video": torch.tensor([len(value)]),
                }
                counts["video"] = [[int(n) for n in found["num_soft_tokens_per_image"]]]
                parts.append({"type": "video"})
        told = [{"role": "system", "content": instruction}] if instruction else []
        messages = [*told, {"role": "user", "content": parts}]
        prompt = self.tokenizer.apply_chat_template(messages, tokenize=False)
        for kind, media in counts.items():
            head, *tails = prompt.split(f"<|{kind}|>")
            blocks = (
                "".join(f"<|image>{f'<|{kind}|>' * n}<image|>" for n in each) for each in media
            )
            prompt = head + "".join(b + tail for b, tail in zip(blocks, tails, strict=True))
        ids = self.tokenizer(prompt, return_tensors="pt")
        assert (ids.input_ids[0, 0], ids.input_ids[0, -1]) == (2, 1)  # <bos> ... <eos>
        with torch.no_grad():
            states = self.model(**ids, **inputs).last_hidden_state
        return normalize(states.mean(1), dim=-1)[0].numpy()


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "models--google--embeddinggemma-2" / "snapshots" / "0"
    return folder, Chain(folder, checkpoint(folder))


def test_vectors_are_those_of_the_documentation(released, tmp_path):
    folder, chain = released
    embedder = UniteEmbedder.load(folder)
    described = embedder.describe()
    assert described["embedder"] == "EmbeddingGemma 2"
    assert described["vector"] == "48 dimensions, the mean of all tokens"
    assert described["template"].startswith("{instruction} <|image><|image|><image|>")
    given = [(name, None) for name in ITEMS] + [(name, QUERY) for name in ITEMS]
    items = [ITEMS[name] | ({"instruction": told} if told else {}) for name, told in given]
    expected = np.stack([chain(ITEMS[name], told) for name, told in given])
    alone = embedder.embed(items, batch_size=1, progress=False)
    together = embedder.embed(items, batch_size=len(items), progress=False)
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    np.testing.assert_allclose(together, expected, atol=1e-5)
    cosines = expected @ expected.T - np.eye(len(expected))
    assert cosines.max() < 1 - 1e-5  # each of them says something of its own

    embedder.save(tmp_path / "saved")
    again = UniteEmbedder.load(tmp_path / "saved")
    assert again.config == embedder.config
    np.testing.assert_allclose(again.embed(items, batch_size=1, progress=False), alone, atol=1e-6)
    store = embedder.encode_vision([embedder.processor.encode(item) for item in items])
    kept = embedder(**embedder.processor.collate(store))
    np.testing.assert_allclose(kept.detach().numpy(), expected, atol=1e-5)


def test_it_trains_merges_saves_and_exports(released, tmp_path):
    folder, _ = released
    embedder = UniteEmbedder.load(folder)
    items = [ITEMS["text"], ITEMS["image"]]
    before = embedder.embed(items, progress=False)
    embedder.attach_lora(rank=4, alpha=8, dropout=0.0)
    adapted = {name.split(".lora_")[0].split(".")[-1]
               for name, weight in embedder.named_parameters() if weight.requires_grad}  # fmt: skip
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    embedder.checkpoint_activations()
    embedder.train()
    check_training(embedder, items, before, tmp_path / "merged")
    found = export_model(tmp_path / "merged", tmp_path / "exported", items=ITEMS)
    assert len(found) == len(ITEMS)


def test_the_audio_tower_and_nothing_else_is_left_out_at_the_real_sizes():
    family = BACKBONES["embedding_gemma2"]
    config = EmbeddingGemma2Config(
        vision_config={"model_type": "gemma4_vision"}, audio_config={"model_type": "gemma4_audio"}
    )
    with torch.device("meta"):
        whole = EmbeddingGemma2Model(config).state_dict()
        for part in family.left_out:
            setattr(config, part, None)
        loaded = EmbeddingGemma2Model(config).state_dict()
    assert set(loaded) == {name for name in whole if not re.fullmatch(family.unused_weights, name)}
    assert {name for name in whole if "audio" in name} == set(whole) - set(loaded) != set()


@pytest.mark.parametrize("more", [{}, {"train_vision": "lora", "train_projector": True}])
def test_the_trainer_takes_it(released, tmp_path, more):
    pairs = []
    for colour in ("red", "green", "blue", "black"):
        Image.new("RGB", (60, 48), colour).save(tmp_path / f"{colour}.bmp")
        pairs.append({"query": {"text": colour}, "candidate": {"image": f"{colour}.bmp"}})
    write_records(tmp_path / "rows.jsonl", pairs)
    stage = {"name": "stage1", "batch_size": 4, "max_steps": 3, "learning_rate": 5e-3} | more
    model = train(
        TrainConfig(
            model=str(released[0]), data=str(tmp_path / "rows.jsonl"), media_root=str(tmp_path),
            output=str(tmp_path / "out"), stage=stage, cache_vision=not more, logging_steps=1,
            gradient_checkpointing=bool(more),
        )
    )  # fmt: skip
    losses = [row["loss"] for row in read_json(tmp_path / "out" / "history.json") if "loss" in row]
    assert losses[-1] < losses[0]
    trained, start = UniteEmbedder.load(model), UniteEmbedder.load(released[0])
    moved = {name for (name, new), old in zip(trained.base.state_dict().items(),
                                              start.base.state_dict().values(), strict=True)
             if not torch.equal(new, old)}  # fmt: skip
    parts = {name.split(".")[0] for name in moved}
    assert parts == {"language_model"} | ({"vision_tower", "embed_vision"} if more else set())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "mrope"}, "positions mrope is not known for EmbeddingGemma2Model"),
        ({"parity": "released"}, "parity released is not known for EmbeddingGemma2Model"),
        ({"prompt": "gme"}, "prompt gme has no <|image|>"),
        ({"dtype": "float16"}, "float16 does not hold EmbeddingGemma2Model's states"),
        ({"attention": "packed"}, "packed is not known for EmbeddingGemma2Model"),
    ],
)
def test_what_cannot_be_is_refused_by_name(released, changes, message):
    with pytest.raises(ValueError, match=message):
        UniteEmbedder.load(released[0], **changes)


def test_tokens_of_media_are_no_text(released):
    embedder = UniteEmbedder.load(released[0])
    with pytest.raises(ValueError, match=r"item 0: text contains the reserved token <\|audio\|>"):
        embedder.embed([{"text": "listen to <|audio|>"}], progress=False)
    with pytest.raises(ValueError, match="unknown modality audio"):
        embedder.embed([{"audio": "song.wav"}], progress=False)
    with pytest.raises(ValueError, match="prompt raw has no"):
        embedder.configured(prompt="raw")


def test_an_instruction_without_white_space_at_its_end_gets_some(released):
    embedder, told = UniteEmbedder.load(released[0]), "Find its picture."
    glued, apart = (
        embedder.embed([{"text": "a cat", "instruction": text}], progress=False)
        for text in (told, f"{told} ")
    )
    np.testing.assert_array_equal(glued, apart)


@pytest.mark.parametrize("size", [(48, 48), (1, 190), (3, 599), (700, 11), (333, 777), (5000, 40)])
@pytest.mark.parametrize("tokens", [70, 280])
def test_sizes_are_those_of_transformers(size, tokens):
    config = EmbedConfig(
        image_pixels="largest", image_min_pixels=1, image_max_pixels=tokens * 48 * 48
    )
    found = image_sizes(*size, config, Layout(patch=16, merge=3, temporal=1))
    assert found == (get_aspect_ratio_preserving_size(*size, 16, tokens * 9, 3),)
