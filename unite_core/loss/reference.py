"""InfoNCE and MAMCL in plain numpy with whole N x N matrices, to read and to test against.

The loss is `loss_of(log_probabilities(cosines, temperature, weights_of(mask, modality)))`; what
trains is `contrastive`. Row i of every matrix is query i, column j candidate j, and the diagonal
holds the positives.
"""

# Shapes: N pairs in a batch, T modalities that occur.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "MASKS", "effective_negatives", "log_probabilities", "loss_of", "push_by_modality",
    "weights_of",
]  # fmt: skip


MASKS = {
    "none": "InfoNCE, no mask",
    "modality": "MAMCL, other modalities masked",
    "soft": "Soft, other modalities count less",
    "random": "Random, as many negatives as MAMCL",
}
"""Kinds of mask that `weights_of` knows, with labels for figures."""


def weights_of(
    mask: str, target_modality: Sequence[int], cross_modal_weight: float = 0.1, seed: int = 0
) -> np.ndarray:
    """Weight of each candidate in each query's softmax, [N, N] in [0, 1].

    Args
        mask                a key of `MASKS`
        target_modality     [N] codes
        cross_modal_weight  of "soft": the weight of candidates of another modality
        seed                of "random", as `random_mask` of `loss.mamcl`
    Returns weights of which the diagonal is 1. Raises ValueError for an unknown mask.

    >>> weights_of("modality", [1, 1, 2])
    array([[1., 1., 0.],
           [1., 1., 0.],
           [0., 0., 1.]])
    """
    codes = np.asarray(target_modality)
    same = (codes[:, None] == codes).astype(float)  # [N, N]
    if mask == "none":
        return np.ones_like(same)
    if mask == "modality":
        return same
    if mask == "soft":
        return np.where(same == 1, 1.0, cross_modal_weight)
    if mask == "random":
        return _random_weights(same, seed)
    raise ValueError(f"mask {mask!r}: use one of {', '.join(MASKS)}")


def _random_weights(same: np.ndarray, seed: int) -> np.ndarray:
    """The positives and, in each row, as many other columns as `same` has, drawn from all."""
    import torch

    from .negatives import draw_columns

    rows = torch.arange(len(same))
    counts = torch.as_tensor(same.sum(1) - 1).long()
    # the two directions draw with the seeds 2 s and 2 s + 1; this is the first
    kept = draw_columns(2 * seed, rows, counts, len(same), (rows, rows))
    return kept.numpy() + np.eye(len(same))


def log_probabilities(
    cosines: np.ndarray, temperature: float, weights: np.ndarray | None = None
) -> np.ndarray:
    """log p_ij = log of w_ij exp(s_ij / tau) / sum_k w_ik exp(s_ik / tau), [N, N].

    Args: cosines [N, N], temperature > 0, weights [N, N] in [0, 1] (default: all 1). A masked
    candidate, of weight 0, has log p = -inf. Computed in float64 and as logarithms, so that no
    temperature makes a positive's probability 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    logits = np.asarray(cosines, float) / temperature
    if weights is not None:
        with np.errstate(divide="ignore"):
            logits = logits + np.log(weights)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def loss_of(log_p: np.ndarray) -> float:
    """Mean negative log-likelihood of the positives, -mean_i log p_ii, in nats; log_p [N, N].

    >>> loss_of(log_probabilities(np.eye(2), temperature=1.0))  # log(1 + exp(0 - 1))
    0.31326168751822286
    """
    return float(-np.diag(log_p).mean())


def push_by_modality(
    log_p: np.ndarray, target_modality: Sequence[int]
) -> dict[int, dict[int, float]]:
    """Push on the negatives by modality: {target modality: {candidate's modality: push}}.

    The push on candidate j is p_ij, the gradient of row i's loss with respect to s_ij / tau; the
    pull on the positive, 1 - p_ii, is their sum. Means over the rows of a target modality.
    """
    codes = np.asarray(target_modality)
    push = np.exp(log_p)
    np.fill_diagonal(push, 0.0)
    present = [int(code) for code in np.unique(codes)]
    return {
        target: {
            other: float(push[codes == target][:, codes == other].sum(1).mean())
            for other in present
        }
        for target in present
    }


def effective_negatives(log_p: np.ndarray) -> np.ndarray:
    """Effective number of negatives of each row, [N]: exp of the entropy of their push.

    1 means that a single negative takes all of it, N - 1 that all take the same. A row without
    negatives has 0.
    """
    negatives = np.where(np.eye(len(log_p), dtype=bool), -np.inf, log_p)
    top = negatives.max(axis=1, keepdims=True)
    alone = np.isneginf(top[:, 0])
    logits = negatives - np.where(np.isneginf(top), 0.0, top)
    total = np.exp(logits).sum(axis=1, keepdims=True)
    shares = np.exp(logits) / np.where(total == 0, 1.0, total)  # [N, N]
    information = -np.log(np.where(shares > 0, shares, 1.0))
    return np.where(alone, 0.0, np.exp((shares * information).sum(axis=1)))
