"""Training of one stage: `train(TrainConfig)`, or `unite train CONFIG.json`.

The output folder holds `train.json` (the configuration), `inputs.json` (hashes of what it started
from, see `claim`), `checkpoint-N` (to resume from), `tensorboard`, `history.json` (what was
logged), `best` (the weights that `keep` asks for), `skipped.json` (records left out, if any),
`temperature.json` (if it is learned), `negatives-STEP.npy` (if they are mined anew), `records` (a
table of them, if they are many), `clusters.npz` (if batches are made of them), `adapter` (the LoRA
alone) and, once training is finished, `model`: the merged checkpoint that the next stage starts
from, with its model card and its router if one was trained. Each is complete or absent.

Under torchrun or `accelerate launch` each process embeds `batch_size` pairs, and all are compared
with all (`parallel`): W processes train what one would train with W times the `batch_size`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from torch import Tensor
from transformers.trainer_utils import get_last_checkpoint

from ..distributed import barrier, join_processes, rank_zero_first
from ..files import flush, working_in, write_json
from .checkpoints import check_manifest, copy_weights, whole_weights
from .claim import check_run, claim
from .config import TrainConfig
from .held_out import MakeScores, load_best
from .model_card import write_card
from .refresh import MakeMiner, Miner, fit, negatives_miner
from .setup import adapted_model
from .trainer import UniteTrainer

__all__ = ["check_global_batch", "check_start", "train"]


def train(config: TrainConfig, scores: MakeScores | None = None,
          miner: MakeMiner | None = None) -> Path:  # fmt: skip
    """Train one stage; returns the folder of the merged checkpoint.

    Args
        scores  makes the function that scores `config.eval_data` while training, from that and the
                media root: `unite_core.evaluation.TrainingScores`
        miner   makes what mines hard negatives every `stage.refresh_steps` steps, from
                `stage.refresh`: `unite_core.search.NegativeMiner`

    Resumes from the last checkpoint in `config.output`; does nothing if the run is finished.
    ValueError where the folder holds a run of another objective or with other inputs (`claim`),
    InUseError where another process trains in it. A start that fails before its first step leaves
    no claim. With several processes, rank 0 writes and the others wait for it.

        model = train(TrainConfig("Qwen/Qwen2-VL-2B-Instruct", "pairs.jsonl", "runs/stage1"))
    """
    check_start(config)
    check_global_batch(config)
    rank, _ = join_processes(config.trainer.get("ddp_timeout", 3600))
    with nullcontext() if rank else working_in(config.output):
        return _train(config, rank, scores, negatives_miner(config, miner))


def _train(config: TrainConfig, rank: int, scores: MakeScores | None,
           miner: Miner | None) -> Path:  # fmt: skip
    output, finished = Path(config.output), Path(config.output, "model")
    with rank_zero_first():
        inputs = check_run(config) if rank == 0 else {}
    if finished.is_dir():
        return finished
    checkpoint = get_last_checkpoint(output) if output.is_dir() else None
    if checkpoint:
        check_manifest(checkpoint)
    trainer = UniteTrainer.from_config(config, scores)
    with rank_zero_first():
        if rank == 0:
            claim(config, inputs, trainer.train_dataset)
    fit(trainer, config, checkpoint, miner)
    barrier()  # the first process writes the best weights
    if config.keep == "best":
        load_best(config.output, trainer.model)
    weights = whole_weights(trainer.model.embedder)
    if rank == 0:
        _publish(trainer, config, weights)
        if trainer.args.push_to_hub:
            _push(finished, trainer.hub_model_id, trainer.args.hub_revision)
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


def _publish(trainer: UniteTrainer, config: TrainConfig, weights: Mapping[str, Tensor]) -> None:
    """Write what a finished run leaves behind, the merged model last.

    Args: weights  trained, by name, none of them spread
    """
    output = Path(config.output)
    write_json(output / "history.json", trainer.state.log_history)
    if trainer.model.temperature is not None:
        write_json(output / "temperature.json", trainer.model.temperature.named_values())
    embedder = trainer.model.embedder
    if trainer.model.sharded or config.quantize:  # the frozen weights are those on the disk
        frozen = {w.dtype for w in embedder.parameters() if not w.requires_grad}
        dtype = next(kind for kind in frozen if kind.is_floating_point)  # others are packed bits
        embedder = adapted_model(config, "cpu", dtype, whole=True)
        copy_weights(weights, embedder)
    if embedder.has_lora:
        whole = "trained" in trainer.stage.visual_parts.values() or trainer.stage.lora is None
        if not whole:  # else the LoRA alone would not be what was trained
            embedder.save_lora(output / "adapter")
        embedder.merge_lora()
    partial = output / "model.partial"
    embedder.save(partial)
    if trainer.model.router is not None:
        trainer.model.router.save(partial)
    write_card(partial, config, trainer.train_dataset, trainer.state.global_step)
    flush(partial)
    partial.replace(output / "model")


def _push(model: Path, repository: str, revision: str | None) -> None:
    """Upload a finished model; where that fails, a warning says how to do it later."""
    from huggingface_hub import HfApi

    try:
        HfApi().upload_folder(repo_id=repository, folder_path=model, revision=revision)
    except Exception as error:  # hub, network and cache errors have no common class
        warnings.warn(
            f"{model} is finished and was not pushed ({error}): hf upload {repository} {model} .",
            stacklevel=2,
        )
