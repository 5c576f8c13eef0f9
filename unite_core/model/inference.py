"""Run a plan of batches through the model: vision tower first, then the language model.

Threads that share a matrix product wait for each other at its end, and have nothing to do while one
decodes. So on a CPU several batches run at once, each in a thread with its share of torch's
threads. On a GPU two do, and only one of them computes: while it waits for the device, the other
reads, cuts patches and copies. The plan alone decides what is computed together, so vectors do not
depend on timing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data.items import ItemError
from ..data.media import MediaError
from .batching import BatchPlan
from .decoder import takes_visual_tokens
from .preprocessing import Pixels, Read, normalised, patches_of
from .processor import ItemPlan, MediaTensor, naming_item
from .threads import Run, side_by_side
from .vision import media_tokens

__all__ = ["embed_batches", "encode_media"]


_TOGETHER = ("cpu",)  # devices on which several batches are computed at once
_STREAMS = 4  # batches at once on a CPU; each may use several of torch's threads
_PATCHES_AT_ONCE = {"cpu": 1024, "cuda": 16384}  # a CPU is fastest with what its caches hold


def embed_batches(embedder, plan: BatchPlan, reads: Iterable[Read],
                  where: Sequence[str]) -> Iterator[tuple[list[int], np.ndarray]]:  # fmt: skip
    """Yield rows of `plan` and their vectors [rows, D] float32, batch by batch, in its order.

    Args
        embedder  a UniteEmbedder in evaluation mode
        reads     a function per entry of `plan.reads` that gives its pixels; called a little ahead
        where     how errors name the items
    Items that turn out to be bad get no vector and are added to `plan.bad`.
    """
    together = embedder.device.type in _TOGETHER
    streams = max(1, min(_STREAMS, torch.get_num_threads() if together else 2, len(plan.batches)))
    device = nullcontext() if together else Lock()  # held by the thread that computes
    ahead = streams if streams > 1 else 0
    under_way: deque[Future] = deque()
    kept: dict[tuple, Future] = {}

    def finished(limit: int) -> Iterator[tuple[list[int], np.ndarray]]:
        while len(under_way) > limit:
            rows, vectors, bad = under_way.popleft().result()
            plan.bad.update(bad)
            yield rows, vectors

    with side_by_side(streams) as run:
        media = _encoding(embedder, plan, reads, run, ahead, device)
        for batch in plan.batches:
            kept |= {source.key: next(media) for source in batch.fresh}
            items = {row: plan.items[row] for row in batch.rows}
            keys = {source.key for item in items.values() for source in item.media}
            media_of_batch = {key: kept[key] for key in keys}
            under_way.append(run(_embed_batch, embedder, items, media_of_batch, where, device))
            for key in batch.done:
                del kept[key]
            yield from finished(ahead)
        yield from finished(0)


def encode_media(embedder, media: Sequence[MediaTensor]) -> list[torch.Tensor]:
    """Visual tokens of each image or video, on the model's device; several go through together."""
    layout, features = embedder.processor.layout, []
    for portion in _portions(media, lambda entry: len(entry[0]), embedder.device):
        patches, grids = zip(*portion, strict=True)
        pixels, sizes = torch.cat(patches).to(embedder.device), torch.tensor(grids)
        pixels = normalised(pixels, layout)
        tokens = media_tokens(embedder.base, pixels, sizes.to(embedder.device))
        counts = (sizes.prod(1) // layout.merge**2).tolist()
        features += [part.clone() for part in tokens.split(counts)]
    return features


class _Encoded(NamedTuple):
    media: MediaTensor  # visual tokens, or patches where the tower gives more than tokens
    seconds: list[float]


def _encoding(embedder, plan: BatchPlan, reads: Iterable[Read], run: Run,
             ahead: int, device) -> Iterator[Future]:  # fmt: skip
    """Yield a future _Encoded or error for each of `plan.reads`, `ahead` portions started."""
    begun: deque[list[Future]] = deque()
    pairs = zip(plan.reads, reads, strict=True)
    for portion in _portions(pairs, lambda pair: plan.patches[pair[0].key], embedder.device):
        begun.append([Future() for _ in portion])
        run(_read_and_encode, embedder, [read for _, read in portion], begun[-1], device)
        if len(begun) > ahead:
            yield from begun.popleft()
    for places in begun:
        yield from places


@torch.inference_mode()
def _read_and_encode(embedder, reads: Sequence[Read], places: Sequence[Future], device) -> None:
    """Read and encode media; put the _Encoded, or the error, of each into its place."""
    try:
        layout, results = embedder.processor.layout, [read() for read in reads]
        good = [pixels for pixels in results if isinstance(pixels, Pixels)]
        with device:
            media = [
                patches_of(torch.from_numpy(pixels.frames).to(embedder.device), layout)
                for pixels in good
            ]
            if takes_visual_tokens(embedder.base):
                values = encode_media(embedder, media)
            else:
                values = [patches for patches, _ in media]
        encoded = iter(
            [
                _Encoded((value, grid), pixels.seconds)
                for value, (_, grid), pixels in zip(values, media, good, strict=True)
            ]
        )
    except BaseException as error:
        for place in places:
            place.set_exception(error)
        raise
    for result, place in zip(results, places, strict=True):
        place.set_result(next(encoded) if isinstance(result, Pixels) else result)


@torch.inference_mode()
def _embed_batch(embedder, items: Mapping[int, ItemPlan], media: Mapping[tuple, Future],
                 where: Sequence[str], device):  # fmt: skip
    """Rows and vectors of a batch's good items, and the errors of the others."""
    has_features = takes_visual_tokens(embedder.base)
    encoded, bad = {}, {}
    for row, item in items.items():
        found = [media[source.key].result() for source in item.media]
        try:
            with naming_item(where[row]):
                for error in (result for result in found if not isinstance(result, _Encoded)):
                    raise error
            tensors, seconds = [part.media for part in found], [part.seconds for part in found]
            encoded[row] = embedder.processor.complete(
                item, tensors, seconds, where[row], has_features
            )
        except (ItemError, MediaError) as error:
            bad[row] = error
    if not encoded:
        return [], np.empty((0, embedder.dim), dtype=np.float32), bad
    batch = embedder.processor.collate(list(encoded.values()), raw=True)
    with device:
        vectors = embedder(**{name: value.to(embedder.device) for name, value in batch.items()})
    return list(encoded), vectors.cpu().numpy(), bad


def _portions(entries: Iterable, patches: Callable[[Any], int],
              device: torch.device) -> Iterator[list]:  # fmt: skip
    """Group consecutive entries that go through the vision tower together."""
    limit = _PATCHES_AT_ONCE.get(device.type, _PATCHES_AT_ONCE["cpu"])
    portion, count = [], 0
    for entry in entries:
        portion.append(entry)
        count += patches(entry)
        if count >= limit:
            yield portion
            portion, count = [], 0
    if portion:
        yield portion
