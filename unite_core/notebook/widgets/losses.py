"""The loss of a batch under a mask and a temperature, and controls for both."""

# Shapes: N pairs of a batch.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...loss import reference
from .controls import Slider, follow

__all__ = ["TEMPERATURES", "draw_loss", "loss_controls"]


TEMPERATURES = tuple(np.geomspace(0.01, 1, 25).round(4).tolist())
_WEIGHTS = tuple(np.arange(0, 1.01, 0.05).round(2).tolist())


def draw_loss(
    cosines: np.ndarray, target_modality: Sequence[int], mask: str, temperature: float,
    axes: Sequence, cross_modal_weight: float = 0.1, seed: int = 0,
) -> float:  # fmt: skip
    """Draw probabilities under a mask, and its loss over the temperature beside that of no mask.

    Args: cosines [N, N], target_modality [N] codes, axes a pair; the others as in
    `reference.weights_of`. Returns the loss in nats.
    """
    from ...plots.loss import plot_batch, plot_by_temperature

    weights = {name: reference.weights_of(name, target_modality, cross_modal_weight, seed)
               for name in dict.fromkeys(("none", mask))}  # fmt: skip
    log_p = reference.log_probabilities(cosines, temperature, weights[mask])
    loss = reference.loss_of(log_p)
    shown = np.where(weights[mask] > 0, np.exp(log_p), np.nan)
    plot_batch(shown, target_modality, axes[0], f"{reference.MASKS[mask]}: {loss:.2f} nats")
    curves = {
        reference.MASKS[name]: [reference.loss_of(reference.log_probabilities(cosines, tau, weight))
                                for tau in TEMPERATURES]
        for name, weight in weights.items()
    }  # fmt: skip
    plot_by_temperature(TEMPERATURES, curves, axes[1], f"Temperature {temperature:g}",
                        now=temperature)  # fmt: skip
    axes[1].set_ylim(bottom=0)
    return loss


def loss_controls(cosines: np.ndarray, target_modality: Sequence[int], seed: int = 0):
    """Controls for mask, temperature and soft weight of `draw_loss`; returns an ipywidgets box."""
    import ipywidgets
    import matplotlib.pyplot as plt

    masks = [(words, name) for name, words in reference.MASKS.items()]
    controls = {
        "mask": ipywidgets.Dropdown(options=masks, value="modality", description="mask"),
        "temperature": Slider("temperature", TEMPERATURES, TEMPERATURES[6]),
        "weight": Slider("soft weight", _WEIGHTS, 0.1),
    }

    def draw(mask: str, temperature: float, weight: float):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.8))
        draw_loss(cosines, target_modality, mask, temperature, axes, weight, seed)
        return figure

    return follow(draw, controls)
