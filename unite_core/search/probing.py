"""Fit a modality probe on training records: `fit_probe(ProbeConfig)`, or `unite probe`."""

# Shapes: Q records, N distinct candidates.

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..data.bad_media import check_bad_share
from ..data.modality import modality_of
from ..data.pairs import PairDataset
from .blocks import model_key
from .config import ProbeConfig
from .modality_probe import PROBE_FILE, ModalityProbe, fit_modality_probe
from .pair_items import PairItems
from .vector_store import encode_items

__all__ = ["fit_probe"]


def fit_probe(config: ProbeConfig, embedder=None, progress: bool = True) -> Path:
    """Fit a modality probe and temperature on records and save them; returns the file.

    Args
        embedder  a UniteEmbedder; default: `config.model` loaded
    The candidates of the records drawn are the pool of the temperature; the query itself and other
    known positives do not count there. ValueError without `output` for a model on the hub.
    """
    output = _output(config)
    if embedder is None:
        from ..model.embedder import UniteEmbedder

        embedder = UniteEmbedder.load(config.model, **asdict(config.load), **config.embed)
    dataset = PairDataset(config.data, config.media_root)
    items = PairItems(dataset)
    rng = np.random.default_rng(config.seed)
    count = min(config.records, len(dataset))
    rows = np.sort(rng.choice(len(dataset), count, replace=False))
    with TemporaryDirectory() as scratch:
        probe = _fit(config, embedder, items, rows, config.vectors or scratch, progress)
    probe.save(output)
    return output


def _output(config: ProbeConfig) -> Path:
    if config.output is not None:
        return Path(config.output)
    if not Path(config.model).is_dir():
        raise ValueError(f"model {config.model} is no folder: give the probe's file as output")
    return Path(config.model, PROBE_FILE)


def _fit(config: ProbeConfig, embedder, items: PairItems, rows: np.ndarray, folder,
         progress: bool) -> ModalityProbe:  # fmt: skip
    used = np.unique(np.concatenate([items.queries[rows], items.candidates[rows]]))
    vectors = encode_items(embedder, [items[number] for number in used], folder, config.media_root,
                           progress, lambda number: items.where(used[number]))  # fmt: skip
    bad = items.bad_records({int(used[number]): error for number, error in vectors.bad.items()})
    lost = [bad[row] for row in rows.tolist() if row in bad]
    check_bad_share(lost, len(rows), config.max_bad_share)
    rows = rows[~np.isin(rows, list(bad))]
    candidates, positives = np.unique(items.candidates[rows], return_inverse=True)
    return fit_modality_probe(
        vectors.rows(np.searchsorted(used, items.queries[rows])),
        vectors.rows(np.searchsorted(used, candidates)),
        [int(modality_of(items[number])) for number in candidates],
        positives,
        items.identities[items.queries[rows]],
        _hidden(items, rows, candidates),
        config.folds,
        model_key(embedder),
    )


def _hidden(items: PairItems, rows: np.ndarray, candidates: np.ndarray) -> list[list[int]]:
    """[Q] places among the candidates of the query itself and of its other known positives.

    Items of one group count as one.
    """
    places, known = defaultdict(set), defaultdict(set)
    for place, identity in enumerate(items.identities[candidates].tolist()):
        places[identity].add(place)
    query, positive = (
        items.identities[items.queries[rows]],
        items.identities[items.candidates[rows]],
    )
    for asked, answer in zip(query.tolist(), positive.tolist(), strict=True):
        known[asked] |= places[answer] | places[asked]
    own = np.searchsorted(candidates, items.candidates[rows]).tolist()
    return [
        sorted(known[asked] - {place}) for asked, place in zip(query.tolist(), own, strict=True)
    ]
