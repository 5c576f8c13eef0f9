"""Time of a training step of unite-tiny on mixed batches beside the plain route, in one run.

    python speed/train_step.py [--root data/emoji] [--steps 3] [--repeats 3]

A step is collating, forward, loss and backward of 64 pairs of text, images and clips with LoRA on
the language model and a frozen tower, for both stages. All routes get the same pairs and adapters
and must return the same loss (checked to 1e-4). Decoded items are cached in every route, so none
pays for reading files. Repeats are interleaved: one of each route, then again.

sentence-transformers' trainer does its own `training_step` on the module that
`unite_core.export.sentence_transformers` ships. It knows no MAMCL, so in stage 2 it trains InfoNCE
and must return that loss.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from _report import RESULTS, machine, spread, table, versions, write_section

from unite_core import UniteEmbedder
from unite_core.corpora.emoji.pairs import WEIGHTS
from unite_core.data.pairs import PairDataset
from unite_core.model.lora import fused_lora
from unite_core.tiny import TINY_STAGE_1, TINY_STAGE_2
from unite_core.tiny.model import TINY
from unite_core.train.collator import PairCollator
from unite_core.train.config import StageConfig
from unite_core.train.gradcache import embed_groups
from unite_core.train.losses import stage_loss
from unite_core.train.sampler import PairSampler

Batch = list  # of pairs
FORWARD = 32  # items in a forward, of ours and of the cached peer
PEER = ("sentence-transformers", "datasets")


def adapted(stage: StageConfig) -> UniteEmbedder:
    """unite-tiny with an adapter whose update is not zero."""
    embedder = UniteEmbedder.load(TINY)
    embedder.attach_lora(stage.lora_rank, stage.lora_alpha, stage.lora_dropout, seed=0)
    torch.manual_seed(0)
    for name, weight in embedder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    return embedder.train()


def kept(embedder: UniteEmbedder, root: Path) -> Callable[[list], list]:
    """Items -> encoded items, each decoded once."""
    collator = PairCollator(embedder.processor, root, cache_mib=4096)

    def encode(items):
        encoded: dict = {}
        keys = [collator._encode(item, "item", encoded) for item in items]
        collator._keep(encoded)
        return [encoded[key] for key in keys]

    return encode


def plain(embedder: UniteEmbedder, stage: StageConfig, root: Path) -> Callable[[Batch], float]:
    """transformers' own forward, queries and candidates apart, each padded to its longest; dense
    loss with a mask, as the released code has it.
    """
    encode = kept(embedder, root)

    def side(items):
        batch = embedder.processor.collate(encode(items))
        ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
        positions = (mask.cumsum(1) - 1).clamp(min=0).expand(3, -1, -1)
        hidden = embedder.backbone(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, **batch
        ).last_hidden_state[:, -1]
        return torch.nn.functional.normalize(hidden.float(), dim=-1)

    def step(pairs: Batch) -> float:
        query, candidate = (side([pair[place] for pair in pairs]) for place in (0, 1))
        loss = dense(query, candidate, stage, pairs)
        loss.backward()
        return float(loss.detach())

    return step


def dense(query, candidate, stage: StageConfig, pairs: Batch) -> torch.Tensor:
    """The released arithmetic: all scores, then the mask; equal candidates were left out."""
    modality = torch.tensor([pair.target_modality for pair in pairs])
    scores = query @ candidate.T / stage.temperature
    if stage.loss == "mamcl":
        mask = (modality[:, None] == modality).float()
        scores = scores * mask + (1 - mask) * -1e9
    own = torch.arange(len(pairs))
    loss = torch.nn.functional.cross_entropy(scores, own)
    if stage.symmetric:
        loss = (loss + torch.nn.functional.cross_entropy(scores.T, own)) / 2
    return loss


def ours(embedder: UniteEmbedder, stage: StageConfig, root: Path, see: bool = False,
         cached: bool = False) -> Callable[[Batch], float]:  # fmt: skip
    """`UniteTrainer`'s way, with or without the frozen tower's tokens kept and GradCache."""
    encode_vision = embedder.encode_vision if see else None
    collator = PairCollator(embedder.processor, root, FORWARD, 4096, encode_vision)
    weight = next(embedder.parameters())

    def step(pairs: Batch) -> float:
        batch = collator(pairs)
        with fused_lora(embedder):
            vectors = embed_groups(embedder, batch["groups"], weight, cached)[batch["order"]]
            loss = stage_loss(stage, vectors, batch)
            loss.backward()
        return float(loss.detach())

    return step


def peer(embedder: UniteEmbedder, stage: StageConfig, root: Path, output: str,
         cached: bool) -> Callable[[Batch], float]:  # fmt: skip
    """sentence-transformers' trainer with its ranking loss, plain or cached (two forwards)."""
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.sentence_transformer import losses

    from unite_core.export.st_module import UniteTransformer

    encode = kept(embedder, root)

    class Kept(UniteTransformer):
        def preprocess(self, inputs, prompt=None, **_):
            return self.collate(encode(inputs))

    module = Kept(embedder.backbone, embedder.processor)
    model = SentenceTransformer(modules=[module, Normalize()], device="cpu")
    both = stage.symmetric
    options = {
        "scale": 1 / stage.temperature,
        "directions": ("query_to_doc", "doc_to_query") if both else ("query_to_doc",),
        "partition_mode": "per_direction" if both else "joint",
    }
    if cached:
        loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=FORWARD, **options)
    else:
        loss = losses.MultipleNegativesRankingLoss(model, **options)
    arguments = SentenceTransformerTrainingArguments(output, use_cpu=True, report_to="none")
    trainer = SentenceTransformerTrainer(model, arguments, loss=loss)
    trainer.current_gradient_accumulation_steps = 1  # its `train` would set it

    def step(pairs: Batch) -> float:
        rows = [{"query": pair.query, "candidate": pair.candidate} for pair in pairs]
        return float(trainer.training_step(trainer.model, trainer.data_collator(rows)))

    return step


def distinct(pairs: Batch) -> Batch:
    """Pairs without a repeated candidate, so that every route has the same negatives."""
    return list({repr(pair.candidate): pair for pair in pairs}.values())


def measure(stage: StageConfig, root: Path, steps: int, repeats: int) -> list[list[str]]:
    dataset = PairDataset([root / f"{stage.name}.jsonl"], root)
    weights = WEIGHTS[stage.name] if root.name.startswith("emoji") else {}
    sampler = PairSampler(dataset, stage.batch_size, steps, weights)
    batches = [distinct([dataset[index] for index in rows]) for rows in sampler]
    embedder = adapted(stage)
    unmasked = replace(stage, loss="info_nce")
    routes = {
        "plain": plain(embedder, stage, root),
        "ours, tower in every step": ours(embedder, stage, root),
        "ours, tower once per picture (cache_vision)": ours(embedder, stage, root, see=True),
        "ours, GradCache": ours(embedder, stage, root, cached=True),
    }
    with tempfile.TemporaryDirectory() as output:
        peers = peers_of(embedder, unmasked, root, output)
        check(routes, plain(embedder, stage, root), batches)
        check(peers, plain(embedder, unmasked, root), batches)
        seconds = timed(routes | peers, batches, repeats, embedder)
    ratios = {n: [p / o for p, o in zip(seconds["plain"], times, strict=True)]
              for n, times in seconds.items()}  # fmt: skip
    rows = [[f"{stage.name}, {n}", spread(seconds[n]), spread(ratios[n])] for n in seconds]
    return rows + [[f"{stage.name}, {name} missing", "-", "-"] for name in missing()]


def peers_of(embedder, stage: StageConfig, root: Path, output: str) -> dict[str, Callable]:
    """The peer's two losses; none where it is not installed."""
    ways = {} if missing() else {"MNRL": False, f"CachedMNRL({FORWARD})": True}
    return {f"sentence-transformers' trainer, {name}": peer(embedder, stage, root, output, cached)
            for name, cached in ways.items()}  # fmt: skip


def missing() -> list[str]:
    """Packages of the peer that are not installed."""
    return [name for name in PEER if importlib.util.find_spec(name.replace("-", "_")) is None]


def check(routes: dict[str, Callable], wanted: Callable, batches: list[Batch]) -> None:
    """Every route's losses are those of `wanted`; this warms caches, too."""
    losses = [wanted(pairs) for pairs in batches]
    for name, step in routes.items():
        found = [step(pairs) for pairs in batches]
        worst = max(abs(a - b) for a, b in zip(found, losses, strict=True))
        if not worst < 1e-4 * max(1.0, *losses):
            raise SystemExit(f"{name}: losses {found}, not {losses}")


def timed(routes: dict, batches: list[Batch], repeats: int, embedder) -> dict[str, list[float]]:
    """Seconds a step of each route, one number per repeat."""
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(repeats):
        for name, step in routes.items():
            start = time.perf_counter()
            for pairs in batches:
                step(pairs)
            seconds[name].append((time.perf_counter() - start) / len(batches))
            embedder.zero_grad()
    return seconds


def read_options(about: str) -> argparse.Namespace:
    """The options of a measurement of training steps: corpus, steps, repeats, where results go."""
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("data/emoji"))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not (options.root / "stage2.jsonl").is_file():
        raise SystemExit(f"{options.root} holds no corpus: run `make run` once, or name another")
    return options


def main() -> None:
    options = read_options(__doc__)
    rows = []
    for stage in (TINY_STAGE_1, TINY_STAGE_2):
        rows += measure(stage, options.root, options.steps, options.repeats)
    text = f"""## Training step (`speed/train_step.py`)

{machine()}; {versions("transformers", "peft", *PEER)}. Corpus {options.root.name}, batches of 64
pairs less repeated candidates, {options.steps} different batches, {options.repeats} interleaved
repeats. Median [lowest, highest]. The peer trains InfoNCE in stage 2 (it has no MAMCL) and loses no
time on the optimizer; its cached loss and our GradCache run every forward twice.

{table(["route", "seconds a step", "times faster than plain"], rows)}"""
    write_section("train_step", text, options.output)
    print(text)


if __name__ == "__main__":
    main()
