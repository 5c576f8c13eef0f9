"""MAMCL in sentence-transformers is ours, cached or not, and batches keep their quotas."""

import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from tests.export.test_sentence_transformers import FOLDER
from tests.train.test_parallel import run_processes
from unite_core.export.sentence_transformers import export_model
from unite_core.loss.contrastive import mamcl
from unite_core.model.embedder import UniteEmbedder
from unite_core.train.config import STAGE_2
from unite_core.train.for_sentence_transformers import (
    CachedMAMCLLoss,
    MAMCLLoss,
    QuotaBatchSampler,
    mixed_batches,
)
from unite_core.train.losses import stage_loss

DOCS = Path(__file__).parents[2] / "docs" / "training.md"
MODALITY = torch.tensor([1, 2, 1, 2, 2, 1])  # text, image
CONTENTS = torch.tensor([[7, 20], [8, 9], [7, 21], [9, 22], [10, 23], [11, 7]])


def columns_of(count, rows=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [
        normalize(torch.randn(rows, 5, generator=draw), dim=1).requires_grad_()
        for _ in range(count)
    ]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("negatives", [0, 1, 2])
def test_value_and_gradients_are_those_of_a_stage(symmetric, negatives):
    columns = columns_of(2 + negatives)
    loss = MAMCLLoss(None, symmetric=symmetric)
    found = loss.compute_loss_from_embeddings(columns, MODALITY)
    labels = {"target_modality": MODALITY, "candidate_ids": torch.arange(6)}
    if negatives:
        labels |= {"negative_modality": MODALITY.repeat(negatives),
                   "negative_ids": torch.arange(6, 6 + 6 * negatives)}  # fmt: skip
    stage = STAGE_2 if not symmetric else type(STAGE_2)("x", loss="mamcl", symmetric=True)
    wanted = stage_loss(stage, normalize(torch.cat(columns), dim=1), labels)  # as the loss does
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    for one, other in zip(*(torch.autograd.grad(x, columns) for x in (found, wanted)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_equal_contents_are_no_negatives():
    columns = columns_of(3)
    labels = torch.cat([MODALITY[:, None], CONTENTS], dim=1)
    found = MAMCLLoss(None).compute_loss_from_embeddings(columns, labels)
    query, candidate, negatives = columns
    wanted = mamcl(query, candidate, MODALITY, negatives=negatives,
                   negative_modality=MODALITY, candidate_ids=CONTENTS[:, 0],
                   negative_ids=CONTENTS[:, 1])  # fmt: skip
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert abs(found - MAMCLLoss(None).compute_loss_from_embeddings(columns, MODALITY)) > 1e-3


def test_options_reach_the_loss_and_vectors_of_any_length_will_do():
    query, candidate = columns_of(2)
    options = {"temperature": {1: 0.1, 2: 0.3}, "cross_modal_weight": 0.5,
               "false_negative_margin": 0.2}  # fmt: skip
    loss = MAMCLLoss(None, **options)
    found = loss.compute_loss_from_embeddings([3 * query, candidate / 2], MODALITY)
    torch.testing.assert_close(found, mamcl(query, candidate, MODALITY, **options))
    assert loss.get_config_dict().items() >= options.items()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "needs a column label with the modality"),
        (MODALITY.float(), "needs a column label with the modality"),
        (torch.stack([MODALITY] * 2, 1), "has 1 contents: write the modality, then .* 2 columns"),
    ],
)
def test_labels_that_say_no_modality_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        MAMCLLoss(None).compute_loss_from_embeddings(columns_of(3), labels)


@pytest.mark.slow
def test_processes_compare_with_the_rows_of_all():
    columns = columns_of(3)
    labels = torch.cat([MODALITY[:, None], CONTENTS], dim=1)
    whole = MAMCLLoss(None).compute_loss_from_embeddings(columns, labels)
    wanted = torch.autograd.grad(whole, columns)
    parts = run_processes(2, _half, labels)
    assert sum(value for value, _ in parts) / 2 == pytest.approx(whole.item(), abs=1e-6)
    for number, gradient in enumerate(wanted):
        found = torch.cat([gradients[number] for _, gradients in parts]) / 2  # as DDP averages
        torch.testing.assert_close(found, gradient, rtol=1e-5, atol=1e-6)


def _half(rank, world, labels):
    mine = slice(3 * rank, 3 * rank + 3)
    columns = [column.detach()[mine].requires_grad_() for column in columns_of(3)]
    loss = MAMCLLoss(None, gather_across_devices=True)
    value = loss.compute_loss_from_embeddings(columns, labels[mine])
    return value.item(), torch.autograd.grad(value, columns)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "tiny"
    export_model(FOLDER, folder, items={"text": {"text": "a cat"}})
    return folder


@pytest.fixture(scope="module")
def model(exported):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(exported), device="cpu", trust_remote_code=True)


def picture(colour):
    return Image.new("RGB", (56, 84), colour)


COLUMNS = (
    ["a red sheet", {"image": picture("teal"), "text": "in green"}, "a cat", picture("blue")],
    [picture("red"), "green", {"video": [picture("red"), picture("blue")]}, "a blue sheet"],
    [picture("pink"), "grey", {"video": [picture("blue")] * 2}, "no sheet"],
)
CODES = torch.tensor([2, 1, 3, 1])


def gradients(model, loss):
    model.zero_grad(set_to_none=True)
    value = loss([model.preprocess(column) for column in COLUMNS], CODES)
    value.backward()
    return value.item(), {n: w.grad for n, w in model.named_parameters() if w.grad is not None}


SIZES = [{"mini_batch_size": n} for n in (1, 3, 50)]


@pytest.mark.parametrize("size", [*SIZES, {"mini_batch_num_tokens": 40}])
def test_the_cached_loss_is_the_plain_one(model, size):
    value, wanted = gradients(model, MAMCLLoss(model))
    cached, found = gradients(model, CachedMAMCLLoss(model, **size))
    assert cached == pytest.approx(value, abs=1e-5) and value > 0.01
    assert found.keys() == wanted.keys() and any("visual" in name for name in found)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        features = [model.preprocess(column) for column in COLUMNS]
        assert CachedMAMCLLoss(model)(features, CODES).item() == pytest.approx(value, abs=1e-5)


def test_a_model_s_loss_is_that_of_our_own_vectors(model):
    value, _ = gradients(model, MAMCLLoss(model))
    embedder = UniteEmbedder.load(FOLDER, "cpu")
    columns = []
    for column in COLUMNS:
        items = [{"text": item} if isinstance(item, str) else item for item in column]
        items = [
            item if "text" not in item or len(item) < 2
            else item | {"text": "<|IMAGE|>\n" + item["text"]}
            for item in ({"image": i} if isinstance(i, Image.Image) else i for i in items)
        ]  # fmt: skip
        columns.append(torch.from_numpy(embedder.embed(items, progress=False)))
    query, candidate, negatives = columns
    wanted = mamcl(query, candidate, CODES, negatives=negatives, negative_modality=CODES)
    assert value == pytest.approx(wanted.item(), abs=1e-4)


def datasets_of(*labels):
    from datasets import Dataset
    from torch.utils.data import ConcatDataset

    parts = [Dataset.from_dict({"anchor": ["x"] * len(part), "label": part}) for part in labels]
    return ConcatDataset(parts), np.concatenate([np.reshape(part, (len(part), -1))[:, 0]
                                                 for part in labels])  # fmt: skip


class Inner:
    batch_size, drop_last = 8, False


def test_every_batch_has_its_share_of_each_modality_from_all_data_sets():
    dataset, codes = datasets_of([1] * 30 + [2] * 2, [[2, 5]] * 20, [1] * 8)
    sampler = mixed_batches({"text": 0.5, "image": 0.5})(dataset, [Inner] * 3, None, seed=3)
    assert isinstance(sampler, QuotaBatchSampler) and len(sampler) == 60 // 8
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert all(Counter(codes[batch].tolist()) == {1: 4, 2: 4} for batch in batches)
    assert {row // 32 if row < 52 else 2 for batch in batches for row in batch} == {0, 1, 2}
    texts = [row for batch in batches for row in batch if codes[row] == 1]
    assert len(texts) == len(set(texts)), "none again before all have come"
    assert batches == list(sampler), "the same every time"
    sampler.set_epoch(1)
    assert batches != list(sampler)
    plain = list(mixed_batches()(dataset, [Inner] * 3))
    assert len({row for batch in plain for row in batch}) == 56, "7 whole batches of 60 rows"


def test_data_sets_without_what_quotas_need_are_refused():
    dataset, _ = datasets_of([1] * 30, [2] * 20)
    with pytest.raises(ValueError, match="quotas do not name image"):
        mixed_batches({"text": 1.0})(dataset, [Inner] * 2)
    dataset.datasets[1] = dataset.datasets[1].remove_columns("label")
    with pytest.raises(ValueError, match="data set 2 has no column label"):
        mixed_batches()(dataset, [Inner] * 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*pin_memory")  # its default, without a GPU
def test_the_example_of_the_docs_trains(exported, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(from datasets.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    for name in ("red", "blue", "green", "black"):
        picture(name).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example"])
    (tmp_path / "exported").symlink_to(exported)
    places = {}
    exec(compile(code, str(DOCS), "exec"), places)
    logged = [row["loss"] for row in places["trainer"].state.log_history if "loss" in row]
    assert len(logged) > 2 and logged[-1] < 0.5 * logged[0]
