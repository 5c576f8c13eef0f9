"""Items one after the other give the vectors and gradients of items alone, and of transformers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from unite_core import UniteEmbedder
from unite_core.model.config import EmbedConfig
from unite_core.model.loading import LoadConfig
from unite_core.model.packing import attend, choose_attention, is_packed, pack
from unite_core.model.positions import token_positions
from unite_core.model.preprocessing import Layout
from unite_core.model.processor import Processor

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
PICTURES = [f"inputs/image{n}.png" for n in range(2)]
ITEMS = [
    {"text": "a cat"},
    {"text": "a longer sentence about a cat on a mat"},
    {"image": PICTURES[0]},
    {"image": PICTURES},
    {"video": ["inputs/video0_frame0.png", "inputs/video0_frame1.png"]},
    {"text": "<|IMAGE|> the same in red", "image": PICTURES[1]},
    {"text": "a cat"},
]
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 4096, "head_dim": 8,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
}  # fmt: skip
TOWERS = {
    "Qwen2_5_VL": {
        "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2,
        "out_hidden_size": 32, "window_size": 56, "fullatt_block_indexes": [1],
    },
    "Qwen3VL": {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2,
        "out_hidden_size": 32, "deepstack_visual_indexes": [0], "patch_size": 14,
        "num_position_embeddings": 64,
    },
}  # fmt: skip


def small(name: str) -> UniteEmbedder:
    """A random model of a family with the test tokenizer; not packed yet."""
    processor = UniteEmbedder.load(FOLDER).processor
    ids = {f"{kind}_token_id": getattr(processor, f"{kind}_id") for kind in ("image", "video")}
    vocabulary = max(4096, len(processor.tokenizer))
    config = getattr(transformers, f"{name}Config")(
        text_config=TEXT | {"vocab_size": vocabulary}, vision_config=TOWERS[name], **ids,
        vision_start_token_id=processor.tokenizer.convert_tokens_to_ids("<|vision_start|>"),
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(config)
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and "embed_tokens" not in name:
            torch.nn.init.normal_(weight, std=0.2)
    limits = EmbedConfig(positions="mrope", image_min_pixels=28 * 28 * 4, max_frames=4,
                         image_max_pixels=28 * 28 * 30)  # fmt: skip
    time = {"Qwen2_5_VL": "positions", "Qwen3VL": "text"}[name_of(model)]
    return UniteEmbedder(model, Processor(processor.tokenizer, limits, Layout(), time)).eval()


def name_of(model) -> str:
    return type(model).__name__.removesuffix("Model")


def tiny(attention=None) -> UniteEmbedder:
    embedder = UniteEmbedder.load(FOLDER, positions="mrope", attention=attention)
    embedder.attach_lora(rank=4, alpha=8, dropout=0.0, seed=1)
    torch.manual_seed(0)
    for name, weight in embedder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return embedder


def batch_of(embedder, items):
    return embedder.processor.collate([embedder.processor.encode(i, FOLDER) for i in items])


def packed(embedder) -> UniteEmbedder:
    how = LoadConfig(attention="packed")
    choose_attention(embedder.base, how, torch.device("cpu"), torch.float32)
    return embedder


@pytest.mark.parametrize("family", ["Qwen2_VL", "Qwen2_5_VL", "Qwen3VL"])
def test_packed_items_have_the_vectors_of_items_alone_and_padded(family):
    embedder = tiny() if family == "Qwen2_VL" else small(family)
    with torch.no_grad():
        padded = embedder(**batch_of(embedder, ITEMS))
        packed(embedder)
        assert is_packed(embedder.base.language_model)
        together = embedder(**batch_of(embedder, ITEMS))
        alone = torch.cat([embedder(**batch_of(embedder, [item])) for item in ITEMS])
    assert (together @ together.T - torch.eye(len(ITEMS))).abs()[:-1, :-1].max() < 0.9999
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, padded, atol=1e-5, rtol=0)
    torch.testing.assert_close(together[0], together[-1], atol=1e-6, rtol=0)


def test_packed_states_are_those_of_transformers_own_packing():
    """Four rows of positions and no mask: transformers makes a block-diagonal one of them."""
    plain, ours = tiny(), tiny("packed")
    batch = batch_of(plain, ITEMS)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    grids = {name: batch[name] for name in ("image_grid_thw", "video_grid_thw")}
    positions = token_positions(plain.base, "mrope", ids, mask, **grids)
    packing = pack(mask)
    rows = torch.cat([(mask.cumsum(1) - 1)[None], positions])
    pixels = {name: batch[name] for name in batch if name not in ("input_ids", "attention_mask")}
    with torch.no_grad():
        found = plain.base(input_ids=packing.take(ids), position_ids=packing.take(rows),
                           use_cache=False, **pixels).last_hidden_state  # fmt: skip
        wanted = torch.nn.functional.normalize(packing.last(found), dim=-1)
        torch.testing.assert_close(ours(**batch), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_padded_batch(checkpointing):
    gradients = []
    for attention in (None, "packed"):
        embedder = tiny(attention).train()
        if checkpointing:
            embedder.checkpoint_activations()
        vectors = embedder(**batch_of(embedder, ITEMS))
        (vectors * torch.arange(vectors.numel()).view_as(vectors).cos()).sum().backward()
        trained = [w for w in embedder.parameters() if w.requires_grad]
        gradients.append([w.grad for w in trained])
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.norm() > 0
        assert (ours - theirs).norm() < 1e-4 * theirs.norm()


def test_only_real_tokens_go_through_the_layers():
    embedder, rows = tiny("packed"), []
    batch = batch_of(embedder, ITEMS)
    layer = embedder.base.language_model.layers[0].mlp
    layer.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[:2].numel()))
    with torch.no_grad():
        embedder(**batch)
    assert rows == [int(batch["attention_mask"].sum())] != [batch["input_ids"].numel()]


def test_packing_takes_padding_on_either_side():
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]])
    packing = pack(mask)
    values = torch.arange(12).view(3, 4)
    assert packing.take(values).tolist() == [[1, 2, 3, 4, 5, 8, 9, 10, 11]]
    assert packing.take(values.expand(3, -1, -1)).shape == (3, 1, 9)
    assert packing.last(packing.take(values)[..., None].float())[:, 0].tolist() == [3, 5, 11]
    assert packing.starts.tolist() == [0, 3, 5, 9] and packing.lengths == [3, 2, 4]


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_the_plain_one_of_each_item(causal):
    lengths, heads = [3, 1, 4, 3], 4
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    query, key, value = (
        torch.randn(sum(lengths), count, 8, dtype=torch.float64) for count in (heads, 2, 2)
    )
    found = attend(query, key, value, starts, max(lengths), 0.3, causal)
    for start, length in zip(starts.tolist(), lengths, strict=False):
        part = slice(start, start + length)
        scores = torch.einsum("qhd,khd->hqk", query[part], key[part].repeat_interleave(2, 1)) * 0.3
        if causal:
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        wanted = torch.einsum(
            "hqk,khd->qhd", scores.softmax(-1), value[part].repeat_interleave(2, 1)
        )
        torch.testing.assert_close(found[part], wanted)


@pytest.mark.parametrize("family", list(TOWERS))
def test_windows_in_one_call_give_transformers_own_tokens(family, monkeypatch):
    visual = small(family).base.visual
    grids = torch.tensor([[1, 8, 6], [2, 4, 10], [1, 8, 6]])
    patches = torch.randn(int(grids.prod(1).sum()), 1176)
    calls, sdpa = [], torch.nn.functional.scaled_dot_product_attention

    def counted(*given, **named):
        calls.append(1)
        return sdpa(*given, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    with torch.no_grad():
        wanted = visual(patches, grid_thw=grids)
        before, calls[:] = len(calls), []
        embedder = small(family)
        embedder.base.visual.load_state_dict(visual.state_dict())
        packed(embedder)
        found = embedder.base.visual(patches, grid_thw=grids)
    torch.testing.assert_close(found.pooler_output, wanted.pooler_output, atol=1e-6, rtol=1e-5)
    assert len(calls) < before


def test_what_cannot_be_packed_is_said_and_a_cpu_packs_only_where_asked():
    assert not is_packed(UniteEmbedder.load(FOLDER).base.language_model)
    model = UniteEmbedder.load(FOLDER).base
    model.__class__ = type("Other", (type(model),), {})
    with pytest.raises(ValueError, match="packed is not known for Other"):
        choose_attention(model, LoadConfig(attention="packed"), torch.device("cpu"), torch.float32)
    how = replace(LoadConfig(), attention="eager")
    choose_attention(model, how, torch.device("cpu"), torch.float32)
    assert not is_packed(model.language_model)


def test_a_packed_model_is_saved_without_its_attention(tmp_path):
    embedder = UniteEmbedder.load(FOLDER, attention="packed")
    embedder.save(tmp_path)
    assert "varlen" not in (tmp_path / "config.json").read_text()
    again = UniteEmbedder.load(tmp_path)
    expected = embedder.embed(ITEMS, FOLDER, progress=False)
    np.testing.assert_allclose(again.embed(ITEMS, FOLDER, progress=False), expected, atol=1e-5)
