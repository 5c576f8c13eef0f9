"""Groups of near-duplicate texts: candidates from MinHash, verified by exact Jaccard similarity."""

# Shapes: N texts.

from __future__ import annotations

import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from .item_groups import renumber, stars

__all__ = ["normal_text", "text_groups", "text_links"]


THRESHOLD = 0.8
_SHINGLE = 4  # characters
_BANDS, _ROWS = 32, 4  # finds a share 1 - (1 - .8^4)^32 of pairs at similarity .8
_SEED = 20250519
_BUCKET = 64  # texts of a bucket that are all compared; further ones with these only


def normal_text(text: str) -> str:
    """Normalize a text: NFKC, lower case, words and numbers separated by single spaces.

    >>> normal_text("A  red circle, on White!"), normal_text("हिन्दी: भाषा")
    ('a red circle on white', 'हिन्दी भाषा')
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_KEPT).split()) or folded.strip()


class _Kept(dict):
    """Translation that keeps letters, numbers and their marks: vowels of Devanagari are marks."""

    def __missing__(self, code: int) -> int | None:
        character, kind = chr(code), unicodedata.category(chr(code))
        kept = character.isalnum() or kind[0] == "M" or character == "_"
        self[code] = code if kept else (None if kind == "Cf" else 0x20)  # joiners are invisible
        return self[code]


_KEPT = _Kept()


def text_groups(texts: Sequence[str], threshold: float = THRESHOLD) -> np.ndarray:
    """Group texts, int64 [N], by Jaccard similarity of their character 4-grams.

        similarity = |A and B| / |A or B|,   A, B: 4-grams of `normal_text`, padded with a space

    Args
        threshold  in (0, 1]  every text is at least this similar to the centre of its group
    Case, punctuation and spacing do not count. Candidates come from MinHash (datasketch, 128
    permutations in 32 bands) and are then compared exactly, so no pair below the threshold is
    linked directly; a pair at .8 is missed with probability 5e-8, at .5 with .13.
    Short captions can share most 4-grams and mean different things: require similar media, too,
    before a record is dropped.

    >>> text_groups(["A dog runs on the beach.", "a dog runs on the beach", "a cat sleeps"])
    array([0, 0, 1])
    """
    equal, links = text_links(texts, threshold)
    return renumber(stars(int(equal.max(initial=-1)) + 1, links)[equal])


def text_links(
    texts: Sequence[str], threshold: float = THRESHOLD
) -> tuple[np.ndarray, Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Numbers int64 [N], equal for equal `normal_text`, and blocks of pairs of similar numbers."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is a share above 0 and at most 1, not {threshold}")
    number: dict[str, int] = {}
    equal = [number.setdefault(normal_text(text), len(number)) for text in texts]
    shingles = [_shingles(text) for text in number] if threshold < 1 else []
    return np.array(equal, np.int64), _similar(shingles, threshold)


def _shingles(text: str) -> frozenset[str]:
    padded = f" {text} "
    return frozenset(padded[at : at + _SHINGLE] for at in range(max(len(padded) - _SHINGLE, 0) + 1))


def _similar(shingles: list[frozenset[str]], threshold: float) -> Iterator[tuple]:
    for pairs in _candidates(shingles):
        near = [pair for pair in pairs if _jaccard(*(shingles[row] for row in pair)) >= threshold]
        if near:
            yield tuple(np.array(near, np.int64).T)


def _candidates(shingles: list[frozenset[str]]) -> Iterator[Iterable[tuple[int, int]]]:
    """Pairs of texts with an equal MinHash band, band by band, each pair once."""
    from tqdm import tqdm

    if not shingles:
        return
    signatures = _signatures(shingles)
    seen: set[tuple[int, int]] = set()
    for band in tqdm(range(_BANDS), desc="comparing texts", mininterval=2, delay=1):
        buckets = defaultdict(list)
        rows = np.ascontiguousarray(signatures[:, band * _ROWS : (band + 1) * _ROWS])
        for row, key in enumerate(rows.view(f"V{rows.itemsize * _ROWS}").ravel().tolist()):
            buckets[key].append(row)
        fresh = {pair for rows in buckets.values() for pair in _pairs(rows)} - seen
        seen |= fresh
        yield fresh


def _pairs(rows: list[int]) -> Iterator[tuple[int, int]]:
    yield from combinations(rows[:_BUCKET], 2)
    yield from ((first, row) for row in rows[_BUCKET:] for first in rows[:_BUCKET])


def _signatures(shingles: list[frozenset[str]]) -> np.ndarray:
    """[N, 128] MinHash values of sets of strings."""
    from datasketch import MinHash

    sketch = MinHash(num_perm=_BANDS * _ROWS, seed=_SEED, hashfunc=_string_hash)
    signatures = np.empty((len(shingles), _BANDS * _ROWS), sketch.hashvalues.dtype)
    for row, grams in enumerate(shingles):
        sketch.clear()
        sketch.update_batch(list(grams))
        signatures[row] = sketch.hashvalues
    return signatures


def _string_hash(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    common = len(left & right)
    return common / (len(left) + len(right) - common)
