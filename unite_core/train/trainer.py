"""TODO."""

# Shapes: B pairs in a batch, K hard negatives, N = 2 B + K items, D embedding size.

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import rotate_checkpoints

from ..data.bad_media import BadMediaError, BadMediaRow, check_bad_share
from ..data.modality import Modality
from ..data.pairs import PairDataset
from ..distributed import barrier, processes
from ..files import flush, read_json, write_json
from ..loss.contrastive import in_batch_accuracy, surviving_share
from ..model.embedder import UniteEmbedder
from ..model.lora import fused_lora
from .checkpoints import write_manifest
from .collator import PairCollator
from .config import StageConfig, TrainConfig
from .gradcache import embed_groups
from .losses import part_sizes, stage_loss
from .parallel import (
    average_gradients,
    broadcast_weights,
    gather_batch,
    gather_bytes,
    shard_frozen,
    with_blanks,
)
from .sampler import PairSampler

__all__ = ["UniteTrainer"]


_WEIGHTS = "trained.safetensors"
_SEED_STEP = 1_000_003  # between the random streams of processes


class UniteTrainer(Trainer):
    """transformers' Trainer on pairs: contrastive loss, small checkpoints, in-batch measures.

    Args
        embedder  with trainable weights (`attach_lora`); all others stay as they are
        stage     what to train and how; its seed decides order and dropout
        args      TrainingArguments; the batches themselves come from `sampler` and `collator`
        dataset, sampler, collator  of `batches`
        max_bad_share  of the records may have unreadable media before training stops
        grad_cache     hold one group's activations at a time, at the price of a second forward
        shard          spread the frozen decoder over processes (`shard_frozen`)
    """

    def __init__(self, embedder: UniteEmbedder, stage: StageConfig, args: TrainingArguments,
                 dataset: PairDataset, sampler: PairSampler, collator: PairCollator,
                 max_bad_share: float = 0.01, grad_cache: bool = False,
                 shard: bool = False):  # fmt: skip
        super().__init__(
            model=_PairModel(embedder, grad_cache, shard), args=args, train_dataset=dataset,
            data_collator=collator, callbacks=[_Progress(), _TensorBoard()],
        )  # fmt: skip
        self.remove_callback(PrinterCallback)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "the launcher's own FSDP and DeepSpeed are not supported: start without them and "
                "set shard_frozen to true, which spreads the frozen weights over processes; the "
                "few trained weights need no sharding"
            )
        self.stage, self.sampler, self.max_bad_share = stage, sampler, max_bad_share
        rank, self.processes = processes()
        broadcast_weights(_trained(self.model).values())
        if shard:
            shard_frozen(embedder)
        if rank:  # else all processes would drop out the same places
            torch.manual_seed(stage.seed + _SEED_STEP * rank)
        self._skipped = Path(args.output_dir, "skipped.json")
        self._bad = _known_bad(self._skipped, dataset.bad)
        self._report_bad([])
        self._measures: dict[str, list[float]] = defaultdict(list)

    @classmethod
    def from_config(cls, config: TrainConfig) -> UniteTrainer:
        """Everything that `train` needs, from the model and the records on."""
        stage, (rank, world) = config.stage, processes()
        dataset = PairDataset(config.data, config.media_root)
        sampler = _sampler(config, dataset, rank, world)
        arguments = _arguments(config, sampler)
        embedder = _adapted(config, arguments.device)
        if config.gradient_checkpointing:
            for part in (embedder.base.language_model, embedder.base.visual):
                if any(weight.requires_grad for weight in part.parameters()):
                    part.activation_checkpointing_enable()
        cache = config.cache_mib // max(1, config.workers)
        encode_vision = embedder.encode_vision if config.cache_vision else None
        collator = PairCollator(embedder.processor, config.media_root, config.forward_items, cache,
                                encode_vision, 2 if world == 1 else 0,
                                config.forward_tokens)  # fmt: skip
        return cls(embedder, stage, arguments, dataset, sampler, collator,
                   config.max_bad_share, config.grad_cache, config.shard_frozen)  # fmt: skip

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        own = model(inputs["groups"], inputs["order"])
        vectors, labels, rows = gather_batch(own, inputs)
        if bad := _gather_bad(inputs["bad"], self.args.device):
            self._report_bad(bad)
        self._check_pairs(len(labels["target_modality"]))
        self._measure(vectors.detach(), labels)
        # The parts add up to the loss; logged losses and gradients are averaged over processes.
        loss = self.processes * stage_loss(self.stage, vectors, labels, rows)
        return (loss, own) if return_outputs else loss

    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        exact = not (self.args.bf16 or self.model.sharded)  # small updates of W survive in float32
        with fused_lora(self.model) if exact else nullcontext():
            loss = super().training_step(model, inputs, num_items_in_batch)
        average_gradients(self.model.parameters())
        return loss

    def _prepare_inputs(self, inputs: dict) -> dict:
        """Labels go to the device; media stay, `embed_groups` moves them group by group."""
        groups = inputs.pop("groups")
        return super()._prepare_inputs(inputs) | {"groups": groups}

    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.device.type == "cuda",
            generator=torch.Generator().manual_seed(self.stage.seed),  # not the global one
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if not math.isfinite(logs.get("loss", 0.0)):
            raise FloatingPointError(
                f"the loss is {logs['loss']} at step {self.state.global_step}: lower the learning "
                "rate, or raise the temperature; the last checkpoint is from before"
            )
        if "loss" in logs:
            logs |= {name: sum(each) / len(each) for name, each in self._measures.items()}
            self._measures.clear()
        if "train_loss" in logs:  # transformers' own counts from the last start of the process
            logs["train_loss"] = _mean_loss(self.state.log_history)
        seen = self.state.global_step * self.sampler.batch_size
        self.state.epoch = seen / self.sampler.epoch_size
        super().log(logs, start_time)

    def _wrap_model(self, model, training: bool = True, dataloader=None):
        """Without DDP: it would overlook weights that only some groups use.

        `training_step` averages the gradients instead; few weights are trained.
        """
        model = self.accelerator.prepare_model(model, evaluation_mode=True)
        model._is_accelerate_prepared = True  # as it is now
        return model

    def _check_pairs(self, left: int) -> None:
        """A process may be left without pairs by bad media, the whole batch may not."""
        if left < 2:
            names = ", ".join(self._bad)
            raise BadMediaError(f"{left} pairs are left in a batch; unreadable so far: {names}")

    def _measure(self, vectors: Tensor, labels: Mapping[str, Tensor]) -> None:
        """In-batch accuracy by target modality and the share of surviving pairs of this step."""
        modality, ids = labels["target_modality"], labels["candidate_ids"]
        query, candidate, _ = vectors.split(part_sizes(vectors, modality))
        for code, share in in_batch_accuracy(query, candidate, modality, ids).items():
            self._measures[f"accuracy/{Modality(code).label}"].append(share)
        self._measures["surviving_share"].append(surviving_share(modality))

    def _report_bad(self, bad: Sequence[BadMediaRow]) -> None:
        """Add to the records left out, save the list, stop if they are too many."""
        self._bad |= {one.where: one for one in bad}
        if self._bad and self.args.process_index == 0:
            write_json(self._skipped, [asdict(one) for one in self._bad.values()])
        total = len(self.train_dataset) + len(self.train_dataset.bad)
        check_bad_share(list(self._bad.values()), total, self.max_bad_share)

    def _get_output_dir(self, trial) -> str:
        """Where `_save_checkpoint` writes before the checkpoint is whole."""
        return str(Path(self.args.output_dir, "checkpoint.partial"))

    def _save_checkpoint(self, model, trial) -> None:
        partial, first = Path(self._get_output_dir(trial)), self.args.process_index == 0
        if first:
            shutil.rmtree(partial, ignore_errors=True)
        barrier()
        super()._save_checkpoint(model, trial)
        barrier()
        if first:
            for checkpoint in partial.iterdir():
                write_manifest(checkpoint)
                flush(checkpoint)
                checkpoint.replace(Path(self.args.output_dir, checkpoint.name))
            partial.rmdir()
            rotate_checkpoints(self.args.output_dir, save_total_limit=self.args.save_total_limit)
        barrier()

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_trained(self.model), folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        weights = load_file(Path(resume_from_checkpoint, _WEIGHTS))
        model = model or self.model
        if weights.keys() != _trained(model).keys():
            raise ValueError(
                f"{resume_from_checkpoint}: its weights are not those that this stage trains; "
                "remove the checkpoint or choose another output folder"
            )
        _copy_weights(weights, model)


class _PairModel(torch.nn.Module):
    """One forward call per step; `cached` as in `embed_groups`, `shard` as in `shard_frozen`."""

    def __init__(self, embedder: UniteEmbedder, cached: bool = False, shard: bool = False):
        super().__init__()
        self.embedder, self.cached = embedder, cached
        self.sharded = shard and processes()[1] > 1

    def forward(self, groups: Sequence[Mapping[str, Tensor]], order: Tensor) -> Tensor:
        """The collator's groups -> [N, D] unit vectors of queries, candidates, negatives."""
        weight = next(self.embedder.parameters())
        if self.sharded:
            groups = with_blanks(groups, weight.device)
        if not groups:  # of a process whose pairs all have bad media; it still takes part
            return torch.zeros(0, self.embedder.dim, device=weight.device, requires_grad=True)
        return embed_groups(self.embedder, groups, weight, self.cached)[order]


class _Progress(TrainerCallback):
    """A bar of plain text that looks the same in a terminal and in a notebook."""

    def on_train_begin(self, args, state, control, **_):
        from tqdm import tqdm

        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="train", mininterval=1.0,
            disable=not state.is_world_process_zero,
        )  # fmt: skip

    def on_step_end(self, args, state, control, **_):
        self.bar.update(state.global_step - self.bar.n)
        # What was measured since the last log is not in a checkpoint: log before saving.
        control.should_log |= control.should_save

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_train_end(self, args, state, control, **_):
        self.bar.close()


class _TensorBoard(TensorBoardCallback):
    """Event files in one folder; what a killed run logged after its last checkpoint is purged."""

    def on_train_begin(self, args, state, control, **_):
        from torch.utils.tensorboard import SummaryWriter

        if not state.is_world_process_zero:
            return
        folder = str(Path(args.output_dir, "tensorboard"))
        self.tb_writer = SummaryWriter(folder, purge_step=state.global_step + 1)


def _sampler(config: TrainConfig, dataset: PairDataset, rank: int = 0,
             world_size: int = 1) -> PairSampler:  # fmt: skip
    """The batches of this process; `batch_size` is per process, steps and epochs are global."""
    stage, batch_size = config.stage, config.stage.batch_size * world_size
    sampler = PairSampler(dataset, batch_size, 0, config.weights, stage.seed, config.sampling,
                          rank, world_size)  # fmt: skip
    steps = int(stage.epochs * sampler.epoch_size / batch_size)
    sampler.steps = stage.max_steps if stage.max_steps > 0 else steps
    if sampler.steps < 1:
        raise ValueError(
            f"{stage.epochs} epochs of {sampler.epoch_size} pairs make no batch of "
            f"{batch_size}: lower batch_size, or raise epochs or max_steps"
        )
    return sampler


def _arguments(config: TrainConfig, sampler: PairSampler) -> TrainingArguments:
    stage = config.stage
    arguments = TrainingArguments(
        output_dir=config.output,
        max_steps=sampler.steps,
        per_device_train_batch_size=stage.batch_size,
        learning_rate=stage.learning_rate,
        weight_decay=stage.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=stage.warmup_ratio,  # below 1 it is a share of all steps
        seed=stage.seed,
        logging_steps=config.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would hide a loss that is not finite
        save_steps=stage.save_steps,
        save_total_limit=config.save_total_limit,
        dataloader_num_workers=config.workers,
        bf16=config.bf16,
        remove_unused_columns=False,
        disable_tqdm=True,  # `_Progress` is the bar
        report_to="none",  # the TensorBoard callback is added with its folder
        use_cpu=not torch.cuda.is_available(),
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # no DataParallel: it would split the negatives
    return arguments


def _adapted(config: TrainConfig, device: torch.device | str, dtype=None) -> UniteEmbedder:
    """The model that a run starts from, with what it trains attached and marked."""
    stage = config.stage
    embedder = UniteEmbedder.load(config.model, device, dtype, **config.embed)
    embedder.attach_lora(stage.lora_rank, stage.lora_alpha, stage.lora_dropout, stage.seed)
    if stage.train_vision:
        embedder.base.visual.requires_grad_(True)
    return embedder


def _trained(model: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad
    }


def _copy_weights(weights: Mapping[str, Tensor], model: torch.nn.Module) -> None:
    for name, value in _trained(model).items():
        value.copy_(weights[name])


def _mean_loss(history: Sequence[Mapping]) -> float:
    """Of all steps; each logged loss is the mean of the steps since the one before."""
    total, before = 0.0, 0
    for row in history:
        if "loss" in row:
            total += row["loss"] * (row["step"] - before)
            before = row["step"]
    return total / max(1, before)


def _known_bad(path: Path, found: Sequence[BadMediaRow]) -> dict[str, BadMediaRow]:
    rows = read_json(path) if path.is_file() else []
    return {one.where: one for one in (*(BadMediaRow(**row) for row in rows), *found)}


def _gather_bad(bad: Sequence[BadMediaRow], device: torch.device) -> list[BadMediaRow]:
    """Those of all processes."""
    own = json.dumps([asdict(one) for one in bad]).encode() if bad else b""
    messages = filter(None, gather_bytes(own, device))
    return [BadMediaRow(**row) for message in messages for row in json.loads(message)]
