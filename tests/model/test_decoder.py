"""Shared beginnings and the pooled token alone give transformers' own states and gradients."""

from pathlib import Path

import pytest
import torch

from unite_core import UniteEmbedder
from unite_core.model import decoder
from unite_core.model.decoder import (
    input_embeddings,
    is_plain_decoder,
    pooled_states,
    shared_tokens,
    takes_visual_tokens,
)
from unite_core.model.positions import token_positions

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
ITEMS = [
    {"text": "a cat"},
    {"text": "a longer sentence about a cat on a mat"},
    {"image": "inputs/image0.png"},
    {"text": "<|IMAGE|> the same in red", "image": "inputs/image1.png"},
    {"video": ["inputs/video0_frame0.png", "inputs/video0_frame1.png"]},
]


@pytest.fixture(scope="module", params=["sequential", "mrope"])
def adapted(request) -> UniteEmbedder:
    embedder = UniteEmbedder.load(FOLDER, positions=request.param)
    embedder.attach_lora(rank=4, alpha=8, dropout=0.0, seed=1)
    for name, weight in embedder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return embedder


def prepared(embedder, items):
    """Embeddings, mask and positions of a batch, and how many tokens its rows share."""
    batch = embedder.processor.collate([embedder.processor.encode(i, FOLDER) for i in items])
    ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
    grids = {name: batch.get(name) for name in ("image_grid_thw", "video_grid_thw")}
    positions = token_positions(embedder.base, embedder.config.positions, ids, mask, **grids)
    visual = embedder.processor.image_id, embedder.processor.video_id
    shared = shared_tokens(ids, mask, visual)
    return input_embeddings(embedder.base, ids, **batch), mask, positions, shared


def whole_states(embedder, embeddings, mask, positions):
    model = embedder.base.language_model
    hidden = model(inputs_embeds=embeddings, attention_mask=mask, position_ids=positions,
                   use_cache=False)  # fmt: skip
    return hidden.last_hidden_state[:, -1]


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [0, 1], [2], [4, 0], [1, 3, 2]])
def test_states_and_gradients_are_those_of_the_whole_forward(adapted, rows):
    assert is_plain_decoder(adapted.base.language_model)
    embeddings, mask, positions, shared = prepared(adapted, [ITEMS[row] for row in rows])
    weights = [w for w in adapted.parameters() if w.requires_grad]
    expected = whole_states(adapted, embeddings, mask, positions)
    factor = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * factor).sum(), weights, retain_graph=True)
    for count in {shared, shared // 2, 0}:
        states = pooled_states(
            adapted.base.language_model, embeddings, mask, positions, count
        )  # fmt: skip
        assert torch.allclose(states, expected, atol=1e-5)
        gradients = torch.autograd.grad((states * factor).sum(), weights, retain_graph=True)
        for gradient, other in zip(gradients, wanted, strict=True):
            assert other.abs().max() > 0
            torch.testing.assert_close(gradient, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [[1], [2], [0, 0], [1, 1, 1]])
def test_without_padding_a_gpu_s_kernel_gets_no_mask(adapted, rows, monkeypatch):
    embeddings, mask, positions, shared = prepared(adapted, [ITEMS[row] for row in rows])
    masked = pooled_states(adapted.base.language_model, embeddings, mask, positions, shared)
    monkeypatch.setattr(decoder, "_CAUSAL", ("cpu",))
    masks = []
    sdpa = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **named: masks.append(named.get("attn_mask")) or sdpa(*args, **named),
    )
    states = pooled_states(adapted.base.language_model, embeddings, mask, positions, shared)
    assert len(masks) == len(adapted.base.language_model.layers) and set(masks) == {None}
    torch.testing.assert_close(states, masked, atol=1e-5, rtol=1e-5)
    padded, mask, positions, shared = prepared(adapted, ITEMS[:2])
    pooled_states(adapted.base.language_model, padded, mask, positions, shared)
    assert masks[-1] is not None


def test_what_rows_share_ends_before_the_last_token_and_before_media(adapted):
    *_, shared = prepared(adapted, ITEMS)
    ids = adapted.processor.encode(ITEMS[0], FOLDER).input_ids
    assert 10 < shared < len(ids)
    twice = [{"image": "inputs/image0.png"}, {"image": "inputs/image0.png"}]
    *_, shared = prepared(adapted, twice)
    ids = adapted.processor.encode(twice[0], FOLDER).input_ids
    assert ids[shared] == adapted.processor.image_id
    *_, shared = prepared(adapted, [ITEMS[0], ITEMS[0]])
    assert shared == len(adapted.processor.encode(ITEMS[0], FOLDER).input_ids) - 1
    assert prepared(adapted, ITEMS[:1])[-1] == 0


def test_visual_tokens_must_fit_their_places(adapted):
    batch = adapted.processor.collate([adapted.processor.encode(ITEMS[2], FOLDER)])
    batch["image_features"] = torch.zeros(3, adapted.dim)
    with pytest.raises(ValueError, match="3 visual tokens for"):
        adapted(**batch)


def test_checkpointing_takes_the_long_way_to_the_same_vectors(adapted):
    items = [adapted.processor.encode(item, FOLDER) for item in ITEMS]
    batch = adapted.processor.collate(items)
    with torch.no_grad():
        expected = adapted(**batch)
        adapted.base.activation_checkpointing_enable()
        try:
            assert not is_plain_decoder(adapted.base.language_model)
            assert torch.allclose(adapted(**batch), expected, atol=1e-5)
        finally:
            adapted.base.activation_checkpointing_disable()


def test_items_with_features_give_the_same_vectors_without_pixels(adapted):
    items = [adapted.processor.encode(item, FOLDER) for item in ITEMS]
    encoded = adapted.encode_vision(items)
    pixels, tokens = adapted.processor.collate(items), adapted.processor.collate(encoded)
    assert "pixel_values" in pixels and "pixel_values" not in tokens
    with torch.no_grad():
        assert torch.allclose(adapted(**tokens), adapted(**pixels), atol=1e-6)
    with pytest.raises(ValueError, match="do not mix"):
        adapted.processor.collate([items[2], encoded[3]])


def test_only_towers_that_feed_nothing_but_tokens_can_be_cached(adapted):
    from transformers import Qwen3VLModel

    assert takes_visual_tokens(adapted.base)
    other = UniteEmbedder(Qwen3VLModel.__new__(Qwen3VLModel), adapted.processor)
    torch.nn.Module.__init__(other.backbone)
    with pytest.raises(ValueError, match="cache_vision"):
        other.encode_vision([])
