"""A stage's loss is the loss that its fields name, and fields that contradict are refused."""

import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from torch.nn.functional import normalize

from unite_core import info_nce, mamcl
from unite_core.files import from_row, read_json, write_json
from unite_core.train.config import STAGE_2, StageConfig
from unite_core.train.losses import LOSSES, stage_loss

GENERATOR = torch.Generator().manual_seed(0)
VECTORS = normalize(torch.randn(26, 8, generator=GENERATOR, dtype=torch.float64), dim=1)
LABELS = {
    "target_modality": torch.arange(10) % 3,
    "candidate_ids": torch.arange(10),
    "negative_modality": torch.arange(6) % 3,
    "negative_ids": torch.arange(20, 26),
}
KNOWN = {"negatives": VECTORS[20:], "temperature": 0.03} | {
    name: LABELS[name] for name in ("candidate_ids", "negative_ids")
}


@pytest.mark.parametrize(
    "fields",
    [{}, {"symmetric": True}, {"temperature": 0.1}, {"false_negative_margin": 0.05},
     {"dims": (4, 8)}],
)  # fmt: skip
def test_fields_reach_the_loss(fields):
    options = KNOWN | {"symmetric": False} | fields
    query, candidate = VECTORS[:10], VECTORS[10:20]
    found = stage_loss(replace(STAGE_2, loss="info_nce", **fields), VECTORS, LABELS)
    torch.testing.assert_close(found, info_nce(query, candidate, **options))
    masked = {name: LABELS[name] for name in ("target_modality", "negative_modality")}
    for weight in (0.0, 0.3):
        stage = replace(STAGE_2, cross_modal_weight=weight, **fields)
        expected = mamcl(query, candidate, cross_modal_weight=weight, **masked, **options)
        torch.testing.assert_close(stage_loss(stage, VECTORS, LABELS), expected)
    assert stage_loss(replace(STAGE_2, **fields), VECTORS, LABELS) < found
    if fields and fields != {"symmetric": True}:
        assert found != stage_loss(replace(STAGE_2, loss="info_nce"), VECTORS, LABELS)


def test_the_softest_mask_is_no_mask():
    soft = replace(STAGE_2, cross_modal_weight=1.0)
    plain = replace(STAGE_2, loss="info_nce")
    found = stage_loss(soft, VECTORS, LABELS)
    torch.testing.assert_close(found, stage_loss(plain, VECTORS, LABELS))


def test_a_stage_is_the_same_after_json(tmp_path):
    stage = replace(STAGE_2, dims=(64, 256), cross_modal_weight=0.5, false_negative_margin=0.1)
    write_json(tmp_path / "stage.json", asdict(stage))
    assert from_row(StageConfig, read_json(tmp_path / "stage.json"), "here") == stage


@pytest.mark.parametrize(
    "fields, message",
    [({"loss": "info_nce", "cross_modal_weight": 0.5}, "0 for the loss info_nce"),
     ({"loss": "random_mask", "cross_modal_weight": 0.5}, "0 for the loss random_mask"),
     ({"cross_modal_weight": 1.5}, "at most 1"), ({"dims": [0]}, "at least 1"),
     ({"temperature": 0}, "greater than 0"), ({"loss": "clip"}, "one of")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(STAGE_2, **fields)


def test_losses_are_registered_by_name_and_a_new_one_gets_the_batch(monkeypatch):
    assert list(LOSSES) == ["info_nce", "mamcl", "random_mask", "margin_mse", "distill_kl"]
    monkeypatch.setattr(LOSSES, "_things", dict(LOSSES._things))
    given = []
    LOSSES.register("mine")(lambda batch, stage: given.append((batch, stage)) or VECTORS.sum())
    stage = replace(STAGE_2, temperature=0.1)
    object.__setattr__(stage, "loss", "mine")
    assert stage_loss(stage, VECTORS, LABELS, slice(2, 5)) == VECTORS.sum()
    ((batch, seen),) = given
    assert seen is stage and batch.temperature == 0.1 and batch.rows == slice(2, 5)
    assert torch.equal(torch.cat([batch.query, batch.candidate, batch.negatives]), VECTORS)
    for name, values in LABELS.items():
        assert getattr(batch, name) is values
    object.__setattr__(stage, "loss", "mamlc")
    with pytest.raises(ValueError, match="'mamlc' is no loss .did you mean 'mamcl'"):
        stage_loss(stage, VECTORS, LABELS)


def test_a_loss_can_be_named_without_torch():
    code = "import sys, unite_core.train.losses; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"
