"""What a run hands on to transformers' TrainingArguments and to peft's LoraConfig, and what not.

`trainer: {...}` and `lora: {...}` take the fields that these have in the installed versions. Those
that this package decides itself are refused, with the field to use instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["FREE_ARGUMENTS", "OWN_ARGUMENTS", "OWN_LORA", "check_lora", "check_trainer"]


_EVALUATION = "set eval_data, eval_steps, eval_metric, eval_patience and keep"
_SHARDING = "set shard_frozen"
_BATCHES = "batches come from stage.batch_size and sampling"
_GENERATING = "it is made for models that generate text"
_ALWAYS = "it is decided by the trainer of this package"

OWN_ARGUMENTS: Mapping[str, str] = {
    "output_dir": "set output",
    "max_steps": "set stage.max_steps",
    "num_train_epochs": "set stage.epochs",
    "learning_rate": "set stage.learning_rate",
    "weight_decay": "set stage.weight_decay",
    "warmup_steps": "set stage.warmup_ratio",
    "seed": "set stage.seed",
    "data_seed": "set stage.seed",
    "label_smoothing_factor": "set stage.loss",
    "per_device_train_batch_size": "set stage.batch_size",
    "gradient_accumulation_steps": "set grad_cache: parts of a batch would have fewer negatives",
    "auto_find_batch_size": "set stage.batch_size",
    "train_sampling_strategy": "set sampling",
    "length_column_name": _BATCHES,
    "dataloader_drop_last": _BATCHES,
    "accelerator_config": _BATCHES,
    "dataloader_in_order": _BATCHES,
    "ignore_data_skip": _BATCHES,
    "average_tokens_across_devices": _BATCHES,
    "include_num_input_tokens_seen": _BATCHES,
    "dataloader_num_workers": "set workers",
    "bf16": "set bf16",
    "fp16": "set bf16",
    "gradient_checkpointing": "set gradient_checkpointing",
    "gradient_checkpointing_kwargs": "set gradient_checkpointing",
    "activation_checkpointing": "set gradient_checkpointing",
    "activation_checkpointing_kwargs": "set gradient_checkpointing",
    "fsdp": _SHARDING,
    "fsdp_config": _SHARDING,
    "deepspeed": _SHARDING,
    "parallelism_config": _SHARDING,
    "logging_steps": "set logging_steps",
    "logging_strategy": "set logging_steps",
    "logging_nan_inf_filter": "a loss that is not finite stops the run",
    "save_steps": "set stage.save_steps",
    "save_strategy": "set stage.save_steps",
    "save_total_limit": "set save_total_limit",
    "save_on_each_node": "the first process writes, to a file system that all see",
    "enable_jit_checkpoint": "a killed run goes on from its last checkpoint",
    "save_only_model": "a checkpoint holds all that a run goes on from",
    "hub_strategy": "the finished model is pushed",
    "hub_always_push": "the finished model is pushed",
    "hub_token": "it would stand in train.json; log in with `hf auth login`",
    "use_cpu": "set CUDA_VISIBLE_DEVICES",
    "neftune_noise_alpha": _GENERATING,
    "use_liger_kernel": _GENERATING,
    "liger_kernel_config": _GENERATING,
    "use_cache": _GENERATING,
    "disable_tqdm": "one progress bar is shown",
    "load_best_model_at_end": _EVALUATION,
    "metric_for_best_model": _EVALUATION,
    "greater_is_better": _EVALUATION,
    "resume_from_checkpoint": "a run goes on from the last checkpoint in output",
    **dict.fromkeys(
        ("torch_compile", "torch_compile_backend", "torch_compile_mode"),
        "groups of a batch change their shapes with each step",
    ),
    **dict.fromkeys(
        ("restore_callback_states_from_checkpoint", "remove_unused_columns", "label_names",
         "prediction_loss_only", "include_for_metrics", "batch_eval_metrics", "bf16_full_eval",
         "fp16_full_eval", "do_train", "do_eval", "do_predict", "local_rank", "ddp_static_graph",
         "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers"),
        _ALWAYS,
    ),
}  # fmt: skip
"""Fields of TrainingArguments that are refused: what to do instead. So is each `eval_...` and
`per_device_eval_...`."""

FREE_ARGUMENTS = (
    "report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id",
    "trackio_static_space_id", "push_to_hub", "hub_model_id", "hub_private_repo", "hub_revision",
    "log_level", "log_level_replica", "log_on_each_node", "logging_first_step", "debug",
    "skip_memory_metrics", "torch_empty_cache_steps",
    "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context", "ddp_backend", "ddp_timeout",
)  # fmt: skip
"""Fields of TrainingArguments that may change when a run goes on: logging, pushing, waiting."""

OWN_LORA: Mapping[str, str] = {
    "r": "set stage.lora_rank",
    "lora_alpha": "set stage.lora_alpha",
    "lora_dropout": "set stage.lora_dropout",
    "modules_to_save": "set stage.train_vision, stage.train_projector, or lora to null",
    "trainable_token_indices": "set lora to null, which trains all weights",
    "base_model_name_or_path": "set model",
    "alora_invocation_tokens": _GENERATING,
    "megatron_config": _GENERATING,
    "megatron_core": _GENERATING,
    **dict.fromkeys(
        ("task_type", "peft_type", "auto_mapping", "peft_version", "revision", "inference_mode",
         "runtime_config"),
        _ALWAYS,
    ),
    **dict.fromkeys(
        ("loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config",
         "monteclora_config", "arrow_config", "kasa_config", "use_bdlora", "use_qalora",
         "qalora_group_size", "layer_replication", "target_parameters"),
        "it needs steps of its own around training",
    ),
}  # fmt: skip
"""Fields of LoraConfig that are refused: what to do instead."""

_STARTS = ("gaussian", "pissa", "olora", "orthogonal")  # need no data; pissa_niter_16 is one, too


def check_trainer(values: Mapping[str, Any]) -> None:
    """ValueError for a name that TrainingArguments does not have, or that is refused."""
    if not values:
        return
    from transformers import TrainingArguments

    own = dict(OWN_ARGUMENTS)
    for name in TrainingArguments.__dataclass_fields__:
        if name.startswith(("eval_", "per_device_eval_")):
            own[name] = _EVALUATION
    _check_names("trainer", values, TrainingArguments.__dataclass_fields__, own)
    schedule = values.get("lr_scheduler_type")
    if schedule in ("reduce_lr_on_plateau", "greedy"):
        raise ValueError(f"trainer.lr_scheduler_type {schedule} needs a loss on held-out data")


def check_lora(values: Mapping[str, Any] | None) -> None:
    """ValueError for a name that LoraConfig does not have or that is refused, or such a start."""
    if not values:
        return
    from peft import LoraConfig

    _check_names("lora", values, LoraConfig.__dataclass_fields__, OWN_LORA)
    start = values.get("init_lora_weights", True)
    if not isinstance(start, bool) and re.sub(r"_niter_\d+$", "", str(start)) not in _STARTS:
        raise ValueError(
            f"lora.init_lora_weights is {start!r}: must be true, {', '.join(_STARTS)} or "
            "pissa_niter_16; others need a pass over data before training"
        )


def _check_names(field: str, values: Iterable[str], known: Iterable[str], own: Mapping) -> None:
    for name in values:
        if name in own:
            raise ValueError(f"{field}.{name} cannot be set here: {own[name]}")
        if name not in known:
            allowed = sorted(set(known) - set(own))
            near = difflib.get_close_matches(name, allowed, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"{field}.{name} is no field{hint}; known: {', '.join(allowed)}")
