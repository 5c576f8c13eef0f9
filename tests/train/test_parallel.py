"""Several gloo processes compute what one computes on the whole batch."""

import json
import os
import shutil
import socket
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.functional import normalize

import unite_core
from unite_core.distributed import processes
from unite_core.train.config import STAGE_1, STAGE_2
from unite_core.train.losses import stage_loss
from unite_core.train.parallel import (
    average_gradients,
    broadcast_weights,
    gather_batch,
    gather_bytes,
    gather_rows,
)

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
MIXED = replace(STAGE_1, name="mixed", temperature=0.1)
MASKED = replace(STAGE_2, name="masked", temperature=0.1)
STAGES = [MIXED, MASKED, replace(MASKED, symmetric=True)]
SHARES = {2: [(3, 2), (5, 0)], 4: [(2, 0), (4, 3), (0, 0), (1, 1)]}  # (pairs, negatives) per rank
DIM = 6


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_processes(world, function, *args):
    """function(rank, world, *args) in `world` gloo processes; their results by rank."""
    with mp.get_context("spawn").Manager() as manager:
        results = manager.dict()
        mp.spawn(_member, (world, free_port(), results, function, args), nprocs=world)
        return [results[rank] for rank in range(world)]


def _member(rank, world, port, results, function, args):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    try:
        results[rank] = function(rank, world, *args)
    except Exception:
        traceback.print_exc()
        raise
    finally:
        dist.destroy_process_group()


class Towers(torch.nn.Module):
    """One weight for all items and one per modality, as a vision tower serves only some."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.shared = torch.nn.Linear(DIM, DIM).double()
        self.own = torch.nn.ModuleList(torch.nn.Linear(DIM, DIM).double() for _ in range(3))
        self.idle = torch.nn.Linear(DIM, DIM).double()  # no item needs it

    def forward(self, items, modality):
        hidden = self.shared(items)
        for code in modality.unique().tolist():
            chosen = modality == code
            hidden = hidden.index_add(0, chosen.nonzero()[:, 0], self.own[code](items[chosen]))
        return normalize(hidden, dim=-1)


def share_of(shares, rank):
    """Items, modality of each item and labels of one process."""
    pairs, hard = shares[rank]
    rng = torch.Generator().manual_seed(10 + rank)
    items = torch.randn(2 * pairs + hard, DIM, generator=rng, dtype=torch.float64)
    target = torch.arange(pairs) % 2 + rank % 2  # modality 0 on even ranks only, 2 on odd ones
    labels = {"target_modality": target, "candidate_ids": 100 * target + torch.arange(pairs) // 3}
    codes = torch.ones(hard, dtype=torch.long)
    if hard:
        labels |= {"negative_modality": codes, "negative_ids": 900 + torch.arange(hard)}
    return items, torch.cat([torch.zeros_like(target), target, codes]), labels


def whole_batch(shares):
    """What `share_of` gives, as one batch: all queries, all candidates, all hard negatives."""
    parts = [share_of(shares, rank) for rank in range(len(shares))]
    cut = [(items.split([b, b, k]), codes.split([b, b, k]))
           for (items, codes, _), (b, k) in zip(parts, shares, strict=True)]  # fmt: skip
    items = torch.cat([each[0][n] for n in range(3) for each in cut])
    codes = torch.cat([each[1][n] for n in range(3) for each in cut])
    names = {name for *_, labels in parts for name in labels}
    labels = {n: torch.cat([part[2][n] for part in parts if n in part[2]]) for n in names}
    return items, codes, labels


def gradients(model):
    return {name: weight.grad for name, weight in model.named_parameters()}


def step_of_rank(rank, world, stage, shares):
    model = Towers()
    items, codes, labels = share_of(shares, rank)
    vectors, labels, rows = gather_batch(model(items, codes), labels)
    loss = world * stage_loss(stage, vectors, labels, rows)
    loss.backward()
    average_gradients(model.parameters())
    return loss.item() / world, gradients(model), labels


def assert_equal_gradients(first, second, tolerance=1e-12):
    assert first.keys() == second.keys()
    for name, grad in first.items():
        assert (grad is None) == (second[name] is None), name
        if grad is not None:
            torch.testing.assert_close(grad, second[name], rtol=0, atol=tolerance, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("world", SHARES)
def test_loss_and_gradients_are_those_of_one_process(world):
    results = run_processes(world, _all_stages, SHARES[world])
    items, codes, labels = whole_batch(SHARES[world])
    for number, stage in enumerate(STAGES):
        model = Towers()
        loss = stage_loss(stage, model(items, codes), labels)
        loss.backward()
        wanted = gradients(model)
        assert wanted["idle.weight"] is None
        assert wanted["own.2.weight"].abs().max() > 1e-3, "the guard: modality 2 counts"
        ranks = [result[number] for result in results]
        assert sum(part for part, *_ in ranks) == pytest.approx(loss.item(), abs=1e-13)
        for _, grads, seen in ranks:
            assert_equal_gradients(wanted, grads)
            assert {name: seen[name].tolist() for name in seen} == {
                name: labels[name].tolist() for name in labels
            }


def _all_stages(rank, world, shares):
    return [step_of_rank(rank, world, stage, shares) for stage in STAGES]


@pytest.mark.slow
def test_small_collectives():
    for rank, result in enumerate(run_processes(2, _small_collectives)):
        place, words, weight, grad, rows = result
        assert place == (rank, 2)
        assert words == ([b"", b"two"], [b"", b""])
        assert weight == [0.0, 0.0, 0.0]
        assert rows == [[0.0], [1.0], [1.0]]
        assert grad == ([[5.0]], [[6.0], [7.0]])[rank]  # weights 1 2 3 of rank 0, 4 4 4 of rank 1


def _small_collectives(rank, world):
    words = gather_bytes(b"two" if rank else b""), gather_bytes(b"")
    weight = torch.full((3,), float(rank))
    broadcast_weights([weight])
    own = torch.full((rank + 1, 1), float(rank), requires_grad=True)
    rows = gather_rows(own, [1, 2])
    (rows * torch.tensor([[4.0, 4, 4] if rank else [1.0, 2, 3]]).T).sum().backward()
    return processes(), words, weight.tolist(), own.grad.tolist(), rows.tolist()


def test_a_single_process_gets_back_what_it_gave():
    vectors, labels = torch.randn(5, 2), {"target_modality": torch.tensor([1, 2])}
    assert processes() == (0, 1)
    assert gather_batch(vectors, labels) == (vectors, labels, slice(0, 2))
    assert gather_rows(vectors, [5]) is vectors
    assert gather_bytes(b"one") == [b"one"]


@pytest.mark.slow
def test_a_process_without_a_readable_pair_still_takes_part(corpus):
    from unite_core.data.bad_media import BadMediaError
    from unite_core.data.pairs import PairDataset
    from unite_core.model.embedder import UniteEmbedder
    from unite_core.train.collator import PairCollator
    from unite_core.train.trainer import PairModel

    embedder = UniteEmbedder.load(CHECKPOINT, "cpu")
    dataset = PairDataset([corpus / "pairs.jsonl"], corpus)
    bad = [dataset[14], dataset[15]]
    with pytest.raises(BadMediaError, match="0 pairs are left"):
        PairCollator(embedder.processor, corpus)(bad)
    batch = PairCollator(embedder.processor, corpus, fewest=0)(bad)
    assert len(batch["bad"]) == 2
    assert batch["target_modality"].dtype == batch["candidate_ids"].dtype == torch.int64
    vectors = PairModel(embedder)(batch["groups"], batch["order"])
    assert vectors.shape == (0, embedder.dim) and vectors.requires_grad
    stage_loss(STAGE_1, torch.cat([vectors, torch.eye(embedder.dim)[:4]]),
               {"target_modality": torch.tensor([1, 1]), "candidate_ids": torch.arange(2)},
               slice(0, 0)).backward()  # fmt: skip
    assert vectors.grad.shape == (0, embedder.dim), "its backward runs, as the collective needs"


ONE_NODE = str(Path(unite_core.__file__).parent / "train" / "recipes" / "launch" / "one_node.yaml")
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc-per-node=2", "--master-port={port}"],
    "accelerate": ["accelerate.commands.launch", "--config_file", ONE_NODE, "--num_processes=2",
                   "--main_process_port={port}"],
}  # fmt: skip


def launch(launcher, config, folder):
    """`python -m unite_core train` in two processes on the CPU; what they printed."""
    from unite_core.settings import write_config

    write_config(config, folder / "run.json")
    start = [part.format(port=free_port()) for part in LAUNCHERS[launcher]]
    command = [sys.executable, "-m", *start, "-m", "unite_core", "train", str(folder / "run.json")]
    settings = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings,
                          timeout=500)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Texts, pictures and hard negatives; one picture cannot be decoded."""
    from PIL import Image

    from unite_core.data.records import write_records

    root = tmp_path_factory.mktemp("corpus")
    records = []
    for number in range(16):
        colour = (16 * number, 255 - 16 * number, 40)
        Image.new("RGB", (56, 56), colour).save(root / f"{number}.png")
        caption, picture = {"text": f"colour {number}"}, {"image": f"{number}.png"}
        hard = {"negative": {"text": f"no colour {number}"}} if number < 5 else {}
        records += [{"query": caption, "candidate": picture},
                    {"query": picture, "candidate": caption} | hard]  # fmt: skip
    (root / "7.png").write_bytes((root / "7.png").read_bytes()[:60])
    write_records(root / "pairs.jsonl", records)
    return root


def config_of(corpus, output, batch_size, **stage):
    from unite_core.train.config import TrainConfig

    settings = {"name": "stage2", "batch_size": batch_size, "max_steps": 6, "save_steps": 3,
                "learning_rate": 5e-3, "lora_dropout": 0.0} | stage  # fmt: skip
    return TrainConfig(str(CHECKPOINT), str(corpus / "pairs.jsonl"), str(output), settings,
                       media_root=str(corpus), logging_steps=1, max_bad_share=0.1)  # fmt: skip


def logged(output):
    """history.json without the times."""
    rows = json.loads((output / "history.json").read_text())
    return [{k: v for k, v in row.items() if "second" not in k and "runtime" not in k}
            for row in rows]  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_what_one_trains(corpus, tmp_path):
    from unite_core.model.router import ModalityRouter
    from unite_core.train.run import train

    extra = {"router_weight": 0.3, "modality_weight": 0.2}
    train(config_of(corpus, tmp_path / "one", 12, **extra))
    config = config_of(corpus, tmp_path / "two", 6, **extra)
    config = replace(config, grad_cache=True, forward_items=3)
    output = launch("torchrun", config, tmp_path)
    assert output.split("\n")[-2:] == [str(tmp_path / "two" / "model"), ""], "printed once"
    one, two = logged(tmp_path / "one"), logged(tmp_path / "two")
    assert len(one) == len(two) == 7
    for first, second in zip(one, two, strict=True):
        assert first == pytest.approx(second, rel=1e-4, abs=1e-5)
    assert {"accuracy/text", "accuracy/image", "surviving_share", "router_accuracy", "router_loss",
            "modality_loss"} < {k for row in one for k in row}  # fmt: skip
    heads = [ModalityRouter.load(tmp_path / name / "model") for name in ("one", "two")]
    assert heads[0].weight.abs().max() > 1e-3
    torch.testing.assert_close(heads[0].weight, heads[1].weight, rtol=1e-3, atol=1e-5)
    skipped = [json.loads((tmp_path / n / "skipped.json").read_text()) for n in ("one", "two")]
    assert len(skipped[0]) == 2
    assert sorted(map(str, skipped[0])) == sorted(map(str, skipped[1]))
    checkpoint = {file.name for file in (tmp_path / "two" / "checkpoint-6").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth", "trained.safetensors"} < checkpoint


@pytest.mark.slow
def test_two_processes_go_on_exactly(corpus, tmp_path):
    from unite_core.model.embedder import UniteEmbedder

    config, output = config_of(corpus, tmp_path / "run", 4, lora_dropout=0.3), tmp_path / "run"
    launch("torchrun", config, tmp_path)
    history = logged(output)
    weights = UniteEmbedder.load(output / "model").state_dict()
    for gone in ("checkpoint-6", "model", "adapter"):
        shutil.rmtree(output / gone)
    launch("accelerate", config, tmp_path)
    assert logged(output)[:-1] == history[:-1]  # the last row sums up what the command did
    again = UniteEmbedder.load(output / "model").state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


@pytest.mark.slow
def test_one_process_goes_on_with_the_batches_of_two(corpus, tmp_path):
    from unite_core.train.run import train

    train(config_of(corpus, tmp_path / "one", 12))
    launch("torchrun", config_of(corpus, tmp_path / "two", 6), tmp_path)
    for gone in ("checkpoint-6", "model", "adapter"):
        shutil.rmtree(tmp_path / "two" / gone)
    with pytest.raises(ValueError, match="processes was 2, now 1; stage|stage.*processes was 2"):
        train(config_of(corpus, tmp_path / "two", 8))
    train(config_of(corpus, tmp_path / "two", 12))
    for first, second in zip(logged(tmp_path / "one"), logged(tmp_path / "two"), strict=True):
        assert first == pytest.approx(second, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_two_processes_score_held_out_data_alike(corpus, tmp_path):
    from unite_core.data.records import read_records, write_records
    from unite_core.evaluation.in_training import TrainingScores
    from unite_core.model.embedder import UniteEmbedder

    rows = [row for row in read_records(corpus / "pairs.jsonl") if "7.png" not in str(row)]
    write_records(tmp_path / "held_out.jsonl", rows)
    fields = {"eval_data": str(tmp_path / "held_out.jsonl"), "eval_steps": 2, "keep": "best",
              "eval_metric": "single_recall@10"}  # fmt: skip
    launch("torchrun", replace(config_of(corpus, tmp_path / "two", 6), **fields), tmp_path)
    name = "eval_single_recall@10"
    found = {row["step"]: row[name] for row in logged(tmp_path / "two") if name in row}
    assert list(found) == [0, 2, 4, 6] and len({*found.values()}) > 1
    embedder = UniteEmbedder.load(tmp_path / "two" / "model", "cpu")
    again = TrainingScores(tmp_path / "held_out.jsonl", corpus)(embedder)
    assert again["single_recall@10"] == pytest.approx(max(found.values()), abs=1e-6)
