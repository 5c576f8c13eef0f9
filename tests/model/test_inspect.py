"""What the model sees is measured, not asserted: against its own forward, and by counting."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from unite_core import UniteEmbedder
from unite_core.model import inspect as inside
from unite_core.model.config import EmbedConfig
from unite_core.model.cost import config_2b, flops_of, seconds_of
from unite_core.plots import (
    plot_item_cosines,
    plot_parts,
    plot_patches,
    plot_positions,
    plot_token_runs,
)

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
PICTURE = Image.new("RGB", (300, 200), "teal")
CLIP = [Image.new("RGB", (60, 90), colour) for colour in ("red", "blue", "red", "blue")]
ITEMS = [
    {"text": "a cat"},
    {"image": PICTURE},
    {"video": CLIP},
    {"image": PICTURE, "text": "<|IMAGE|>\nin green"},
]


@pytest.fixture(scope="module")
def embedder() -> UniteEmbedder:
    return UniteEmbedder.load(FOLDER, device="cpu", image_min_pixels=3136, image_max_pixels=12544)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def of_kind(embedder, item, kind):
    return [token for token, each in inside.token_kinds(embedder.processor, item) if each == kind]


def test_tokens_are_told_apart(embedder):
    assert "".join(of_kind(embedder, {"text": "a cat"}, "text")).replace("Ġ", " ") == "a cat"
    around = {"text": "like <|IMAGE|> but red", "image": PICTURE}
    written = "".join(of_kind(embedder, around, "text")).replace("Ġ", " ")
    assert written.split() == ["like", "but", "red"]
    for item in ITEMS:
        kinds = inside.token_kinds(embedder.processor, item)
        assert len(kinds) == inside.describe_tokens(embedder.processor, item)["tokens"]
        assert kinds[-1][1] == kinds[0][1] == "template"
    assert of_kind(embedder, {"text": "0"}, "text"), "also a text like those it is compared with"
    assert of_kind(embedder, {"text": "%%"}, "text")


def test_runs_are_lengths_of_stretches():
    pairs = [("a", "text"), ("b", "text"), ("p", "image"), ("c", "text")]
    assert inside.token_runs(pairs) == [("text", 2), ("image", 1), ("text", 1)]


def test_describe_tokens_counts_the_tokens_of_media(embedder):
    found = inside.describe_tokens(embedder.processor, ITEMS[3])
    ((_, height, width),) = found["grids"]
    assert found["modality"] == "text+image" and found["pixels"] == [(height * 14, width * 14)]
    assert found["visual"] == height * width // 4 == len(of_kind(embedder, ITEMS[3], "image"))
    assert 3136 <= height * width * 14**2 <= 12544
    assert inside.describe_tokens(embedder.processor, ITEMS[2])["grids"][0][0] == 2


def test_grids_of_sizes_are_those_of_the_pictures(embedder):
    config = embedder.config
    grid = inside.grid_for(config, PICTURE.height, PICTURE.width)
    assert [grid] == inside.describe_tokens(embedder.processor, ITEMS[1])["grids"]
    # 1584 tokens where the second resize undoes the cap, 91 a patch without it
    frames = {kind: inside.grid_for(EmbedConfig(video_pixels=kind), 360, 640, 12)
              for kind in ("effective", "released")}  # fmt: skip
    assert {kind: np.prod(grid) // 4 for kind, grid in frames.items()} == {
        "effective": 6 * 91, "released": 6 * 264,
    }  # fmt: skip


def test_items_are_grouped_without_repeats():
    groups = inside.by_modality([*ITEMS, *ITEMS, {"text": "b"}], 2)
    assert {name: len(items) for name, items in groups.items()} == {
        "text": 2, "image": 1, "video": 1, "fused": 1,
    }  # fmt: skip
    texts = [{"text": str(number)} for number in range(9)]
    assert inside.by_modality(texts, 3)["text"] == [texts[0], texts[3], texts[6]]
    assert inside.by_modality(ITEMS[:1], 1) == {"text": [ITEMS[0]]}


def test_positions_differ_where_there_are_media(embedder):
    text, image = (inside.positions_of(embedder, ITEMS[i], "mrope") for i in (0, 1))
    np.testing.assert_array_equal(text, np.tile(np.arange(text.shape[1]), (3, 1)))
    assert image[1:].max() < image.shape[1] - 1
    sequential = inside.positions_of(embedder, ITEMS[1], "sequential")
    np.testing.assert_array_equal(sequential, np.tile(np.arange(image.shape[1]), (3, 1)))
    cosines = inside.position_cosines(embedder, ITEMS)
    assert cosines[0] == pytest.approx(1, abs=1e-6) and (cosines[1:] < 0.999).all()


def test_configured_shares_weights_and_leaves_the_first_alone(embedder):
    other = embedder.configured(positions="mrope")
    assert other.backbone is embedder.backbone
    assert (embedder.config.positions, other.config.positions) == ("sequential", "mrope")


def test_the_last_token_pooled_is_the_embedding(embedder):
    pooled = inside.pooled_vectors(embedder, ITEMS, batch_size=3)
    assert tuple(pooled) == inside.POOLINGS
    expected = embedder.embed(ITEMS, progress=False)
    np.testing.assert_allclose(pooled["last token"], expected, atol=1e-5)
    for vectors in pooled.values():
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = inside.pooled_vectors(embedder, ITEMS, batch_size=1)
    for name in inside.POOLINGS:  # padding enters no mean and no maximum
        np.testing.assert_allclose(alone[name], pooled[name], atol=1e-5)


def test_pools_by_hand():
    states = torch.tensor([[[9.0, 9.0], [3.0, 0.0], [0.0, 5.0], [1.0, 1.0]]])
    mask, content = torch.tensor([[0, 1, 1, 1]]), torch.tensor([[0, 1, 0, 0]])
    found = inside.pool_states(states, mask, content)
    expected = {"last token": (1, 1), "mean of all": (4, 6), "mean of content": (1, 0),
                "max of all": (3, 5)}  # fmt: skip
    for name, vector in expected.items():
        unit = torch.nn.functional.normalize(torch.tensor([vector]).float(), dim=-1)
        torch.testing.assert_close(found[name], unit)
    with pytest.raises(ValueError, match="row 0 has no token of content"):
        inside.pool_states(states, mask, torch.zeros_like(content))


@pytest.mark.parametrize("row", range(len(ITEMS)))
def test_work_is_what_torch_counts(embedder, row):
    """Eager attention, in which every product is a matrix product that torch sees."""
    from transformers import Qwen2VLModel

    config = embedder.base.config
    model = Qwen2VLModel._from_config(config, attn_implementation="eager").eval()
    batch = embedder.processor.collate([embedder.processor.encode(ITEMS[row])])
    positions = torch.arange(batch["input_ids"].shape[1]).expand(3, 1, -1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**batch, position_ids=positions)
    found = inside.describe_tokens(embedder.processor, ITEMS[row])
    work = flops_of(config, found["grids"], found["tokens"])
    assert (work.vision > 0) == (row > 0)
    rotary = 1.02  # of tables of angles, and nothing else
    assert work.total <= counter.get_total_flops() <= rotary * work.total


def test_the_2b_shape_has_the_released_number_of_parameters():
    from transformers import Qwen2VLModel

    with torch.device("meta"):
        model = Qwen2VLModel(config_2b())
    assert sum(weight.numel() for weight in model.parameters()) == 2_208_985_600


def test_seconds_are_measured_for_each_part(embedder):
    spent = seconds_of(embedder, ITEMS[1], repeats=1)
    assert list(spent) == ["prepare", "vision", "language"] and min(spent.values()) > 0
    text = seconds_of(embedder, ITEMS[0], repeats=1)
    assert text["vision"] < spent["vision"]


def test_variants_change_what_they_name(embedder):
    plain = embedder.embed([ITEMS[0]], progress=False)
    for variant in inside.VARIANTS["text"]:
        vector = inside.embed_variant(embedder, [ITEMS[0]], variant)
        assert (vector * plain).sum() < 0.99999, variant.name
    assert ITEMS[0] == {"text": "a cat"}
    swapped = next(v for v in inside.VARIANTS["fused"] if v.change)
    assert list(swapped.change(dict(ITEMS[3]))) == ["text", "image"]
    raw = embedder.processor.config
    direct = UniteEmbedder(
        embedder.backbone,
        type(embedder.processor)(embedder.processor.tokenizer, replace(raw, prompt="raw")),
    ).embed([ITEMS[0]], progress=False)
    first = inside.VARIANTS["text"][0]
    np.testing.assert_allclose(inside.embed_variant(embedder, [ITEMS[0]], first), direct, atol=1e-6)


def test_figures_draw_what_they_are_given():
    ax = plot_token_runs(
        {"a": [("template", 3), ("image", 4)], "b": [("text", 2)]}, plt.subplots()[1]
    )
    assert [bar.get_width() for bar in ax.patches] == [3, 4, 2]
    assert ax.get_yticklabels()[1].get_text() == "b"
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["template", "text", "image", "pooled"]
    ax = plot_patches(PICTURE, (1, 4, 6), 2, plt.subplots()[1])
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2", "3", "4", "5"]
    ax = plot_item_cosines({"x": np.array([0.5, 0.7])}, {"x": "fused"}, plt.subplots()[1])
    assert ax.get_yticklabels()[0].get_text() == "x  (n 2)" and ax.texts[0].get_text() == "0.6000"
    ax = plot_parts({"x": {"a": 1.0, "b": 2.0}}, plt.subplots()[1], form="{:.1f}")
    assert ax.texts[0].get_text() == "3.0" and len(ax.patches) == 2
    with pytest.raises(ValueError, match="5 parts"):
        plot_parts({"x": dict.fromkeys("abcde", 1.0)}, ax)


def test_positions_are_drawn_with_their_media():
    positions = np.tile(np.arange(4), (3, 1))
    kinds = ["template", "image", "image", "text"]
    ax = plot_positions(positions, kinds, plt.subplots()[1])
    assert [line.get_label() for line in ax.lines] == ["time", "height", "width"]
    assert ax.get_legend().get_texts()[0].get_text() == "image tokens"
    with pytest.raises(ValueError, match="3 kinds for 4 tokens"):
        plot_positions(positions, kinds[:3], ax)
