"""Published examples: found by name, compared in their number type, with a bound that holds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unite_core import UniteEmbedder
from unite_core.cli import main
from unite_core.data.items import images_of, videos_of
from unite_core.evaluation.verify import (
    EXAMPLES,
    ExamplePart,
    PublishedExample,
    example_of,
    format_verified,
    rounding_bound,
    verify,
)
from unite_core.model.loading import LoadConfig
from unite_core.model.prompts import build_prompt

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
QUERIES = [{"text": "a red square"}, {"text": "waves on the sea"}]
CANDIDATES = [{"image": "red.png"}, {"text": "<|IMAGE|> by night", "image": "red.png"}]


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    Image.new("RGB", (90, 60), (200, 30, 30)).save(folder / "red.png")
    return folder


def as_authors_do(media: Path, dtype: torch.dtype) -> list[list[float]]:
    """Normalised and multiplied in `dtype`, as the released code does."""
    embedder = UniteEmbedder.load(CHECKPOINT, device="cpu", dtype=dtype)
    vectors = []
    for item in [*QUERIES, *CANDIDATES]:
        batch = embedder.processor.collate([embedder.processor.encode(item, media)])
        positions = torch.arange(batch["input_ids"].shape[1]).expand(3, 1, -1)
        with torch.no_grad():
            hidden = embedder.backbone(**batch, position_ids=positions, use_cache=False)
        last = hidden.last_hidden_state[:, -1]
        vectors.append(last / last.norm(dim=-1, keepdim=True))
    queries, candidates = torch.cat(vectors[:2]), torch.cat(vectors[2:])
    return [[round(value, 4) for value in row] for row in (queries @ candidates.T).tolist()]


def example(cosines, dtype: str) -> PublishedExample:
    part = ExamplePart("texts to pictures", QUERIES, CANDIDATES, cosines, {"max_length": 4096})
    return PublishedExample("Tiny", "unite_qwen2vl_tiny", dtype, "this test", (part,))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_the_authors_code_prints_is_explained(dtype, media):
    printed = as_authors_do(media, getattr(torch, dtype))
    pairs = verify(str(CHECKPOINT), example(printed, dtype), media, LoadConfig(device="cpu"))
    assert [pair.published for pair in pairs] == [value for row in printed for value in row]
    assert all(pair.is_explained for pair in pairs)
    limit = {"bfloat16": 0.06, "float32": 1e-4}[dtype]
    assert all(abs(pair.deviation) < limit and pair.rounding < limit for pair in pairs)
    assert (pairs[0].moved > 0) == (dtype == "bfloat16")
    table = format_verified(pairs, example(printed, dtype))
    assert f"all 4 within what {dtype} explains" in table and "this test" in table


def test_a_number_that_is_none_of_the_model_s_is_not_explained(media):
    printed = as_authors_do(media, torch.float32)
    printed[0][1] -= 0.01
    printed[1][0] = None
    pairs = verify(str(CHECKPOINT), example(printed, "float32"), media, LoadConfig(device="cpu"))
    assert [pair.is_explained for pair in pairs] == [True, False, True]
    table = format_verified(pairs, example(printed, "float32"))
    assert "1 of 3 deviate by more than float32 explains" in table
    row = next(line for line in table.splitlines() if line.startswith("texts to pictures 1 x 2"))
    assert "+0.0100" in row and row.endswith("no")


def test_the_command_prints_the_table_and_its_exit_code_is_the_verdict(media, tmp_path, capsys):
    published = example(as_authors_do(media, torch.float32), "float32")
    for change, code in ((0.0, 0), (0.3, 1)):
        part = {"about": "a", "queries": QUERIES, "candidates": CANDIDATES,
                "cosines": [[value + change for value in row]
                            for row in published.parts[0].cosines]}  # fmt: skip
        raw = {"model": "Tiny", "known_as": "x", "dtype": "float32", "source": "s", "parts": [part]}
        (tmp_path / "mine.json").write_text(json.dumps(raw))
        with pytest.raises(SystemExit) as caught:
            main(["verify", str(CHECKPOINT), "--example", str(tmp_path / "mine.json"),
                  "--media-root", str(media), "--load.device", "cpu"])  # fmt: skip
        assert caught.value.code == code
        assert "deviation" in capsys.readouterr().out


def test_a_registered_example_is_found_by_the_model_s_name(media, monkeypatch):
    mine = example([[0.0, 0.0], [0.0, 0.0]], "float32")
    monkeypatch.setattr(EXAMPLES, "_things", {**EXAMPLES._things, "mine": mine})
    assert example_of(str(CHECKPOINT)) is mine and example_of("anything", "mine") is mine
    base = EXAMPLES["unite_base_2b"]
    for name in ("friedrichor/Unite-Base-Qwen2-VL-2B", "models/unite-base-qwen2-vl-2b",
                 "hub/models--friedrichor--Unite-Base-Qwen2-VL-2B/snapshots/0a1b2c"):  # fmt: skip
        assert example_of(name) is base
    with pytest.raises(ValueError, match=r"no published example is known .* gme_2b \(gme-Qwen2"):
        example_of("owner/another")
    with pytest.raises(ValueError, match="'unite' is no published example"):
        example_of("owner/another", "unite")


def test_media_that_are_missing_are_listed_with_their_source(tmp_path):
    words = r"lacks 116466.jpg, 518L0uDGe0L.jpg, which .*--media-root.*github.com/friedrichor/UNITE"
    with pytest.raises(FileNotFoundError, match=words):
        verify("nowhere", EXAMPLES["unite_instruct_7b"], tmp_path)


def test_cosines_must_fit_the_items():
    with pytest.raises(ValueError, match="cosines must be 2 lists of 2"):
        example([[0.1, 0.2]], "float32")


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_ships_names_its_source_and_its_media(name):
    found = EXAMPLES[name]
    assert found.source and example_of(f"owner/{found.model}") is found
    items = [item for part in found.parts for item in (*part.queries, *part.candidates)]
    assert any(images_of(item) for item in items) and found.media_from
    assert all(Path(file).name == file for item in items for file in videos_of(item))
    assert all(-1 <= v <= 1 for part in found.parts for row in part.cosines for v in row if v)


def test_unite_s_items_give_the_prompts_of_its_demo():
    turn = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    end = "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
    vision = "<|vision_start|><|{}_pad|><|vision_end|>"
    picture, video, fused = EXAMPLES["unite_base_2b"].parts
    expected = [
        (picture.candidates[0], vision.format("image") + "\nSummary above image in one word:"),
        (video.queries[0], video.queries[0]["text"] + "\nSummary above sentence in one word:"),
        (video.candidates[0], vision.format("video") + "\nSummary above video in one word:"),
        (fused.candidates[0], vision.format("image") + "Marina Beach."
         "\nSummary above sentence and image in one word:"),
    ]  # fmt: skip
    for item, content in expected:
        assert build_prompt(item, "unite") == turn + content + end
    assert video.embed["max_frames"] == 32 and video.embed["max_length"] >= 4254


@given(
    seed=st.integers(0, 2**31),
    near=st.floats(0, 1),
    dtype=st.sampled_from([torch.bfloat16, torch.float16]),
)
def test_the_bound_of_rounding_holds(seed, near, dtype):
    rng = np.random.default_rng(seed)
    query, other = rng.normal(size=(2, 1, 64))
    states = [torch.tensor(side).to(dtype) for side in (query, near * query + (1 - near) * other)]
    short = [state / state.norm(dim=-1, keepdim=True) for state in states]
    printed = (short[0] @ short[1].T).double().numpy()
    vectors = [state.double().numpy() for state in states]
    vectors = [state / np.linalg.norm(state) for state in vectors]
    unit = torch.finfo(dtype).eps / 2
    bound = rounding_bound(*vectors, unit, printed)
    assert (np.abs(printed - vectors[0] @ vectors[1].T) <= bound).all()
    assert (bound < 13 * unit).all(), "tight enough to say something"


def test_one_type_alone_is_enough_where_it_is_asked_for(media):
    printed = as_authors_do(media, torch.bfloat16)
    load = LoadConfig(device="cpu", dtype="float32")
    pairs = verify(str(CHECKPOINT), example(printed, "bfloat16"), media, load)
    assert pairs[0].moved == 0 and pairs[0].here == pairs[0].exact
