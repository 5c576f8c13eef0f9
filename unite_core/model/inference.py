"""The items of a plan through the model: media are seen, then batches embedded.

Threads that share a matrix product wait for each other at the end of each, and while one decodes
the others have nothing to do. So on a CPU several batches are under way at once, each in a thread
of its own. What is computed together depends on the plan alone, so vectors do not change with the
order in which threads come.

Computations side by side in threads that share out torch's own threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data.items import ItemError
from ..data.media import MediaError
from .batching import BatchPlan
from .decoder import takes_visual_tokens
from .preprocessing import Pixels, Read, patches_of
from .processor import ItemPlan, Medium, naming
from .vision import visual_tokens

__all__ = ["Run", "embed_batches", "encode_media", "side_by_side"]


_STREAMS = 4  # batches at once; each may have several of torch's threads
_PATCHES_AT_ONCE = {"cpu": 1024, "cuda": 16384}  # a CPU is fastest with what its caches hold


def embed_batches(embedder, plan: BatchPlan, reads: Iterable[Read],
                  where: Sequence[str]) -> Iterator[tuple[list[int], np.ndarray]]:  # fmt: skip
    """Rows of `plan` and their vectors [rows, D] float32, batch by batch, in its order.

    Args
        embedder  a UniteEmbedder in evaluation mode
        reads     for each of `plan.reads`, what gives its pixels; called a little ahead
        where     how errors name the items
    Items that turn out to be bad get no vector and are put into `plan.bad`.
    """
    threads = torch.get_num_threads() if embedder.device.type == "cpu" else 1
    streams = max(1, min(_STREAMS, threads, len(plan.batches)))
    ahead = streams if streams > 1 else 0
    under_way: deque[Future] = deque()
    kept: dict[tuple, Future] = {}

    def taken(most: int) -> Iterator[tuple[list[int], np.ndarray]]:
        while len(under_way) > most:
            rows, vectors, bad = under_way.popleft().result()
            plan.bad.update(bad)
            yield rows, vectors

    with side_by_side(streams) as run:
        media = _encoding(embedder, plan, reads, run, ahead)
        for batch in plan.batches:
            kept |= {source.key: next(media) for source in batch.fresh}
            outlines = {row: plan.items[row] for row in batch.rows}
            keys = {source.key for outline in outlines.values() for source in outline.media}
            looked = {key: kept[key] for key in keys}
            under_way.append(run(_embed_batch, embedder, outlines, looked, where))
            for key in batch.done:
                del kept[key]
            yield from taken(ahead)
        yield from taken(0)


def encode_media(embedder, media: Sequence[Medium]) -> list[torch.Tensor]:
    """The visual tokens of each medium, on the model's device; several media at a time."""
    merged, seen = embedder.processor.layout.merge**2, []
    for some in _portions(media, lambda medium: len(medium[0]), embedder.device):
        patches, grids = zip(*some, strict=True)
        pixels, sizes = torch.cat(patches).to(embedder.device), torch.tensor(grids)
        tokens = visual_tokens(embedder.base.visual, pixels, sizes.to(embedder.device))
        seen += [one.clone() for one in tokens.split((sizes.prod(1) // merged).tolist())]
    return seen


class _Encoded(NamedTuple):
    medium: Medium  # visual tokens, or patches where the tower's output is more than tokens
    seconds: list[float]


def _encoding(embedder, plan: BatchPlan, reads: Iterable[Read], run: Run,
             ahead: int) -> Iterator[Future]:  # fmt: skip
    """For each of `plan.reads` its _Encoded, or what was wrong with it, to come.

    When one is handed out, `ahead` portions of media beyond its own have been started.
    """
    begun: deque[list[Future]] = deque()
    pairs = zip(plan.reads, reads, strict=True)
    for some in _portions(pairs, lambda pair: plan.patches[pair[0].key], embedder.device):
        begun.append([Future() for _ in some])
        run(_read_and_encode, embedder, [read for _, read in some], begun[-1])
        if len(begun) > ahead:
            yield from begun.popleft()
    for places in begun:
        yield from places


@torch.inference_mode()
def _read_and_encode(embedder, reads: Sequence[Read], places: Sequence[Future]) -> None:
    """Read media and look at them; each one's _Encoded, or what was wrong with it, to its place."""
    try:
        layout, read = embedder.processor.layout, [one() for one in reads]
        good = [one for one in read if isinstance(one, Pixels)]
        media = [patches_of(torch.from_numpy(one.frames).to(embedder.device), layout)
                 for one in good]  # fmt: skip
        sees = takes_visual_tokens(embedder.base)
        values = encode_media(embedder, media) if sees else [patches for patches, _ in media]
        found = iter([_Encoded((value, medium[1]), one.seconds)
                      for value, medium, one in zip(values, media, good, strict=True)])  # fmt: skip
    except BaseException as error:
        for place in places:
            place.set_exception(error)
        raise
    for one, place in zip(read, places, strict=True):
        place.set_result(next(found) if isinstance(one, Pixels) else one)


@torch.inference_mode()
def _embed_batch(embedder, outlines: Mapping[int, ItemPlan], looked: Mapping[tuple, Future],
                 where: Sequence[str]):  # fmt: skip
    """Rows and vectors of a batch's good items, and what is wrong with the others."""
    sees = takes_visual_tokens(embedder.base)
    encoded, bad = {}, {}
    for row, outline in outlines.items():
        found = [looked[source.key].result() for source in outline.media]
        try:
            with naming(where[row]):
                for error in (one for one in found if not isinstance(one, _Encoded)):
                    raise error
            media, seconds = [one.medium for one in found], [one.seconds for one in found]
            encoded[row] = embedder.processor.complete(outline, media, seconds, where[row], sees)
        except (ItemError, MediaError) as error:
            bad[row] = error
    if not encoded:
        return [], np.empty((0, embedder.dim), dtype=np.float32), bad
    batch = embedder.processor.collate(list(encoded.values()))
    vectors = embedder(**{name: value.to(embedder.device) for name, value in batch.items()})
    return list(encoded), vectors.cpu().numpy(), bad


def _portions(media: Iterable, patches: Callable[[Any], int],
              device: torch.device) -> Iterator[list]:  # fmt: skip
    """Consecutive media that are looked at together."""
    most = _PATCHES_AT_ONCE.get(device.type, _PATCHES_AT_ONCE["cpu"])
    some, count = [], 0
    for medium in media:
        some.append(medium)
        count += patches(medium)
        if count >= most:
            yield some
            some, count = [], 0
    if some:
        yield some


Run = Callable[..., Future]
"""Starts a call of its first argument with the others."""


@contextmanager
def side_by_side(count: int) -> Iterator[Run]:
    """Calls in `count` threads, each of which uses its share of torch's threads.

    With one thread a call is over when it has been started, and its errors are raised there. Calls
    that have not begun when the context is left are dropped.
    """
    if count == 1:
        yield _at_once
        return
    whole = torch.get_num_threads()
    pool = ThreadPoolExecutor(
        count, initializer=torch.set_num_threads, initargs=(max(1, whole // count),)
    )
    try:
        yield pool.submit
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(whole)  # each thread has its number, but new ones take the last set


def _at_once(call: Callable, *arguments) -> Future:
    future: Future = Future()
    future.set_result(call(*arguments))
    return future
