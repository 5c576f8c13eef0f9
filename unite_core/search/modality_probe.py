"""A fitted first factor: which modality a query asks for, read from its vector.

A multinomial logistic regression of the target modality on vectors of training queries, with the
temperature that makes the training positives most likely. It belongs to one model, is saved beside
it as `modality_probe.safetensors`, and works for vectors of any embedder.
"""

# Shapes: Q queries, N candidates, D embedding size, M modalities.

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..data.modality import Modality
from ..files import replacing
from .exact import checked_vectors
from .factorised import fit_temperature, log_sum_exp

__all__ = ["PROBE_FILE", "ModalityProbe", "fit_modality_probe", "load_modality_probe"]


PROBE_FILE = "modality_probe.safetensors"
_NOTED = "unite"  # a single entry, as safetensors writes several in no fixed order
_PENALTIES = 10.0 ** np.arange(-1, 5)  # C of scikit-learn: large for unit vectors, whose
# coordinates are of size 1 / sqrt(D)
_ITERATIONS = 5000


@dataclass(frozen=True, eq=False)
class ModalityProbe:
    """Log p(m | q) = log softmax of weights q + bias.

    codes        codes of the M modalities
    weights      [M, D]
    bias         [M]
    temperature  of the second factor, fitted on the same items
    model        `model_key` of the model whose vectors it was fitted on, "" if unknown
    fitted       how it was fitted: numbers of queries and groups, C, held-out accuracy and
                 negative log-likelihood
    """

    codes: tuple[int, ...]
    weights: np.ndarray
    bias: np.ndarray
    temperature: float
    model: str = ""
    fitted: Mapping = field(default_factory=dict)

    def log_probabilities(self, query_vectors: np.ndarray) -> np.ndarray:
        """Log p(m | q) [Q, M] in float64 for query vectors [Q, D]."""
        queries = np.asarray(query_vectors, np.float64)
        if queries.ndim != 2 or queries.shape[1] != self.weights.shape[1]:
            raise ValueError(
                f"query_vectors {queries.shape}: the probe was fitted on vectors of size "
                f"{self.weights.shape[1]}; fit one for these"
            )
        return _log_softmax(queries, self.weights, self.bias)

    def save(self, path: str | Path) -> None:
        """Write the probe to a file, atomically; equal probes give equal bytes."""
        from safetensors.numpy import save_file

        noted = {"codes": list(self.codes), "temperature": self.temperature,
                 "model": self.model, "fitted": dict(self.fitted)}  # fmt: skip
        tensors = {"weights": np.ascontiguousarray(self.weights), "bias": self.bias}
        with replacing(path) as partial:
            save_file(tensors, partial, {_NOTED: json.dumps(noted)})


def load_modality_probe(path: str | Path) -> ModalityProbe:
    """Read a probe from its file, or from the folder of the model that it was saved with.

    ValueError if there is none or it is not whole.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path, PROBE_FILE) if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such probe; fit one with `unite probe`")
    try:
        with safe_open(path, framework="numpy") as file:
            noted = json.loads((file.metadata() or {})[_NOTED])
            weights, bias = file.get_tensor("weights"), file.get_tensor("bias")
        codes = tuple(int(Modality(code)) for code in noted["codes"])
        probe = ModalityProbe(codes, weights, bias, float(noted["temperature"]),
                              str(noted["model"]), dict(noted["fitted"]))  # fmt: skip
        if len(codes) != len(weights) or bias.shape != (len(codes),) or weights.ndim != 2:
            raise ValueError(f"weights {weights.shape} and bias {bias.shape} for {codes}")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: no whole probe ({error}); fit it again") from None
    return probe


def fit_modality_probe(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    modality: Sequence[int],
    positives: Sequence[int],
    groups: Sequence[int] | None = None,
    hidden: Sequence[Sequence[int]] | None = None,
    folds: int = 5,
    model: str = "",
) -> ModalityProbe:
    """Fit a probe and the temperature on training pairs.

    Args
        query_vectors      [Q, D]
        candidate_vectors  [N, D]  distinct candidates
        modality           [N]     their codes
        positives          [Q]     candidate index of each query's positive; its modality is what
                                   the query asks for
        groups             [Q]     queries of a group are held out together; None: each is its own
        hidden             [Q]     candidates that do not count for a query, see `fit_temperature`
        folds              >= 2    of the cross-validation that chooses the penalty
    The L2 penalty is the one of six with the smallest held-out negative log-likelihood. ValueError
    if the queries ask for one modality only, or for one with fewer groups than folds.

    >>> candidates = np.eye(8)
    >>> queries = candidates + np.repeat([[0.4, 0.0], [0.0, 0.4]], 4, axis=0) @ np.eye(8)[:2]
    >>> probe = fit_modality_probe(queries, candidates, [1] * 4 + [2] * 4, np.arange(8), folds=2)
    >>> probe.codes, probe.log_probabilities(queries).shape
    ((1, 2), (8, 2))
    """
    queries = checked_vectors("query_vectors", query_vectors)
    candidates = checked_vectors("candidate_vectors", candidate_vectors)
    target = np.asarray(modality)[np.asarray(positives)]
    groups = np.arange(len(queries)) if groups is None else np.asarray(groups)
    _check_targets(target, groups, folds)
    exact = queries.astype(np.float64)
    losses, hits = _cross_validate(exact, target, groups, folds)
    chosen = int(np.argmin(losses))
    weights, bias, codes = _read(_regression(exact, target, _PENALTIES[chosen]))
    fitted = {
        "queries": len(queries),
        "groups": len(np.unique(groups)),
        "C": float(_PENALTIES[chosen]),
        "held_out_loss": float(losses[chosen]),
        "held_out_accuracy": float(hits[chosen]),
    }
    temperature = fit_temperature(queries, candidates, modality, positives, hidden)
    return ModalityProbe(codes, weights, bias, temperature, model, fitted)


def _check_targets(target: np.ndarray, groups: np.ndarray, folds: int) -> None:
    codes = np.unique(target)
    if len(codes) < 2:
        raise ValueError(
            f"all queries ask for {Modality(int(codes[0])).label}: a probe needs queries that ask "
            "for two modalities or more"
        )
    for code in codes.tolist():
        if (count := len(np.unique(groups[target == code]))) < folds:
            raise ValueError(
                f"{Modality(code).label} is asked for by queries of {count} groups: give {folds} "
                "or more, or fewer folds"
            )


def _cross_validate(queries, target, groups, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Held-out negative log-likelihood and accuracy for each penalty."""
    from sklearn.model_selection import StratifiedGroupKFold

    losses, hits = np.zeros((2, len(_PENALTIES)))
    for train, held in StratifiedGroupKFold(folds).split(queries, target, groups):
        start = None
        for number, penalty in enumerate(_PENALTIES):
            start = _regression(queries[train], target[train], penalty, start)
            weights, bias, codes = _read(start)
            log_p = _log_softmax(queries[held], weights, bias)
            is_true = target[held][:, None] == codes  # [held, M]
            losses[number] -= log_p[is_true].sum()
            hits[number] += is_true[np.arange(len(held)), log_p.argmax(1)].sum()
    return losses / len(queries), hits / len(queries)


def _regression(queries, target, penalty: float, start=None):
    """A fitted regression; from `start`, the fit with a weaker or stronger penalty, if given."""
    from sklearn.linear_model import LogisticRegression

    regression = start or LogisticRegression(warm_start=True, max_iter=_ITERATIONS)
    return regression.set_params(C=penalty).fit(queries, target)


def _read(regression) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Weights [M, D], bias [M] and codes of a fitted regression."""
    weights, bias = regression.coef_.astype(np.float64), regression.intercept_.astype(np.float64)
    if len(weights) == 1:  # two classes: the logit of the second against the first
        weights, bias = np.stack([0 * weights[0], weights[0]]), np.array([0.0, bias[0]])
    return weights, bias, tuple(map(int, regression.classes_))


def _log_softmax(queries, weights, bias) -> np.ndarray:
    logits = queries @ weights.T + bias
    return logits - log_sum_exp(logits.copy())[:, None]
