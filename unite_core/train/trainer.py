"""The trainer of a stage: transformers' Trainer on pairs, which all processes contrast together."""

# Shapes: B pairs in a batch, K hard negatives, N = 2 B + K items, D embedding size.

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints

from ..data.modality import Modality
from ..data.pairs import PairDataset
from ..distributed import barrier, processes
from ..files import flush
from ..loss.contrastive import in_batch_accuracy, surviving_share
from ..model.embedder import UniteEmbedder
from ..model.lora import fused_lora
from ..model.packing import is_packed
from ..model.router import ModalityRouter
from .callbacks import ClampTemperature, EventFiles, HeldOut, PresentSteps, ProgressBar
from .checkpoints import load_weights, save_weights, trained_weights, write_manifest
from .collator import PairCollator
from .config import StageConfig, TrainConfig
from .gradcache import embed_groups
from .held_out import MakeScores, Scores, held_out_scores
from .losses import (
    DISTILLATION,
    loss_batch,
    modality_cross_entropy,
    part_sizes,
    router_loss,
    stage_loss,
)
from .parallel import (
    average_gradients,
    broadcast_weights,
    gather_batch,
    gather_bytes,
    shard_frozen,
    with_blanks,
)
from .parts import learning_rates
from .sampler import PairSampler
from .setup import (
    adapted_model,
    make_router,
    make_sampler,
    run_records,
    training_arguments,
    vision_store,
)
from .skipped import SkippedRows
from .spread import plain, shard_trained, whole, whole_states
from .temperature import LearnedTemperature

__all__ = ["PairModel", "UniteTrainer"]


_SEED_STEP = 1_000_003  # between the random streams of processes


class UniteTrainer(Trainer):
    """transformers' Trainer on pairs: contrastive loss, small checkpoints, in-batch measures.

    Args
        embedder       with trainable weights (`attach_lora`); all others stay as they are
        stage          what to train and how; its seed decides order and dropout
        args           TrainingArguments; the batches themselves come from `sampler` and `collator`
        max_bad_share  share of the records that may have unreadable media before training stops
        grad_cache     hold one group's activations at a time, at the price of a second forward
        shard          spread the decoder over processes: `shard_frozen`, or where it is trained
                       whole `shard_trained`
    """

    def __init__(self, embedder: UniteEmbedder, stage: StageConfig, args: TrainingArguments,
                 dataset: PairDataset, sampler: PairSampler, collator: PairCollator,
                 max_bad_share: float = 0.01, grad_cache: bool = False,
                 shard: bool = False):  # fmt: skip
        if shard:
            spread = shard_trained if stage.lora is None else shard_frozen
            spread(embedder, args.device)
        temperature = LearnedTemperature(stage.temperature) if stage.learn_temperature else None
        router = make_router(stage, embedder.dim, dataset)
        super().__init__(
            model=PairModel(embedder, grad_cache, shard, temperature, router), args=args,
            train_dataset=dataset, data_collator=collator,
            callbacks=[PresentSteps(), ProgressBar(), EventFiles(), ClampTemperature()],
        )  # fmt: skip
        self.remove_callback(PrinterCallback)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "the launcher's own FSDP and DeepSpeed are not supported: start without them and "
                "set shard_frozen, which spreads frozen weights over processes, or shard_trained, "
                "which spreads a language model that is trained whole"
            )
        self.stage, self.sampler = stage, sampler
        rank, self.processes = processes()
        broadcast_weights(plain(trained_weights(self.model).values()))
        if rank:  # else all processes would drop out the same places
            torch.manual_seed(stage.seed + _SEED_STEP * rank)
        self.skipped = SkippedRows(Path(args.output_dir, "skipped.json"), dataset, max_bad_share)
        self.held_out: Scores | None = None
        self._measures: dict[str, list[float]] = defaultdict(list)

    @classmethod
    def from_config(cls, config: TrainConfig, scores: MakeScores | None = None) -> UniteTrainer:
        """Load the model and the records of a run and make its trainer.

        Args
            scores  see `train`; without them `config.eval_data` is a ValueError
        """
        held_out = held_out_scores(config, scores)
        stage, (rank, world) = config.stage, processes()
        dataset = run_records(config)
        if stage.loss in DISTILLATION and dataset.unscored:
            raise ValueError(
                f"{dataset.unscored}: no scores, which the loss {stage.loss} needs in every record"
            )
        sampler = make_sampler(config, dataset, rank, world)
        arguments = training_arguments(config, sampler.steps)
        embedder = adapted_model(config, arguments.device)
        if config.gradient_checkpointing:
            embedder.checkpoint_activations()
        cache = config.cache_mib // max(1, config.workers)
        encode_vision = embedder.encode_vision if config.cache_vision else None
        scored = not dataset.unscored and stage.refresh_steps is None  # mined ones have none
        collator = PairCollator(embedder.processor, config.media_root, config.forward_items, cache,
                                encode_vision, 2 if world == 1 else 0,
                                config.forward_tokens, dataset.identity_of,
                                vision_store(config, embedder), scored,
                                is_packed(embedder.base.language_model))  # fmt: skip
        trainer = cls(embedder, stage, arguments, dataset, sampler, collator,
                      config.max_bad_share, config.grad_cache,
                      config.shard_frozen or config.shard_trained)  # fmt: skip
        if held_out is not None:
            trainer.held_out = held_out
            trainer.add_callback(HeldOut(config, trainer.evaluate))
        return trainer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of this process's pairs among those of all; its mean over processes is whole."""
        local = model(inputs["groups"], inputs["order"])
        vectors, labels, rows = gather_batch(local, inputs)
        self.skipped.add(inputs["bad"], self.args.device)
        self.skipped.check_batch(len(labels["target_modality"]))
        learned = model.temperature() if model.temperature is not None else None
        self._measure(vectors.detach(), labels, learned)
        loss = stage_loss(self.stage, vectors, labels, rows, learned)
        if model.router is not None:
            codes = labels["target_modality"]
            part = router_loss(model.router, vectors[: len(codes)], codes, rows)
            loss = loss + self.stage.router_weight * part
        # The parts add up to the loss; logged losses and gradients are averaged over processes.
        loss = self.processes * loss
        return (loss, local) if return_outputs else loss

    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        exact = not (self.args.bf16 or self.model.sharded)  # small updates of W survive in float32
        with fused_lora(self.model) if exact else nullcontext():
            loss = super().training_step(model, inputs, num_items_in_batch)
        average_gradients(self.model.parameters())
        return loss

    def evaluate(self, *_, **__) -> dict[str, float]:
        """Score the model on held-out data and log it, names after `eval_`.

        Every process embeds all of it; the scores of the first count.
        """
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16):
            found = self.held_out(self.model.embedder)
        first = gather_bytes(json.dumps(found).encode(), self.args.device)[0]
        metrics = {f"eval_{name}": value for name, value in json.loads(first).items()}
        self.log(dict(metrics))  # it adds the epoch
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _prepare_inputs(self, inputs: dict) -> dict:
        """Move labels to the device; `embed_groups` moves the media, group by group."""
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
            logs |= {name: sum(steps) / len(steps) for name, steps in self._measures.items()}
            self._measures.clear()
            if self.model.temperature is not None:
                logs |= self.model.temperature.named_values()
        if "train_loss" in logs:  # transformers' own counts from the last start of the process
            logs["train_loss"] = _mean_loss(self.state.log_history)
        seen = self.state.global_step * self.sampler.batch_size
        self.state.epoch = seen / self.sampler.epoch_size
        super().log(logs, start_time)

    def _wrap_model(self, model, training: bool = True, dataloader=None):
        """Do without DDP, which would overlook weights that only some groups use.

        `training_step` averages the gradients instead; few weights are trained.
        """
        model = self.accelerator.prepare_model(model, evaluation_mode=True)
        model._is_accelerate_prepared = True  # as it is now
        return model

    @torch.no_grad()
    def _measure(self, vectors: Tensor, labels: Mapping[str, Tensor], learned) -> None:
        """In-batch accuracy by target modality, surviving pairs, and what is added to the loss."""
        modality, ids = labels["target_modality"], labels["candidate_ids"]
        query, candidate, _ = vectors.split(part_sizes(vectors, modality))
        for code, share in in_batch_accuracy(query, candidate, modality, ids).items():
            self._measures[f"accuracy/{Modality(code).label}"].append(share)
        self._measures["surviving_share"].append(surviving_share(modality))
        if self.stage.modality_weight:
            batch = loss_batch(self.stage, vectors, labels, temperature=learned)
            term = modality_cross_entropy(batch, self.stage)
            self._measures["modality_loss"].append(term.item())
        if (router := self.model.router) is not None:
            hits = router(query).argmax(1) == router.columns(modality)
            self._measures["router_accuracy"].append(hits.double().mean().item())
            self._measures["router_loss"].append(router_loss(router, query, modality).item())

    def _get_output_dir(self, trial) -> str:
        """Where `_save_checkpoint` writes until the checkpoint is complete."""
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
        save_weights(self.model, output_dir or self.args.output_dir)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push nothing while training: the finished model goes to the hub, see `train`."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        load_weights(resume_from_checkpoint, model or self.model)

    def _clip_grad_norm(self, model) -> Tensor:
        return whole(super()._clip_grad_norm(model))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.args.should_save:
            self.optimizer.state_dict()  # the first process needs the others' parts
        super()._save_optimizer_and_scheduler(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.model.sharded:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        for name, part in (("optimizer", self.optimizer), ("scheduler", self.lr_scheduler)):
            file = Path(checkpoint, f"{name}.pt")  # the whole state stays on the disk
            part.load_state_dict(torch.load(file, "cpu", weights_only=True, mmap=True))

    def get_decay_parameter_names(self, model) -> list[str]:
        """No decay of a learned temperature: it would pull it towards 1."""
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not name.startswith("temperature.")]

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """As transformers', with learning rates of their own for tower and projector if given."""
        made = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if made:
            whole_states(optimizer)
        rates = learning_rates(self.model.embedder, self.stage)
        for rate in sorted(set(rates.values())):
            for group in list(optimizer.param_groups):
                own = [weight for weight in group["params"] if rates.get(weight) == rate]
                if own:
                    group["params"] = [w for w in group["params"] if rates.get(w) != rate]
                    optimizer.add_param_group(group | {"params": own, "lr": rate})
        return optimizer


class PairModel(torch.nn.Module):
    """What is trained: the embedder, called once per step, a learned temperature, and a router.

    Args: cached as in `embed_groups`, shard as in `shard_frozen`.
    """

    def __init__(self, embedder: UniteEmbedder, cached: bool = False, shard: bool = False,
                 temperature: LearnedTemperature | None = None,
                 router: ModalityRouter | None = None):  # fmt: skip
        super().__init__()
        self.embedder, self.cached = embedder, cached
        self.temperature, self.router = temperature, router
        self.sharded = shard and processes()[1] > 1

    def forward(self, groups: Sequence[Mapping[str, Tensor]], order: Tensor) -> Tensor:
        """The collator's groups -> [N, D] unit vectors of queries, candidates, negatives."""
        weight = next(self.embedder.parameters())
        if self.sharded:
            groups = with_blanks(groups, weight.device)
        if not groups:  # of a process whose pairs all have bad media; it still takes part
            return torch.zeros(0, self.embedder.dim, device=weight.device, requires_grad=True)
        return embed_groups(self.embedder, groups, weight, self.cached)[order]


def _mean_loss(history: Sequence[Mapping]) -> float:
    """Mean loss of all steps; each logged loss is the mean of the steps since the one before."""
    total, before = 0.0, 0
    for row in history:
        if "loss" in row:
            total += row["loss"] * (row["step"] - before)
            before = row["step"]
    return total / max(1, before)
