"""GradCache: the gradients of one big forward, with the activations of one group."""

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from unite_core.data.pairs import Pair
from unite_core.data.records import write_records
from unite_core.files import read_json
from unite_core.model.embedder import UniteEmbedder
from unite_core.model.processor import Encoded
from unite_core.train.collator import PairCollator
from unite_core.train.config import STAGE_2, TrainConfig
from unite_core.train.gradcache import embed_groups
from unite_core.train.losses import stage_loss
from unite_core.train.run import train

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"


@pytest.fixture(scope="module")
def embedder() -> UniteEmbedder:
    embedder = UniteEmbedder.load(CHECKPOINT, "cpu")
    embedder.attach_lora(4, 8, dropout=0.3)
    for name, weight in embedder.named_parameters():
        if "lora_B" in name:  # zero at first: gradients of A, and dropout, would not count
            torch.nn.init.normal_(weight, std=0.2)
    return embedder.train()


@pytest.fixture(scope="module")
def batch(embedder, tmp_path_factory) -> dict:
    """Ten pairs of texts and pictures in groups of at most four items."""
    root, pairs = tmp_path_factory.mktemp("media"), []
    for number in range(10):
        Image.new("RGB", (28 * (2 + number % 3), 56), (25 * number, 90, 9)).save(
            root / f"{number}.png"
        )
        picture, words = {"image": f"{number}.png"}, {"text": "word " * (1 + 3 * number)}
        query, candidate = (words, picture) if number % 2 else (picture, words)
        modality = 2 if number % 2 else 1
        pairs.append(Pair(query, candidate, [], modality, "s", "", f"record {number}"))
    return PairCollator(embedder.processor, root, forward_items=4)(pairs)


def gradients(embedder, batch, cached, **options):
    embedder.zero_grad()
    torch.manual_seed(5)
    weight = next(embedder.parameters())
    with torch.autocast("cpu", torch.bfloat16, enabled=options.get("autocast", False)):
        vectors = embed_groups(embedder, batch["groups"], weight, cached)[batch["order"]]
    loss = stage_loss(STAGE_2, vectors, batch)
    loss.backward()
    grads = {n: w.grad.clone() for n, w in embedder.named_parameters() if w.grad is not None}
    return loss.item(), grads, torch.rand(1).item()


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_are_those_of_one_forward(embedder, batch, autocast):
    plain, wanted, _ = gradients(embedder, batch, cached=False, autocast=autocast)
    loss, grads, _ = gradients(embedder, batch, cached=True, autocast=autocast)
    assert len(batch["groups"]) >= 5
    assert loss == plain, "dropout is the same"
    assert grads.keys() == wanted.keys()
    assert all("lora" in name for name in grads)
    largest = max(grad.abs().max() for grad in wanted.values())
    assert largest > 1e-3
    for name, grad in wanted.items():
        torch.testing.assert_close(grads[name], grad, rtol=0, atol=float(1e-6 * largest))


def test_gradients_with_gradient_checkpointing_are_the_same(embedder, batch):
    layers = embedder.base.language_model
    layers.activation_checkpointing_enable()
    try:
        assert layers.is_activation_checkpointing
        _, wanted, _ = gradients(embedder, batch, cached=False)
        _, grads, _ = gradients(embedder, batch, cached=True)
    finally:
        layers.activation_checkpointing_disable()
    assert grads.keys() == wanted.keys()
    for name, grad in wanted.items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-5, atol=1e-6)


def test_dropout_matters_and_is_replayed_not_drawn_anew(embedder, batch):
    torch.manual_seed(5)
    weight, groups = next(embedder.parameters()), batch["groups"]
    first = embed_groups(embedder, groups, weight)
    second = embed_groups(embedder, groups, weight)
    assert (first - second).abs().max() > 1e-3, "the guard: the model has dropout"
    *_, plain = gradients(embedder, batch, cached=False)
    *_, cached = gradients(embedder, batch, cached=True)
    assert plain == cached, "what comes after a step draws the same numbers"


class Counted(torch.nn.Module):
    """A layer that knows how many of its activations are kept for a backward."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(4, 64), torch.nn.Linear(64, 4)
        self.kept, self.most, self.calls = [], 0, 0

    def forward(self, x):
        hidden = _Kept.apply(self.inner(x), self)
        return normalize(self.outer(hidden), dim=-1)

    def note(self, array):
        self.calls += 1
        self.kept = [ref for ref in self.kept if ref() is not None] + [weakref.ref(array)]
        self.most = max(self.most, len(self.kept))


class _Kept(torch.autograd.Function):
    """exp of what lies in an array that numpy frees when the graph does."""

    @staticmethod
    def forward(ctx, hidden, layer):
        array = hidden.detach().numpy().copy()
        layer.note(array)
        ctx.save_for_backward(torch.from_numpy(array))
        return hidden.exp()

    @staticmethod
    def backward(ctx, grad):
        (kept,) = ctx.saved_tensors
        return grad * kept.exp(), None


@pytest.mark.parametrize(("cached", "most", "calls"), [(False, 12, 12), (True, 1, 24)])
def test_one_group_at_a_time_has_a_graph(cached, most, calls):
    torch.manual_seed(0)
    layer, groups = Counted(), [{"x": torch.randn(3, 4)} for _ in range(12)]
    vectors = embed_groups(layer, groups, layer.inner.weight, cached)
    (vectors @ vectors.T).square().sum().backward()
    assert (layer.most, layer.calls) == (most, calls)
    layer.note(np.empty(1))
    assert len(layer.kept) == 1, "all are gone after the backward"


@pytest.mark.parametrize("cache_vision", [False, True])
def test_training_with_it_ends_with_the_same_weights(tmp_path, cache_vision):
    for number in range(8):
        picture = Image.new("RGB", (56, 28 * (1 + number % 2)), (30 * number, 10, 200))
        picture.save(tmp_path / f"{number}.png")
    records = [{"query": {"text": f"number {n}"}, "candidate": {"image": f"{n}.png"}}
               for n in range(8)]  # fmt: skip
    write_records(tmp_path / "pairs.jsonl", records)
    ends = []
    for cached in (False, True):
        stage = {"name": "stage1", "batch_size": 8, "max_steps": 3, "learning_rate": 1e-2,
                 "lora_dropout": 0.2}  # fmt: skip
        config = TrainConfig(
            str(CHECKPOINT), str(tmp_path / "pairs.jsonl"), str(tmp_path / f"{cached}"), stage,
            media_root=str(tmp_path), forward_items=3, forward_tokens=200, grad_cache=cached,
            logging_steps=1, cache_vision=cache_vision,
        )  # fmt: skip
        train(config)
        rows = read_json(tmp_path / f"{cached}" / "history.json")
        ends.append([row["loss"] for row in rows if "loss" in row])
    assert ends[1] == pytest.approx(ends[0], rel=1e-5)
    assert ends[0][0] != pytest.approx(ends[0][-1], rel=1e-2), "the guard: it trained"


@pytest.mark.parametrize("tokens", [1, 20, 64, 10**6, None])
def test_a_group_keeps_to_the_token_budget(embedder, tokens):
    rng = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 40, (50,), generator=rng).tolist()
    items = [Encoded([7] * n, images=[], videos=[], video_step=[]) for n in lengths]
    collator = PairCollator(embedder.processor, forward_items=8, forward_tokens=tokens)
    groups, order = collator._groups(items)
    sizes = [tuple(group["input_ids"].shape) for group in groups]
    assert sum(n for n, _ in sizes) == 50
    assert all(n <= 8 for n, _ in sizes)
    if tokens is not None:
        assert all(n * length <= tokens or n == 1 for n, length in sizes)
    real = torch.cat([group["attention_mask"].sum(1) for group in groups])[order]
    assert real.tolist() == lengths


def test_no_items_make_no_group(embedder):
    groups, order = PairCollator(embedder.processor)._groups([])
    assert groups == [] and order.shape == (0,)
