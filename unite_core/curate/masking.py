"""What the loss will make of a mix: group sizes under MAMCL, and false negatives by equal targets.

A random batch of B pairs is assumed, each pair drawn by its share of the records (PAPER §2.1).
"""

# Shapes: B pairs in a batch, M target modalities, K different candidates.

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["label_collisions", "mask_consequences"]

FEW_NEGATIVES = 8  # a group with fewer expected negatives teaches its pairs little


def mask_consequences(counts: Mapping[str, int], batch_size: int) -> dict:
    """Group sizes under MAMCL, which lets a query compete only with targets of its modality.

        expected group of modality m = B p_m,   scores that survive = (1 + (B - 1) sum p_m^2) / B

    Args
        counts      {target modality: records}, all positive
        batch_size  B >= 1, of all processes together
    Returns
        `batch_size`; `surviving_share` of the B x B scores, `lonely_share` of pairs that are the
        only ones of their modality in a batch and so have loss and gradient 0; and `groups`, rows
        of target, records, share, expected_size, expected `negatives` of a pair of that group,
        `lonely` (its chance to have none) and `too_small` (fewer than 8 negatives expected).

    Of the paper's stage 2 mix only 36.9 % of the scores survive at large B (PAPER §2.1).
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
        "too_small": negatives < FEW_NEGATIVES,
    }


def label_collisions(counts: np.ndarray, total: int, batch_size: int) -> dict[str, float]:
    """How often two records of a set have the same candidate, each a false negative of the other.

    Args
        counts      [K]  records of the set by distinct candidate
        total       records of the whole mix, of which batches are drawn
        batch_size  B
    Returns
        `distinct` candidates; `effective`, the number of equally frequent candidates with as many
        collisions (1 / sum of squared shares); `false_negatives`, the expected number of other
        pairs in a batch with a pair's own candidate; `repeated_share` of records whose candidate
        occurs again.

    HatefulMemes has 2 candidates and VOC2007 20 (PAPER §2.3 no. 9): MAMCL concentrates on them.
    """
    counts = np.asarray(counts, float)
    records = counts.sum()
    same = float((counts * (counts - 1)).sum() / records)  # other records with a record's candidate
    return {
        "distinct": len(counts),
        "effective": float(records**2 / (counts**2).sum()),
        "false_negatives": (batch_size - 1) * same / max(total - 1, 1),
        "repeated_share": float(counts[counts > 1].sum() / records),
    }
