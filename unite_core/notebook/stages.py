"""Models of a notebook: trained here in short stages, or taken from finished runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..files import read_json
from ..tiny.model import TINY
from ..tiny.stages import TINY_STAGE_1, TINY_STAGE_2
from ..train.config import StageConfig, TrainConfig
from .runs import from_root

__all__ = [
    "CONTROLS", "model_source", "named_runs", "stage_models", "stage_weights", "train_stage",
    "trained_model",
]  # fmt: skip


def stage_models(
    root: str | Path, stage_1: str, stage_2: str, controls: str, steps: int, seed: int, folder: Path
) -> dict[str, str | Path]:
    """Models in the order of training: base, stage 1, stage 2, controls of stage 2.

    Args
        root              corpus for short stages
        stage_1, stage_2  run folders of notebooks 04 and 05; empty: trained here for `steps`
                          steps, with an empty stage_2 also the `CONTROLS`, from the same stage 1
        controls          further models, in the form of `named_runs`
        folder            where short stages are trained
    Returns {name: folder or hub id}.
    """

    def short(stage, start, name):
        stage = replace(stage, max_steps=steps, seed=seed)
        return train_stage(stage, start, root, folder / name.replace(" ", "_"))

    models: dict[str, str | Path] = {"base": model_source("")}
    models["stage 1"] = (
        trained_model(stage_1) if stage_1 else short(TINY_STAGE_1, models["base"], "stage 1")
    )
    if stage_2:
        models["stage 2"] = trained_model(stage_2)
    else:
        for name, stage in {"stage 2": TINY_STAGE_2, **CONTROLS}.items():
            models[name] = short(stage, models["stage 1"], name)
    return models | named_runs(controls)


def named_runs(runs: str) -> dict[str, Path]:
    """Models of runs named in a parameter: "InfoNCE: runs/info, random mask: runs/random"."""
    models = {}
    for part in filter(None, (part.strip() for part in runs.split(","))):
        name, colon, folder = part.partition(":")
        if not colon:
            raise ValueError(f"{part!r}: give runs as name: folder, separated by commas")
        models[name.strip()] = trained_model(folder.strip())
    return models


CONTROLS = {
    "InfoNCE": replace(TINY_STAGE_2, loss="info_nce"),
    "random mask": replace(TINY_STAGE_2, loss="random_mask"),
}
"""Stage 2 with all negatives, and with as many as MAMCL keeps but drawn whatever their modality: a
difference from both is due to the modality and not to the number of negatives."""


def model_source(name: str) -> str | Path:
    """Resolve a model parameter: "" is unite-tiny, else a folder below the root or a hub id."""
    folder = from_root(name)
    return TINY if not name else folder if folder.is_dir() else name


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


def trained_model(run: str) -> Path:
    """The merged model of a run of notebook 04 or 05."""
    model = from_root(run) / "train" / "model"
    if not model.is_dir():
        raise FileNotFoundError(
            f"{model} is missing, so {run} is no finished run of notebook 04 or 05: run that "
            "notebook into it first, or leave the parameter empty to train a short stage here"
        )
    return model
