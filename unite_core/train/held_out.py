"""Scores on held-out data while a model trains, and the best weights by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..files import read_json, replacing_folder, whole_folder, write_json
from ..model.embedder import UniteEmbedder
from .checkpoints import load_weights, save_weights
from .config import TrainConfig

__all__ = ["MakeScores", "Scores", "held_out_scores", "keep_best", "load_best"]


Scores = Callable[[UniteEmbedder], Mapping[str, float]]
"""Scores of a model: {name: value}. Must draw no random numbers of torch, numpy or Python."""
MakeScores = Callable[[str, str], Scores]
"""What `eval_data` and `media_root` become, such as `unite_core.evaluation.TrainingScores`."""
_BEST = "best"  # folder of the best weights in that of a run


def held_out_scores(config: TrainConfig, make: MakeScores | None) -> Scores | None:
    """The scores of a run's `eval_data`, None for none; ValueError without a way to take them."""
    if config.eval_data is None:
        return None
    if make is None:
        raise ValueError(
            "eval_data needs a way to score: train(config, unite_core.evaluation.TrainingScores)"
        )
    return make(config.eval_data, config.media_root)


def load_best(output: str | Path, model) -> None:
    """Give a model the weights that were best on held-out data."""
    load_weights(whole_folder(Path(output, _BEST)), model)


def keep_best(output: str | Path, model, value: float, scores: Mapping) -> None:
    """Keep a model's trained weights in a run's `best`, if their value is above the one there."""
    folder = whole_folder(Path(output, _BEST))
    noted = folder / "scores.json"
    if not noted.is_file() or value > read_json(noted)["value"]:
        with replacing_folder(Path(output, _BEST)) as partial:
            save_weights(model, partial)
            write_json(partial / "scores.json", {"value": value, "scores": scores}, indent=1)
