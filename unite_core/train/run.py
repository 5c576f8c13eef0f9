"""Training of one stage: `train(TrainConfig)`, or `unite train CONFIG.json`.

The output folder holds `train.json` (the configuration), `inputs.json` (hashes of what it started
from), `checkpoint-N` (to resume from), `tensorboard`, `history.json` (what was logged),
`skipped.json` (records left out, if any), `temperature.json` (if it is learned), `adapter` (the
LoRA alone) and, once training is finished, `model`: the merged checkpoint that the next stage
starts from. Each is complete or absent.

Under torchrun or `accelerate launch` each process embeds `batch_size` pairs, and all are compared
with all (`parallel`): W processes train what one would train with W times the `batch_size`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from ..distributed import barrier, join_processes, processes, rank_zero_first
from ..files import flush, read_json, write_json
from ..settings import read_config, write_config
from .checkpoints import check_manifest, copy_weights, trained_weights
from .config import TrainConfig
from .setup import adapted_model
from .trainer import UniteTrainer

__all__ = ["check_global_batch", "check_run", "check_start", "train"]


_NO_EFFECT = ("output", "save_total_limit", "cache_mib", "workers")  # on the trained weights


def train(config: TrainConfig) -> Path:
    """Train one stage; returns the folder of the merged checkpoint.

    Resumes from the last checkpoint in `config.output`; does nothing if the run is finished.
    ValueError where the folder holds a run with another configuration, other inputs or another
    number of processes. With several processes, rank 0 writes and the others wait for it.

        model = train(TrainConfig("Qwen/Qwen2-VL-2B-Instruct", "pairs.jsonl", "runs/stage1"))
    """
    check_start(config)
    check_global_batch(config)
    rank, _ = join_processes()
    with rank_zero_first():
        check_run(config)
    output, finished = Path(config.output), Path(config.output, "model")
    if finished.is_dir():
        return finished
    checkpoint = get_last_checkpoint(output)
    if checkpoint:
        check_manifest(checkpoint)
    trainer = UniteTrainer.from_config(config)
    trainer.train(resume_from_checkpoint=checkpoint)
    if rank == 0:
        _publish(trainer, config)
    barrier()
    return finished


def check_start(config: TrainConfig) -> None:
    """Check that the model to start from is there: stage k's merged weights for stage k + 1.

    These are in the `model` folder of stage k's output. ValueError where `config.model` is that
    output itself, or a `model` that is not there yet.
    """
    model = Path(config.model)
    if (model / "train.json").is_file():
        raise ValueError(
            f"model {model} is the output of a training run: give its merged weights, "
            f"{model / 'model'}"
        )
    might_be_hub_id = len(model.parts) == 2 and not model.parent.is_dir()
    if model.name == "model" and not model.is_dir() and not might_be_hub_id:
        raise ValueError(
            f"model {model} holds no merged weights: the stage with output {model.parent} comes "
            "first and is not finished; train it, or give another model"
        )


def check_global_batch(config: TrainConfig) -> None:
    """ValueError where `global_batch_size` is given and is not the pairs of all processes."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    pairs = config.stage.batch_size * world
    if config.global_batch_size not in (None, pairs):
        raise ValueError(
            f"batch_size {config.stage.batch_size} in {world} processes makes {pairs} pairs, "
            f"not global_batch_size {config.global_batch_size}: start another number of processes, "
            "or change one of the two fields (the learning rate belongs to the global batch)"
        )


def check_run(config: TrainConfig) -> None:
    """Check whether the run can start or resume in its output folder.

    Writes configuration and inputs there, or compares them with those of the run that the folder
    holds: ValueError that names each difference.
    """
    output = Path(config.output)
    inputs = {str(path): _hash(path) for path in (config.model, *config.data)}
    inputs["processes"] = processes()[1]  # they multiply the batch
    if not (output / "train.json").is_file():
        write_json(output / "inputs.json", inputs)
        write_config(config, output / "train.json")
        return
    before = asdict(read_config(TrainConfig, output / "train.json"))
    changes = _differences(before, asdict(config)) + _differences(
        read_json(output / "inputs.json"), inputs
    )
    if changes:
        raise ValueError(
            f"{output} holds a run with another configuration: {'; '.join(changes)}. Choose "
            "another output, remove that folder to start afresh, or go back to its configuration"
        )


def _differences(before: Mapping, now: Mapping, prefix: str = "") -> list[str]:
    """One line per field that differs and has an effect on the trained weights."""
    lines = []
    for name in sorted({*before, *now} - set(_NO_EFFECT)):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            lines.append(f"{prefix}{name} was {old!r}, now {new!r}")
    return lines


def _hash(path: str | Path) -> str:
    """Hash a file of records, or the weights in a model's folder; "" for a name on the hub."""
    path = Path(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in filter(Path.is_file, files):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16] if any(file.is_file() for file in files) else ""


def _publish(trainer: UniteTrainer, config: TrainConfig) -> None:
    """Write what a finished run leaves behind, the merged model last."""
    output = Path(config.output)
    write_json(output / "history.json", trainer.state.log_history)
    if trainer.model.temperature is not None:
        write_json(output / "temperature.json", trainer.model.temperature.named_values())
    embedder = trainer.model.embedder
    if trainer.model.sharded:  # rank 0 holds a part of it; the frozen weights are unchanged
        frozen = embedder.base.language_model.norm.weight
        embedder = adapted_model(config, "cpu", frozen.dtype)
        copy_weights(trained_weights(trainer.model.embedder), embedder)
    if not trainer.stage.train_vision:  # else the LoRA alone would not be what was trained
        embedder.save_lora(output / "adapter")
    embedder.merge_lora()
    partial = output / "model.partial"
    embedder.save(partial)
    flush(partial)
    partial.replace(output / "model")
