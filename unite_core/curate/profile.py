"""Profile a data set: records by pair type and source, texts, media, and what the loss will see.

All records are counted in one pass. Slower statistics (file headers, tokens, languages, caption
granularity) come from an evenly spaced sample of each pair type, whose size is reported. Group
sizes under MAMCL and false negatives from equal candidates are predicted for batches of B pairs
drawn at random from all records.
"""

# Shapes: N records, B pairs in a batch, M target modalities, K distinct candidates.

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.modality import Modality
from .config import ProfileConfig
from .media_stats import MediaHeader, media_of, read_header
from .scripts import guess_languages, script_shares
from .text_rules import bare_text, granularity, keywords, top_shares

__all__ = ["false_negatives", "label_collisions", "mask_consequences", "partners", "profile"]


QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_SIDES = ("query", "candidate")
_LANGUAGE_SAMPLE = 1000  # texts per pair type and side


def profile(
    rows: Iterable[Mapping],
    root: str | Path = ".",
    config: ProfileConfig | None = None,
    count_tokens: Callable[[Sequence[str]], Sequence[int]] | None = None,
) -> dict:
    """Count records by pair type, source and target, and describe their texts and media.

    Args
        rows          validated records, read once; about 60 bytes of each are kept
        root          media root; only file headers are read
        count_tokens  texts -> numbers of tokens; without it texts have no token counts
    Returns
        JSON values: `records`; `pairs` (by query and candidate modality); `sources` (by source and
        task, with label collisions); `texts` (by pair type and side: characters of all texts;
        words, granularity, keyword lists, scripts, languages with how sure they are, and tokens of
        the sample); `media` (by pair type, side and
        kind: sizes, aspect, visual tokens, seconds and frame rate of the sample, and unreadable
        headers); `masking` (`mask_consequences`); and `duplicates` (shares of pairs, queries and
        candidates that repeat an earlier one by name).
    Raises ValueError if there is no record.

    Equal files with two names are no duplicates here; `exact_duplicates` compares contents.
    """
    from tqdm import tqdm

    config = config or ProfileConfig()
    columns = _Columns(config.sample)
    for row in tqdm(rows, "describing", unit="record", mininterval=2, delay=1):
        columns.add(row)
    if not columns.source:
        raise ValueError("no record to profile: check the path of the records and their filters")
    return columns.summary(root, config, count_tokens)


class _Columns:
    """Columns of what is kept of all records, and an evenly spaced sample of each pair type."""

    def __init__(self, sample: int):
        self.pair, self.source = array("H"), array("i")  # codes
        self.lengths = {side: array("i") for side in _SIDES}  # characters
        self.contents = {side: array("q") for side in _SIDES}
        self.sources: dict[tuple[str, str], int] = {}
        self.samples: dict[int, _Sample] = {}
        self.size = sample

    def add(self, row: Mapping) -> None:
        query, candidate = row["query"], row["candidate"]
        code = _bits(query) << 3 | _bits(candidate)
        label = row.get("source") or "", row.get("task") or ""
        self.pair.append(code)
        self.source.append(self.sources.setdefault(label, len(self.sources)))
        for side, item in (("query", query), ("candidate", candidate)):
            text = item.get("text") or ""
            self.lengths[side].append(len(text))
            content = row.get(f"{side}_group") or (
                text, str(item.get("image")), str(item.get("video"))
            )  # fmt: skip
            self.contents[side].append(hash(content))
        if code not in self.samples:
            self.samples[code] = _Sample(self.size)
        self.samples[code].offer(row)

    def summary(self, root, config: ProfileConfig, count_tokens) -> dict:
        pair, source = np.array(self.pair), np.array(self.source)
        batch_size = min(config.batch_size, len(pair))
        contents = {side: np.array(self.contents[side]) for side in _SIDES}
        targets = {}
        for code, count in _counts(pair):
            name = _label(code & 7)
            targets[name] = targets.get(name, 0) + count
        texts, media = [], []
        for code, _ in _counts(pair):
            rows = self.samples[code].rows
            for side in _SIDES:
                about = _pair_type(code) | {"side": side}
                lengths = np.array(self.lengths[side])[pair == code]
                if lengths.any():
                    items = [row[side] for row in rows]
                    texts.append(about | _describe_texts(lengths, items, count_tokens))
                media += [about | found for found in _describe_media(rows, side, root, config)]
        return {
            "records": len(pair),
            "pairs": [
                _pair_type(code)
                | {"records": n, "share": n / len(pair), "sampled": len(self.samples[code].rows)}
                for code, n in _counts(pair)
            ],
            "sources": self._sources(source, contents, batch_size),
            "texts": texts,
            "media": media,
            "masking": mask_consequences(targets, batch_size),
            "duplicates": _duplicates(contents),
        }

    def _sources(self, source: np.ndarray, contents: Mapping, batch_size: int) -> list[dict]:
        rows, names = [], list(self.sources)
        others = partners(contents["query"], contents["candidate"])
        for code, count in _counts(source):
            by_candidate = np.unique(contents["candidate"][source == code], return_counts=True)[1]
            about = dict(zip(("source", "task"), names[code], strict=True))
            about |= {"records": count, "share": count / len(source)}
            about |= label_collisions(by_candidate, len(source), batch_size)
            rows.append(about | false_negatives(others[source == code], len(source), batch_size))
        return rows


class _Sample:
    """Every k-th of the rows offered; k doubles so that at most `size` rows are kept."""

    def __init__(self, size: int):
        self.size, self.step, self.seen, self.rows = size, 1, 0, []

    def offer(self, row: Mapping) -> None:
        if self.seen % self.step == 0:
            if len(self.rows) == self.size:
                self.rows, self.step = self.rows[::2], 2 * self.step
            if self.seen % self.step == 0:
                self.rows.append(row)
        self.seen += 1


def _describe_texts(lengths: np.ndarray, items: Sequence[Mapping], count_tokens) -> dict:
    texts = [bare_text(item["text"]) for item in items if item.get("text")]
    step = -(-len(texts) // _LANGUAGE_SAMPLE)
    guesses = guess_languages(texts[::step])
    known = [guess for guess in guesses if guess.code]
    about = {"characters": quantiles(lengths)} | granularity(texts)
    about["keyword_share"] = float(np.mean([bool(keywords(text)) for text in texts]))
    about["scripts"] = dict(list(script_shares(texts).items())[:5])
    about["languages"] = top_shares([guess.code for guess in known]) if known else {}
    about["language_known"] = len(known) / len(guesses)
    sure = [guess.probability for guess in known]
    about["language_probability"] = float(np.mean(sure)) if sure else None
    if count_tokens:
        about["tokens"] = quantiles(np.asarray(count_tokens(texts)))
    return about


def _describe_media(rows, side: str, root, config: ProfileConfig) -> list[dict]:
    files = dict.fromkeys(file for row in rows for file in media_of(row[side]))
    described = []
    for kind in ("image", "video"):
        paths = [path for file_kind, path in files if file_kind == kind]
        found = [read_header(kind, path, root, config.embed) for path in paths]
        headers = [header for header in found if isinstance(header, MediaHeader)]
        if found:
            about = {"kind": kind, "files": len(found), "unreadable": len(found) - len(headers)}
            described.append(about | _describe_headers(kind, headers))
    return described


def _describe_headers(kind: str, headers: Sequence[MediaHeader]) -> dict:
    if not headers:
        return {}
    height, width, frames, seconds, tokens = (
        np.array(column) for column in zip(*headers, strict=True)
    )
    about = {
        "height": quantiles(height),
        "width": quantiles(width),
        "aspect": quantiles(width / height),
        "tokens": quantiles(tokens),
    }
    if kind == "video":
        about |= {"seconds": quantiles(seconds), "frames": quantiles(frames)}
        timed = seconds > 0
        about["fps"] = quantiles(frames[timed] / seconds[timed]) if timed.any() else None
    return about


def quantiles(values: np.ndarray) -> dict:
    """`n`, `mean` and `quantiles` (at QUANTILES) of values."""
    return {
        "n": len(values),
        "mean": float(np.mean(values)),
        "quantiles": np.quantile(values, QUANTILES).tolist(),
    }


def _duplicates(contents: Mapping[str, np.ndarray]) -> dict[str, float]:
    pairs = contents["query"] * np.int64(1_000_003) ^ contents["candidate"]
    named = {"pairs": pairs, "queries": contents["query"], "candidates": contents["candidate"]}
    return {name: 1 - len(np.unique(ids)) / len(ids) for name, ids in named.items()}


def _counts(codes: np.ndarray) -> list[tuple[int, int]]:
    """(code, count) in descending order of counts."""
    values, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(values[i]), int(counts[i])) for i in order]


def _bits(item: Mapping) -> int:
    """As `modality_of`, but a plain int for speed: this runs twice per record."""
    get = item.get
    return (
        (get("text") is not None)
        | (get("image") is not None) << 1
        | (get("video") is not None) << 2
    )


def _label(code: int) -> str:
    return Modality(code).label


def _pair_type(code: int) -> dict[str, str]:
    return {"query": _label(code >> 3), "candidate": _label(code & 7)}


MIN_NEGATIVES = 8  # expected for a pair; groups with fewer are too small to learn from


def mask_consequences(counts: Mapping[str, int], batch_size: int) -> dict:
    """Predict group sizes under MAMCL, which contrasts targets of one modality only.

        expected size of group m = B p_m,   unmasked share of scores = (1 + (B - 1) sum p_m^2) / B

    Args
        counts      {target modality: records}, all positive
        batch_size  B >= 1, over all processes
    Returns
        `batch_size`; `surviving_share` of the B x B scores that are not masked; `lonely_share` of
        pairs without another pair of their modality in the batch, whose loss is 0; and `groups`,
        rows of target, records, share, expected_size, expected `negatives` of a pair, `lonely`
        (probability of having none) and `too_small` (fewer than 8 expected negatives).

    In the paper's stage 2 mix only 36.9 % of the scores remain at large B.

    >>> mask_consequences({"text": 50, "image": 50}, batch_size=3)["surviving_share"]
    0.6666666666666666
    """
    if batch_size < 1 or not counts or min(counts.values()) < 1:
        raise ValueError(f"batch_size {batch_size} and all of {dict(counts)} must be at least 1")
    total = sum(counts.values())
    groups = [_group(name, count, total, batch_size) for name, count in counts.items()]
    squares = sum(group["share"] ** 2 for group in groups)
    return {
        "batch_size": batch_size,
        "surviving_share": (1 + (batch_size - 1) * squares) / batch_size,
        "lonely_share": sum(group["share"] * group["lonely"] for group in groups),
        "groups": sorted(groups, key=lambda group: -group["records"]),
    }


def _group(name: str, count: int, total: int, batch_size: int) -> dict:
    share = count / total
    negatives = (batch_size - 1) * share
    return {
        "target": name,
        "records": count,
        "share": share,
        "expected_size": batch_size * share,
        "negatives": negatives,
        "lonely": (1 - share) ** (batch_size - 1),
        "too_small": negatives < MIN_NEGATIVES,
    }


def label_collisions(counts: np.ndarray, total: int, batch_size: int) -> dict[str, float]:
    """Predict how often pairs of a set share a candidate in a batch.

    Args
        counts      [K]  records per distinct candidate of the set
        total       records of the whole mix from which batches are drawn
        batch_size  B
    Returns
        number of `distinct` candidates; `effective` number of candidates (1 / sum of squared
        shares); `shared_candidates`, the expected number of other pairs in the batch with the
        candidate of a pair; and `repeated_share` of records whose candidate occurs again.

    Classification sets are extreme: HatefulMemes has 2 candidates, VOC2007 has 20.

    >>> label_collisions(np.array([50, 50]), total=100, batch_size=11)["shared_candidates"]
    4.94949494949495
    """
    counts = np.asarray(counts, float)
    records = counts.sum()
    same = float((counts * (counts - 1)).sum() / records)  # other records with a record's candidate
    return {
        "distinct": len(counts),
        "effective": float(records**2 / (counts**2).sum()),
        "shared_candidates": (batch_size - 1) * same / max(total - 1, 1),
        "repeated_share": float(counts[counts > 1].sum() / records),
    }


def partners(query: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Number of other records with the query or the candidate of each, int64 [N].

    query, candidate  [N] numbers of the items, equal for equal items or groups

    >>> titles, pictures = np.array([0, 0, 1]), np.array([5, 6, 7])
    >>> partners(titles, pictures)
    array([1, 1, 0])
    """
    pairs = np.stack([query, candidate], axis=1)
    counts = [
        np.unique(part, axis=0, return_inverse=True, return_counts=True)
        for part in (query, candidate, pairs)
    ]
    of_query, of_candidate, of_both = (count[inverse.ravel()] for _, inverse, count in counts)
    return of_query + of_candidate - of_both - 1


def false_negatives(partners: np.ndarray, total: int, batch_size: int) -> dict[str, float]:
    """Predict how many pairs of a batch are falsely taken for negatives of a pair of a set.

    Args
        partners    [N]  of the set's records, from `partners` over the whole mix
        total       records of the whole mix from which batches are drawn
        batch_size  B
    Returns
        `false_negatives`, the expected number of other pairs in the batch with the query or the
        candidate of a pair: one title on two pictures makes each a false negative of the other;
        and `shared_share` of the records with any such partner.

    >>> false_negatives(np.array([1, 1, 0]), total=3, batch_size=3)
    {'false_negatives': 0.6666666666666666, 'shared_share': 0.6666666666666666}
    """
    return {
        "false_negatives": float((batch_size - 1) * partners.mean() / max(total - 1, 1)),
        "shared_share": float((partners > 0).mean()),
    }
