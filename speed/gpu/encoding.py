"""Part 3: encoding a mixed corpus beside transformers' plain forward and sentence-transformers."""

# Shapes: n items, D embedding size.

from __future__ import annotations

import copy
import importlib.util
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from encode import BATCH, plain

from unite_core.model.embedder import UniteEmbedder
from unite_core.model.loading import LoadConfig
from unite_core.search.config import EncodeConfig
from unite_core.search.encode import encode_corpus
from unite_core.search.shards import read_shard, shard_files

from .devices import kernels_of, release, synchronize
from .model import corpus, random_embedder
from .part import Report, Setup

__all__ = ["run"]


EXACT = 1e-4  # of float32 vectors
WORKERS = 8
WITH_WORKERS = f"ours, encode_corpus, {WORKERS} workers from their start"


def run(report: Report, setup: Setup) -> None:
    counts = (24, 8, 2) if setup.tiny else (500, 100, 20)
    items = corpus(setup.scratch, *counts)
    embedder = random_embedder(setup)
    report.row("corpus", texts=counts[0], images=counts[1], clips=counts[2],
               clips_are="files" if has("av") else "lists of pictures: av is missing",
               **padding(embedder, items))  # fmt: skip
    equality(report, setup, embedder, items)
    routes = routes_of(report, setup, embedder)
    rates(report, setup, routes, items)
    waiting(report, setup, routes, items)


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def padding(embedder, items: list[dict]) -> dict[str, float]:
    """Share of the tokens that is padding, in our batches and in fixed ones."""
    plan = embedder.plan(items, [f"item {n}" for n in range(len(items))], "/")
    processor, shapes = embedder.processor, {}
    lengths = [processor.count_tokens(item, "/", shapes=shapes) for item in plan.items]

    def share(groups) -> float:
        wide = sum(len(rows) * max(lengths[row] for row in rows) for rows in groups)
        return 1 - sum(lengths) / wide

    fixed = [range(n, min(n + BATCH, len(items))) for n in range(0, len(items), BATCH)]
    return {
        "tokens": sum(lengths),
        "batches": len(plan.batches),
        "padding_ours": share([batch.rows for batch in plan.batches]),
        "padding_fixed": share(fixed),
    }


def routes_of(report: Report, setup: Setup, embedder) -> dict[str, Callable]:
    """Functions of items that give vectors [n, D]."""
    folder = setup.scratch / "out"
    routes = {
        "ours, embed": lambda items: embedder.embed(items, "/", progress=False),
        WITH_WORKERS: lambda items: with_workers(
            embedder, items, folder, 1 if setup.tiny else WORKERS
        ),
        "transformers, fixed batches": lambda items: plain(embedder, items),
    }
    if has("sentence_transformers"):
        peer = exported(embedder, setup)
        routes["sentence-transformers encode"] = lambda items: peer.encode(
            items, batch_size=BATCH, show_progress_bar=False
        )
    else:
        report.note("sentence-transformers encode", "skipped: it is not installed")
    return routes


def with_workers(embedder, items: list[dict], folder: Path, workers: int) -> np.ndarray:
    """`encode_corpus` with processes that decode ahead; their start is part of the time."""
    shutil.rmtree(folder, ignore_errors=True)
    config = EncodeConfig("as given", str(folder), media_root="/")
    ahead = UniteEmbedder(embedder.backbone, embedder.processor, LoadConfig(workers=workers))
    encode_corpus(config, ahead, [(str(n), item) for n, item in enumerate(items)],
                  progress=False)  # fmt: skip
    return np.concatenate([read_shard(path).vectors for path in shard_files(folder)])


def exported(embedder, setup: Setup):
    """The same weights as a SentenceTransformer, by the module that exported folders hold."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.normalize import Normalize

    from unite_core.export.st_module import UniteTransformer

    modules = [UniteTransformer(embedder.backbone, embedder.processor), Normalize()]
    return SentenceTransformer(modules=modules, device=str(setup.device))


def equality(report: Report, setup: Setup, embedder, items: list[dict]) -> None:
    """Vectors of ours against transformers' plain forward of one item at a time, in float32.

    The weights' own precision is then compared with that: ours may err as the plain forward does.
    """
    sample = chosen(items, 8 if setup.tiny else 24)
    exact = UniteEmbedder(copy.deepcopy(embedder.backbone).float(), embedder.processor).eval()
    torch.backends.cudnn.allow_tf32 = False  # of the convolution in the plain forward
    alone = np.concatenate([plain(exact, [item]) for item in sample])
    together = exact.embed(sample, "/", progress=False)
    torch.backends.cudnn.allow_tf32 = True
    del exact
    release(setup.device)
    cosines = alone @ alone.T - np.eye(len(alone))
    spread = float(cosines.sum() / (len(alone) * (len(alone) - 1)))
    report.check("float32, ours against plain one by one", np.abs(together - alone).max(), EXACT,
                 cosine_of_different_items=spread)  # fmt: skip
    ours_off = 1 - (embedder.embed(sample, "/", progress=False) * alone).sum(1)
    plain_off = 1 - (plain(embedder, sample) * alone).sum(1)
    report.check("bfloat16, 1 - cosine with float32", ours_off.max(), 2 * plain_off.max() + 1e-4,
                 plain=float(plain_off.max()))  # fmt: skip


def chosen(items: list[dict], count: int) -> list[dict]:
    """Some items of each kind."""
    kinds = [[item for item in items if key in item] for key in ("text", "image", "video")]
    return [item for kind in kinds for item in kind[: count // 3]]


def rates(report: Report, setup: Setup, routes: dict, items: list[dict]) -> None:
    """Items per second of each route after a first call on a few items."""
    few, expected, first = chosen(items, 12), None, None
    for name, route in routes.items():
        if name != WITH_WORKERS:  # it has the same model, and its start takes seconds
            route(few)
    for name, route in routes.items():
        if setup.left() < 12:
            report.note(name, "not run: no time was left")
            continue
        synchronize(setup.device)
        start = time.perf_counter()
        vectors = route(items)
        synchronize(setup.device)
        seconds = time.perf_counter() - start
        if expected is None:
            expected, first = vectors, seconds
        off = float((1 - (vectors * expected).sum(1)).max())
        report.check(name, off, 0.05, items_s=len(items) / seconds, seconds=seconds,
                     times_embed=seconds / first)  # fmt: skip


def waiting(report: Report, setup: Setup, routes: dict, items: list[dict]) -> None:
    """Share of the time in which the device has nothing to do, on a part of the corpus."""
    part = items[:100]
    for name, route in routes.items():
        if name == WITH_WORKERS:
            continue  # on so few items it would show their start
        if setup.left() < 12:
            report.note(f"waiting: {name}", "not run: no time was left")
            continue
        found = kernels_of(lambda route=route: route(part), setup.device)
        longest = ", ".join(f"{kernel[:40]} {seconds / found.seconds:.0%}"
                            for kernel, seconds in found.spent.most_common(4))  # fmt: skip
        report.row(f"waiting: {name}", device_waits=found.waits, seconds=found.seconds,
                   kernels=found.count, longest=longest)  # fmt: skip
