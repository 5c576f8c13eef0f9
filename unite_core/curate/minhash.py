"""Groups of texts that say the same in nearly the same words: MinHash, checked by counting."""

# Shapes: N texts.

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from .item_groups import connect, renumber

__all__ = ["normal_text", "text_groups"]


THRESHOLD = 0.8
_SHINGLE = 4  # characters
_BANDS, _ROWS = 32, 4  # found: 1 - (1 - .8^4)^32 of pairs at similarity .8
_SEED = 20250519
_MOST = 64  # texts of a bucket that are compared each with each; further ones with these only


def normal_text(text: str) -> str:
    """The text in one Unicode form, lower case, words and numbers separated by single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded)) or folded.strip()


def text_groups(texts: Sequence[str], threshold: float = THRESHOLD) -> np.ndarray:
    """int64 [N], equal for texts alike in the share of character 4-grams that they have in common.

        similarity = |A and B| / |A or B|,   A, B: 4-grams of `normal_text` with a space around it

    Args
        threshold  in (0, 1]  pairs at least this similar are linked; chains of links make a group
    Case, punctuation and spacing do not count. Candidates come from MinHash (datasketch: 128
    permutations in 32 bands) and are then counted, so no pair below the threshold is ever linked
    by itself; a pair at .8 is missed with probability 5e-8, one at .5 with .13.
    Short captions differ in one word and in meaning and still share most 4-grams: join this with
    the groups of their media before a row is dropped.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is a share above 0 and at most 1, not {threshold}")
    plain = [normal_text(text) for text in texts]
    distinct = list(dict.fromkeys(plain))
    number = {text: index for index, text in enumerate(distinct)}
    groups = np.arange(len(distinct))
    if threshold < 1:
        shingles = [_shingles(text) for text in distinct]
        groups = connect(len(distinct), _similar(shingles, threshold))
    return renumber(groups[[number[text] for text in plain]]) if plain else groups


def _shingles(text: str) -> frozenset[str]:
    padded = f" {text} "
    return frozenset(padded[at : at + _SHINGLE] for at in range(max(len(padded) - _SHINGLE, 0) + 1))


def _similar(shingles: list[frozenset[str]], threshold: float) -> Iterator[tuple]:
    for pairs in _candidates(shingles):
        near = [pair for pair in pairs if _jaccard(*(shingles[row] for row in pair)) >= threshold]
        if near:
            yield tuple(np.array(near, np.int64).T)


def _candidates(shingles: list[frozenset[str]]) -> Iterator[Iterable[tuple[int, int]]]:
    """Pairs of texts that agree in a band of their MinHash, band by band, each pair once."""
    signatures = _signatures(shingles)
    seen: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        buckets = defaultdict(list)
        rows = np.ascontiguousarray(signatures[:, band * _ROWS : (band + 1) * _ROWS])
        for row, key in enumerate(rows.view(f"V{rows.itemsize * _ROWS}").ravel().tolist()):
            buckets[key].append(row)
        fresh = {pair for rows in buckets.values() for pair in _pairs(rows)} - seen
        seen |= fresh
        yield fresh


def _pairs(rows: list[int]) -> Iterator[tuple[int, int]]:
    yield from combinations(rows[:_MOST], 2)
    yield from ((first, row) for row in rows[_MOST:] for first in rows[:_MOST])


def _signatures(shingles: list[frozenset[str]]) -> np.ndarray:
    """[N, 128] MinHash values of sets of strings."""
    from datasketch import MinHash

    sketch = MinHash(num_perm=_BANDS * _ROWS, seed=_SEED, hashfunc=_string_hash)
    signatures = np.empty((len(shingles), _BANDS * _ROWS), sketch.hashvalues.dtype)
    for row, one in enumerate(shingles):
        sketch.clear()
        sketch.update_batch(list(one))
        signatures[row] = sketch.hashvalues
    return signatures


def _string_hash(text: str) -> int:
    import zlib

    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)
