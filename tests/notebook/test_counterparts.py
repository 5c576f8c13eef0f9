"""What notebook 09 is made of: counterparts, the other modality's prompt, parameters."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from unite_core import gap, notebook
from unite_core.evaluation.tasks import RetrievalTask
from unite_core.gap.mixed_pool import mixed_pool
from unite_core.gap.offsets import prompt_offset
from unite_core.loss.contrastive import info_nce, mamcl
from unite_core.model.prompts import build_prompt
from unite_core.tiny import TINY_STAGE_2
from unite_core.train.config import STAGE_2, StageConfig
from unite_core.train.losses import stage_loss


def task(name, pairs):
    queries, candidates = zip(*pairs, strict=True)
    positives = [[row] for row in range(len(pairs))]
    families = [f"family {row // 2}" for row in range(len(pairs))]
    return RetrievalTask(
        name=name, split="style", description="d", queries=list(queries),
        candidates=list(candidates), positives=positives, families=families,
    )  # fmt: skip


def of(kind, numbers, suffix=""):
    return [{kind: f"{row}{suffix}.png" if kind != "text" else f"thing {row}"} for row in numbers]


@pytest.fixture
def tasks():
    there = list(zip(of("text", range(40)), of("image", range(40)), strict=True))
    back = list(zip(of("image", range(30, 60)), of("text", range(30, 60)), strict=True))
    clips = [{"video": f"{row}.webp"} for row in range(55)]
    moving = list(zip(of("text", range(55)), clips, strict=True))
    drawn = list(zip(of("image", range(60), "b"), of("image", range(60)), strict=True))
    return [task("text → image", there), task("image → text", back),
            task("text → video", moving), task("image → image", drawn)]  # fmt: skip


def test_counterparts_are_the_same_thing_in_every_role(tasks):
    groups, families = notebook.find_counterparts(tasks, 1000)
    assert {name: len(next(iter(roles.values()))) for name, roles in groups.items()} == {
        "pairs": 60, "three": 55, "replaced": 60,
    }  # fmt: skip
    for row, item in enumerate(groups["three"]["text"]):
        number = item["text"].split()[1]
        assert groups["three"]["image"][row] == {"image": f"{number}.png"}
        assert groups["three"]["video"][row] == {"video": f"{number}.webp"}
    first, second = (groups["replaced"][role][7] for role in ("first", "second"))
    assert groups["replaced"]["query"][7] == {"image": second["image"].replace(".png", "b.png")}
    assert first["text"].split()[1] + ".png" == second["image"]
    assert {name: len(labels) for name, labels in families.items()} == {
        "pairs": 60, "three": 55, "replaced": 60,
    }  # fmt: skip
    for item, label in zip(groups["pairs"]["text"][:40], families["pairs"], strict=False):
        assert label == f"family {int(item['text'].split()[1]) // 2}", "that of the query"


def test_counterparts_are_drawn_at_random_and_need_fifty(tasks):
    few = notebook.find_counterparts(tasks, 52, seed=1)
    assert len(few[0]["pairs"]["text"]) == len(few[1]["pairs"]) == 52
    assert few == notebook.find_counterparts(tasks, 52, seed=1)
    assert few != notebook.find_counterparts(tasks, 52, seed=2)
    assert set(notebook.find_counterparts(tasks[:2], 99)[0]) == {"pairs"}
    with pytest.raises(ValueError, match="pair 40 texts with images, 50 are needed"):
        notebook.find_counterparts(tasks[:1], 99)


def test_a_text_can_have_the_prompt_of_another_modality():
    text, image = {"text": "melon "}, {"image": "a.png"}
    assert build_prompt(notebook.text_as(text, "text"), "raw") == build_prompt(text)
    asked = build_prompt(image).partition("Summary")[2]
    assert build_prompt(notebook.text_as(text, "image"), "raw").partition("Summary")[2] == asked


def test_a_search_of_all_by_all_is_said_with_families():
    rng = np.random.default_rng(0)
    sides = {name: rng.standard_normal((60, 8)) for name in ("text", "image")}
    pool = mixed_pool(sides, k=5)
    row = notebook.pool_rows(pool, [str(number // 2) for number in range(60)])[0]
    assert (row["query"], row["counterpart"], row["families"]) == ("text", "image", "30 (30.0)")
    found = 100 * np.mean(pool.ranks["text", "image"] <= 10)
    value, low, high = map(float, re.findall(r"[\d.]+", row["mixed R@10"]))
    assert value == pytest.approx(found, abs=0.05) and low < value < high
    share = 100 * pool.same_modality_share["text"]
    assert float(row["own modality in 5"].split()[0]) == pytest.approx(share, abs=0.05)
    assert notebook.pool_rows(pool, ["a"] * 30 + ["b"] * 30)[0]["mixed R@10"] == f"{found:.1f}"
    assert notebook.pool_rows(pool)[0]["families"] == "each row one"


def prompted(rng, things):
    """Texts, the same under a prompt that moves them, images, and families of 1, 2, 3, 1, … 6."""
    moves = 0.5 * np.eye(6)[0], 0.8 * np.eye(6)[1]
    sizes = np.tile([1, 2, 3, 1, 1, 6], things)
    family = np.repeat(np.arange(len(sizes)), sizes)[:things]
    alike = rng.standard_normal((len(sizes), 6))[family]
    text, image = (alike + rng.standard_normal((things, 6)) for _ in range(2))
    sides = np.stack([text, text + moves[0], image + moves[1]])
    return *(sides / np.linalg.norm(sides, axis=2, keepdims=True)), [str(one) for one in family]


def test_intervals_of_the_prompts_part_hold_its_truth():
    rng, held = np.random.default_rng(0), []
    *sides, families = prompted(rng, 40_000)
    truth = prompt_offset(*sides, groups=families)
    for _ in range(40):
        text, moved, image, families = prompted(rng, 140)
        material = {
            "m": {"pairs": {"text": text, "image": image}, "prompt": {"text as image": moved}},
            "given": {"pairs": {"text": text, "image": image}},
        }
        (row,) = notebook.prompt_rows(material, families)
        ends = {name: re.findall(r"-?[\d.]+", row[name]) for name in truth}
        held.append([float(e[1]) <= truth[name] <= float(e[2]) for name, e in ends.items()])
    assert np.mean(held) > 0.9 and (np.mean(held, axis=0) > 0.75).all()
    total = gap.measure(text, image, groups=families)["gap"].value
    assert float(row["total"].split()[0]) == pytest.approx(total, abs=6e-4)
    for few in (["a"] * 70 + ["b"] * 70, ["a"] * 140):
        assert "[" not in notebook.prompt_rows(material, few)[0]["prompt"]
    fifty = {"pairs": {"text": text[:50], "image": image[:50]}, "prompt": {"": moved[:50]}}
    assert "[" not in notebook.prompt_rows({"m": fifty}, families[:50])[0]["prompt"]


def test_given_vectors_are_named_checked_and_aligned(tmp_path):
    rows = np.random.default_rng(0).standard_normal((60, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for name, part in (("a", rows), ("b", -rows), ("short", rows[:50])):
        np.save(tmp_path / f"{name}.npy", part)
    got = notebook.given_vectors(f"text: {tmp_path}/a.npy, image: {tmp_path}/b.npy")
    assert list(got) == ["text", "image"] and np.abs(got["image"] + rows).max() < 1e-12
    with pytest.raises(ValueError, match="'a.npy': give vectors as modality: file"):
        notebook.given_vectors("a.npy")
    with pytest.raises(ValueError, match=r"of the same things are needed, not .*\[50, 8\]"):
        notebook.given_vectors(f"text: {tmp_path}/a.npy, image: {tmp_path}/short.npy")


def test_runs_are_named(tmp_path):
    (tmp_path / "run" / "train" / "model").mkdir(parents=True)
    assert notebook.named_runs("") == {}
    got = notebook.named_runs(f"random mask: {tmp_path}/run")
    assert got == {"random mask": tmp_path / "run" / "train" / "model"}
    with pytest.raises(ValueError, match="give runs as name: folder"):
        notebook.named_runs("runs/x")


def test_the_random_mask_is_a_loss_of_its_own_and_the_same_every_time():
    vectors = torch.nn.functional.normalize(torch.randn(24, 8, dtype=torch.float64), dim=1)
    labels = {"target_modality": torch.arange(12) % 3, "candidate_ids": torch.arange(12) * 77}
    control = replace(TINY_STAGE_2, loss="random_mask")
    query, candidate = vectors.split(12)
    value = stage_loss(control, vectors, labels)
    assert value == stage_loss(control, vectors, labels)
    masked = mamcl(query, candidate, labels["target_modality"], control.temperature)
    whole = info_nce(query, candidate, control.temperature)
    assert value < whole and value != masked
    other = labels | {"candidate_ids": labels["candidate_ids"] + 1}
    assert value != stage_loss(control, vectors, other), "another batch, another mask"
    parts = sum(stage_loss(control, vectors, labels, slice(i, i + 6)) for i in (0, 6))
    torch.testing.assert_close(parts, value)
    with pytest.raises(ValueError, match="info_nce, mamcl, random_mask"):
        StageConfig("stage2", loss="random")
    assert STAGE_2.loss == "mamcl"
