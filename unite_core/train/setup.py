"""What a trainer is made of, from the configuration of a run: model, batches, arguments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..data.pair_store import record_files
from ..data.pairs import PairDataset
from ..data.readers import HUB
from ..distributed import processes, rank_zero_first
from ..model.embedder import UniteEmbedder
from ..model.loading import LoadConfig, dtype_of
from ..model.lora import keep_input_types
from ..model.packing import choose_attention
from ..model.router import ModalityRouter
from ..model.vision_store import VisionStore
from .config import StageConfig, TrainConfig
from .parts import mark_trained, part_weights
from .sampler import PairSampler

if TYPE_CHECKING:
    from transformers import TrainingArguments

__all__ = [
    "adapted_model", "make_router", "make_sampler", "run_records", "training_arguments",
    "vision_store",
]  # fmt: skip


_IN_MEMORY = 2**26  # bytes of records that every process reads at each start


def adapted_model(config: TrainConfig, device: torch.device | str, dtype=None,
                  whole: bool = False) -> UniteEmbedder:  # fmt: skip
    """Load the model that a run starts from, with what it trains attached and marked.

    With `config.shard_frozen` in several processes it is on the CPU, for `shard_frozen` to take it
    to the device part by part.

    Args
        dtype  default: float32, or with `config.bf16` that of `UniteEmbedder.load`
        whole  not in four bits, even where `config.quantize` says so
    What is trained is float32 in any case.
    """
    dtype = dtype or (None if config.bf16 else torch.float32)
    more = {"attention": config.attention} if config.attention else {}
    if config.quantize and not whole:
        more["quantize"] = config.quantize
    if (config.shard_frozen or config.shard_trained) and processes()[1] > 1 and not whole:
        place = torch.device(device)
        dtype = dtype or dtype_of(LoadConfig(), place)
        embedder = UniteEmbedder.load(config.model, "cpu", dtype, **more, **config.embed)
        choose_attention(embedder.base, embedder.loading, place, dtype)
    else:
        embedder = UniteEmbedder.load(config.model, device, dtype, **more, **config.embed)
    mark_trained(embedder, config.stage)
    if config.bf16:
        keep_input_types(embedder)
    visual = (weight for part in ("vision", "projector") for weight in part_weights(embedder, part))
    if config.cache_vision and any(weight.requires_grad for weight in visual):
        raise ValueError(
            "cache_vision needs a frozen tower: set it to false, or leave modules of the tower out "
            "of lora.target_modules"
        )
    return embedder


def run_records(config: TrainConfig) -> PairDataset:
    """The records of a run.

    From `_IN_MEMORY` bytes on, or from the hub, they are a table in the run's folder, `records`,
    that the first process makes and all map: see `data.pair_store`.
    """
    files = [file for name in config.data for file in record_files(Path(name)) if file.is_file()]
    small = sum(file.stat().st_size for file in files) < _IN_MEMORY
    if small and not any(name.startswith(HUB) for name in config.data):
        return PairDataset(config.data, config.media_root)
    with rank_zero_first():
        return PairDataset(config.data, config.media_root, Path(config.output, "records"))


def vision_store(config: TrainConfig, embedder: UniteEmbedder) -> VisionStore | None:
    """The store of visual tokens that a run names, checked against its tower."""
    if config.vision_store is None:
        return None
    store = VisionStore(config.vision_store)
    store.check(embedder)
    return store


def make_router(stage: StageConfig, dim: int, dataset: PairDataset) -> ModalityRouter | None:
    """A router at its start, with a class for each target modality of the records.

    None if the stage asks for none, or if all records ask for one modality: there is nothing to
    tell. It has the stage's temperature, unless that is learned or differs by modality.
    """
    if not stage.router_weight:
        return None
    codes = np.unique(dataset.table.target_modality)
    if len(codes) < 2:
        return None
    one = isinstance(stage.temperature, float) and not stage.learn_temperature
    temperature = stage.temperature if one else None
    return ModalityRouter(dim, codes, temperature=temperature)


def make_sampler(config: TrainConfig, dataset: PairDataset, rank: int = 0,
                 world_size: int = 1) -> PairSampler:  # fmt: skip
    """The batches of this process; `batch_size` is per process, steps and epochs are global.

    Clusters are `clusters.npz` in the run's folder.

    ValueError where the epochs make no batch.
    """
    stage, batch_size = config.stage, config.stage.batch_size * world_size
    sampler = PairSampler(dataset, batch_size, 0, config.weights, stage.seed, config.sampling,
                          rank, world_size, Path(config.output, "clusters.npz"))  # fmt: skip
    steps = int(stage.epochs * sampler.epoch_size / batch_size)
    sampler.steps = stage.max_steps if stage.max_steps > 0 else steps
    if sampler.steps < 1:
        raise ValueError(
            f"{stage.epochs} epochs of {sampler.epoch_size} pairs make no batch of "
            f"{batch_size}: lower batch_size, or raise epochs or max_steps"
        )
    return sampler


def training_arguments(config: TrainConfig, steps: int) -> TrainingArguments:
    """transformers' arguments of a run of that many steps; ValueError for a value they refuse."""
    from transformers import TrainingArguments

    stage = config.stage
    values = {
        "output_dir": config.output,
        "max_steps": steps,
        "per_device_train_batch_size": stage.batch_size,
        "learning_rate": stage.learning_rate,
        "weight_decay": stage.weight_decay,
        "lr_scheduler_type": "cosine",
        "warmup_steps": stage.warmup_ratio,  # below 1 it is a share of all steps
        "seed": stage.seed,
        "logging_steps": config.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it would hide a loss that is not finite
        "save_steps": stage.save_steps,
        "save_total_limit": config.save_total_limit,
        "dataloader_num_workers": config.workers,
        "bf16": config.bf16,
        "remove_unused_columns": False,
        "disable_tqdm": True,  # `ProgressBar` takes its place
        "report_to": "none",  # `EventFiles` is TensorBoard, in its own folder
        "use_cpu": not torch.cuda.is_available(),
    }
    try:
        arguments = TrainingArguments(**values | config.trainer)
    except (TypeError, ValueError) as error:
        if not config.trainer:
            raise
        raise ValueError(f"trainer {config.trainer}: {error}") from None
    arguments.report_to = [name for name in arguments.report_to if name != "tensorboard"]
    arguments._n_gpu = min(arguments.n_gpu, 1)  # no DataParallel: it would split the negatives
    return arguments
