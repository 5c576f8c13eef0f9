"""Models of a notebook: trained here, shipped, or taken from finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..files import read_json
from ..tiny.model import TINY
from ..train.config import StageConfig, TrainConfig
from .runs import from_root

if TYPE_CHECKING:
    from ..model.router import ModalityRouter
    from ..search.modality_probe import ModalityProbe

__all__ = [
    "first_factors", "model_source", "named_runs", "stage_models", "stage_weights", "train_stage",
    "trained_model",
]  # fmt: skip


_STAND_INS = {"runs/main/stage1": "tiny-stage1", "runs/main/stage2": "tiny-stage2"}


def stage_models(stage_1: str, stage_2: str, controls: str = "") -> dict[str, str | Path]:
    """Models in the order of training: base, stage 1, stage 2, controls of stage 2.

    `stage_1` and `stage_2` as in `model_source`, `controls` as in `named_runs`. Returns {name:
    folder or hub id}.
    """
    models = {"base": model_source(""), "stage 1": model_source(stage_1)}
    return models | {"stage 2": model_source(stage_2)} | named_runs(controls)


def named_runs(runs: str) -> dict[str, Path]:
    """Models of runs named in a parameter: "InfoNCE: runs/info, random mask: runs/random"."""
    models = {}
    for part in filter(None, (part.strip() for part in runs.split(","))):
        name, colon, folder = part.partition(":")
        if not colon:
            raise ValueError(f"{part!r}: give runs as name: folder, separated by commas")
        models[name.strip()] = trained_model(folder.strip())
    return models


def model_source(name: str) -> str | Path:
    """Resolve a model parameter: "" is unite-tiny; else a run folder of notebook 04 or 05, a model
    folder, the name of a shipped stage ("tiny-stage2") or a hub id.

    Where `make run` has not trained the stages that notebooks name by default, those that ship
    stand in, and that is printed.
    """
    if not name:
        return TINY
    folder = from_root(name)
    if (folder / "run.json").is_file():
        return trained_model(name)
    if name in _STAND_INS and not folder.is_dir():
        print(f"{name} is missing (make run trains it): {_STAND_INS[name]}, which ships, stands in")
        return _STAND_INS[name]
    if not folder.is_dir() and name.count("/") > 1:  # no hub id
        raise FileNotFoundError(
            f"{name} is missing: make run trains it; or give a shipped stage, such as tiny-stage2"
        )
    return folder if folder.is_dir() else name


def stage_weights(stage: StageConfig, root: str | Path) -> dict[str, float]:
    """How often a corpus repeats records of a task in a stage; tasks not named: once."""
    manifest = Path(root) / "manifest.json"
    wanted = read_json(manifest).get("weights", {}) if manifest.is_file() else {}
    return wanted.get(stage.name, {})


def train_stage(
    stage: StageConfig,
    model: str | Path,
    root: str | Path,
    output: str | Path,
    data: str | Path | None = None,
) -> Path:
    """Train a stage on the corpus's records for it, or unweighted on the records file `data`.

    Returns the merged model's folder. An interrupted run in `output` resumes from its last
    checkpoint.
    """
    from ..train.run import train

    return train(
        TrainConfig(
            model=str(model),
            data=(str(data or Path(root) / f"{stage.name}.jsonl"),),
            output=str(output),
            stage=stage,
            media_root=str(root),
            weights={} if data else stage_weights(stage, root),
            logging_steps=max(1, stage.max_steps // 40),
            cache_vision=True,
        )
    )


def first_factors(
    model: str | Path, probe: ModalityProbe
) -> dict[str, ModalityProbe | ModalityRouter]:
    """What tells a query's modality to a factorised score: the probe, and the model's head if it
    was trained with one and with one temperature: {"probe": …, "head": …}.
    """
    from ..model.router import ModalityRouter, router_file

    if router_file(model) is None:
        return {"probe": probe}
    head = ModalityRouter.load(model)
    if head.temperature is None:
        print("the head has no temperature of its own, so that the probe alone is tried")
        return {"probe": probe}
    return {"probe": probe, "head": head}


def trained_model(run: str) -> Path:
    """The merged model of a run of notebook 04 or 05."""
    model = from_root(run) / "train" / "model"
    if not model.is_dir():
        raise FileNotFoundError(
            f"{model} is missing, so {run} is no finished run of notebook 04 or 05: run that "
            "notebook into it first, or leave the parameter empty to train a short stage here"
        )
    return model
