"""Pairs turned into training batches: encoded items in groups of similar length, and labels.

A batch holds B pairs. Their items (B queries, B candidates, K hard negatives) are sorted by length
and cut into groups that share a forward, so that short texts are not padded to the longest clip.

A pair with a media file that cannot be read, or an item that does not fit, is left out of its batch
and reported with it, never replaced by another.
"""

# Shapes: B pairs in a batch, K hard negatives, N = 2 B + K items.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..data.bad_media import BadMediaError, BadMediaRow, list_bad
from ..data.items import ItemError
from ..data.media import MediaError
from ..data.modality import modality_of
from ..data.pairs import Pair, content_number
from ..data.records import content_id
from ..model.processor import Encoded, Processor
from ..model.vision_store import VisionStore

__all__ = ["PairCollator", "group_sizes"]


_GROUP = 256  # tokens that take as long as starting another forward and backward


class PairCollator:
    """Collate pairs into one batch for the trainer.

        {"groups": list of `Processor.collate` batches,
         "order": [N] row of each item in the concatenated groups; queries, candidates, negatives,
         "target_modality", "candidate_ids": [B] int64; equal content or group has equal ids,
         "negative_modality", "negative_ids": [K] int64, only if there are hard negatives,
         "candidate_scores": [B], "negative_scores", "negative_owner": [K], only if `scored`,
         "source": list of B names, "bad": list of BadMediaRow that were left out}

    Args
        forward_items  items per group at most
        cache_mib      memory for encoded items; 0 encodes each one every time
        encode_vision  that of a UniteEmbedder with a frozen tower: caches visual tokens, not pixels
        forward_tokens  tokens per group at most, see `group_sizes`; `packed`, too
        fewest         pairs that must be left in a batch; 0 where it is only a process's part
        identities     `PairDataset.identity_of`: which contents are of a group
        store          visual tokens computed before; other media go through `encode_vision`
        scored         whether all records have a teacher's scores
    Raises BadMediaError where fewer are left.
    """

    def __init__(self, processor: Processor, media_root: str | Path = ".",
                 forward_items: int = 32, cache_mib: int = 0,
                 encode_vision: Callable[[list[Encoded]], list[Encoded]] | None = None,
                 fewest: int = 2, forward_tokens: int | None = None,
                 identities: Mapping[int, int] | None = None,
                 store: VisionStore | None = None, scored: bool = False,
                 packed: bool = False):  # fmt: skip
        self.scored, self.packed = scored, packed
        self.identities, self.store = identities or {}, store
        self.fewest, self.forward_tokens = fewest, forward_tokens
        self.processor, self.media_root = processor, media_root
        self.forward_items, self.encode_vision = forward_items, encode_vision
        self.cache = _Cache(cache_mib * 2**20)

    def __call__(self, pairs: Sequence[Pair]) -> dict:
        good, keys, bad = [], [], []
        encoded: dict[tuple, Encoded] = {}  # of this batch
        for pair in pairs:
            try:
                items = (pair.query, pair.candidate, *pair.negatives)
                keys.append([self._encode(item, pair.where, encoded) for item in items])
                good.append(pair)
            except (MediaError, ItemError) as error:
                bad.append(BadMediaRow.from_error(pair.where, error))
        if len(good) < self.fewest:
            raise BadMediaError(f"{len(good)} pairs are left in a batch\n{list_bad(bad)}")
        self._keep(encoded)
        order = [query for query, *_ in keys] + [candidate for _, candidate, *_ in keys]
        order += [negative for _, _, *negatives in keys for negative in negatives]
        groups, places = self._groups([encoded[key] for key in order])
        labels = _labels(good, self.identities) | (_scores(good) if self.scored else {})
        return {"groups": groups, "order": places, "bad": bad, **labels}

    def _encode(self, item: dict, where: str, encoded: dict[tuple, Encoded]) -> tuple:
        """Encode an item, unless it is in `encoded` or cached; returns its key in `encoded`."""
        # the prompt follows the order of the item's keys
        key = (content_id(item), item.get("instruction"), *item)
        if key not in encoded:
            known = self.cache.get(key) or self._stored(item, where)
            encoded[key] = known or self.processor.encode(item, self.media_root, where)
        return key

    def _stored(self, item: dict, where: str) -> Encoded | None:
        if self.store is None:
            return None
        return self.store.complete(self.processor, self.processor.plan_item(item, where), where)

    def _keep(self, encoded: dict[tuple, Encoded]) -> None:
        """Cache what was newly encoded, as visual tokens where `encode_vision` is given."""
        fresh = [key for key in encoded if key not in self.cache.items]
        pixels = [key for key in fresh if not encoded[key].has_features]
        if self.encode_vision and pixels:
            features = self.encode_vision([encoded[key] for key in pixels])
            encoded |= dict(zip(pixels, features, strict=True))
        for key in fresh:
            self.cache.put(key, encoded[key])

    def _groups(self, items: Sequence[Encoded]) -> tuple[list[dict], Tensor]:
        """Groups of items of similar length, and the row of each item in them."""
        lengths = torch.tensor([len(item.input_ids) for item in items], dtype=torch.long)
        by_length = lengths.argsort(stable=True)
        ascending = lengths[by_length].tolist()
        sizes = group_sizes(ascending, self.forward_items, self.forward_tokens, self.packed)
        cuts = by_length.split(sizes)
        groups = [self.processor.collate([items[i] for i in rows], raw=True) for rows in cuts]
        return groups, by_length.argsort()


def group_sizes(lengths: Sequence[int], items: int, tokens: int | None = None,
                packed: bool = False) -> list[int]:  # fmt: skip
    """Sizes of groups of consecutive items, whose lengths ascend.

    Args
        items   of a group at most
        tokens  of a group at most; a longer item is a group alone. None: groups of `items`
        packed  nothing is padded
    With `tokens` the fewest padded tokens are computed, where a group costs as much as `_GROUP`.

    >>> group_sizes([10, 12, 400, 401], items=3), group_sizes([10, 12, 400, 401], 3, tokens=2000)
    ([3, 1], [2, 2])
    """
    if tokens is None:
        whole, rest = divmod(len(lengths), items)
        return [items] * whole + [rest] * bool(rest)
    least, sizes = [0], []  # cost of the first n items, and the size of their last group
    for end, longest in enumerate(lengths, 1):
        best = None
        computed = 0
        for size in range(1, min(items, end) + 1):
            computed = computed + lengths[end - size] if packed else size * longest
            if size > 1 and computed > tokens:
                break
            cost = least[end - size] + computed + _GROUP
            best = min(best or (cost, size), (cost, size))
        least.append(best[0])
        sizes.append(best[1])
    groups, end = [], len(lengths)
    while end:
        groups.append(sizes[end - 1])
        end -= groups[-1]
    return groups[::-1]


class _Cache:
    """Encoded items by key, until the budget is used up; nothing is evicted."""

    def __init__(self, budget: int):
        self.left = budget  # bytes
        self.items: dict[tuple, Encoded] = {}

    def get(self, key: tuple) -> Encoded | None:
        return self.items.get(key)

    def put(self, key: tuple, encoded: Encoded) -> None:
        size = 64 * len(encoded.input_ids)  # a list of Python integers, and what holds it
        size += sum(patches.nbytes for patches, _ in (*encoded.images, *encoded.videos))
        if size <= self.left:
            self.left -= size
            self.items[key] = encoded


def _labels(pairs: Sequence[Pair], identities: Mapping[int, int]) -> dict:
    codes = [pair.target_modality for pair in pairs]
    numbers = [content_number(pair.candidate) for pair in pairs]
    ids = [
        identities.get(number, pair.groups[1] or number)
        for number, pair in zip(numbers, pairs, strict=True)
    ]
    negatives = [negative for pair in pairs for negative in pair.negatives]
    labels = {
        "source": [pair.source for pair in pairs],
        "target_modality": torch.tensor(codes, dtype=torch.long),
        "candidate_ids": torch.tensor(ids, dtype=torch.long),
    }
    if negatives:
        numbers = [content_number(item) for item in negatives]
        ids = [identities.get(number, number) for number in numbers]
        labels["negative_modality"] = torch.tensor([int(modality_of(item)) for item in negatives])
        labels["negative_ids"] = torch.tensor(ids)
    return labels


def _scores(pairs: Sequence[Pair]) -> dict:
    """A teacher's scores of candidates and hard negatives, and whose these are."""
    labels = {"candidate_scores": torch.tensor([pair.scores[0] for pair in pairs])}
    negatives = [score for pair in pairs for score in pair.scores[1:]]
    if negatives:
        owner = [row for row, pair in enumerate(pairs) for _ in pair.negatives]
        labels |= {"negative_scores": torch.tensor(negatives)}
        labels |= {"negative_owner": torch.tensor(owner, dtype=torch.long)}
    return labels
