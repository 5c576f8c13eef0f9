"""What a training run can be told: the stage, which pairs share a batch, and the run itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ..data.modality import parse_modality
from ..model.config import EmbedConfig
from ..settings import (
    Count,
    Name,
    Names,
    Natural,
    NonNegative,
    PathName,
    Positive,
    Share,
    fields_of,
    nested,
    one_or_more,
    settings,
)
from .arguments import check_lora, check_trainer
from .losses import DISTILLATION, LOSSES

__all__ = [
    "STAGES", "STAGE_1", "STAGE_2", "TINY_STAGE_1", "TINY_STAGE_2", "SamplingConfig", "StageConfig",
    "TrainConfig",
]  # fmt: skip


_WORDS = {True: "trained", False: "frozen"}
Part = Annotated[
    Literal["frozen", "lora", "trained"] | bool,
    AfterValidator(lambda value: _WORDS[value] if isinstance(value, bool) else value),
]
"""How a part of the model takes part: as it is (or false), with a LoRA, or whole (or true)."""


def _check_modalities(field: str, values: Mapping[str, float]) -> None:
    codes = [parse_modality(name) for name in values]
    if len(set(codes)) < len(codes):
        raise ValueError(f"{field} names a modality twice: {', '.join(values)}")


@settings
class StageConfig:
    """One training stage: its loss, its LoRA and its optimizer."""

    name: Name
    """Name of the stage; one with the name of a known stage starts from that stage's settings."""
    loss: Name = "info_nce"
    """A loss of `unite_core.train.losses`: info_nce, mamcl, random_mask, the control that masks as
    many negatives as MAMCL, drawn at random, or margin_mse or distill_kl, which learn a teacher's
    `scores` of a record's candidate and hard negatives."""
    symmetric: bool = True
    """Mean of the losses of both directions, query to candidate and candidate to query."""
    temperature: Positive | dict[str, Positive] = 0.03
    """Divisor of the cosines, or one for each target modality: {"text": 0.03, "image": 0.05}."""
    learn_temperature: bool = False
    """Train the temperature, from the given value on."""
    cross_modal_weight: Share = 0.0
    """Of mamcl: weight of negatives of other modalities; 0 masks them, 1 is InfoNCE."""
    modality_weight: NonNegative = 0.0
    """Of mamcl: weight of the cross-entropy of the target modality through the scores, in which
    candidates are constants; it trains queries to ask for their modality."""
    hardness: NonNegative = 0.0
    """Of info_nce and mamcl: negatives weigh exp(hardness x cosine), a constant (LLaVE has 9); 0:
    alike."""
    teacher_temperature: Positive = 1.0
    """Of margin_mse and distill_kl: divisor of the teacher's scores; cosines are divided by
    temperature."""
    router_weight: NonNegative = 0.0
    """Weight of the cross-entropy of the target modality by a linear head on the query's vector,
    which is trained, too, and saved with the model, unless all records ask for one modality;
    0: no head."""
    false_negative_margin: float | None = None
    """Drop negatives whose cosine is this far above the positive's; null: none."""
    refresh_steps: Count | None = None
    """Steps between minings of hard negatives with the model as it is then; null: never."""
    refresh: dict[str, Any] = Field(default_factory=dict)
    """What these minings keep: fields of MineConfig, such as {"negatives": 2, "skip": 5}."""
    dims: Annotated[tuple[Count, ...], BeforeValidator(one_or_more)] = ()
    """Matryoshka: also train the first so many coordinates of a vector."""
    learning_rate: Positive = 1e-4
    """Largest learning rate, reached after warm-up."""
    lora_rank: Count = 8
    """Rank of the LoRA updates."""
    lora_alpha: Count = 16
    """LoRA updates are multiplied by alpha / rank."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Dropout before the LoRA updates."""
    lora: dict[str, Any] | None = Field(default_factory=dict)
    """More fields of peft's LoraConfig, such as {"use_dora": true}; null: no LoRA, the language
    model is trained whole."""
    warmup_ratio: Share = 0.03
    """Share of the steps in which the learning rate rises."""
    weight_decay: NonNegative = 0.0
    """AdamW's weight decay."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Pairs per process and step; a pair alone would have no in-batch negative."""
    max_steps: Annotated[int, Field(ge=-1)] = -1
    """Optimizer steps; -1: as many as `epochs` need."""
    epochs: Positive = 1.0
    """Passes over the records, where max_steps is -1."""
    save_steps: Count = 100
    """Steps between checkpoints."""
    train_vision: Part = "frozen"
    """The vision tower is frozen, gets a LoRA like the language model's, or is trained whole."""
    train_projector: Part | None = None
    """The same for the projector between tower and language model; null: as train_vision."""
    vision_learning_rate: Positive | None = None
    """Largest learning rate of the vision tower, where it is trained; null: learning_rate."""
    projector_learning_rate: Positive | None = None
    """Largest learning rate of the projector, where it is trained; null: vision_learning_rate."""
    seed: Natural = 0
    """Decides order, dropout and LoRA's start."""

    def __post_init__(self):
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}: must be one of {', '.join(LOSSES)}")
        if self.max_steps == 0:
            raise ValueError("max_steps is 0: must be at least 1, or -1 for whole epochs")
        if self.cross_modal_weight and self.loss != "mamcl":
            raise ValueError(
                f"cross_modal_weight is {self.cross_modal_weight}: must be 0 for the loss "
                f"{self.loss}"
            )
        if self.modality_weight and self.loss != "mamcl":
            raise ValueError(
                f"modality_weight is {self.modality_weight}: must be 0 for the loss {self.loss}"
            )
        self._check_negatives()
        for part, how in self.visual_parts.items():
            rate = getattr(self, f"{part}_learning_rate")
            if rate is not None and how == "frozen" and not (self.lora or {}).get("target_modules"):
                raise ValueError(
                    f"{part}_learning_rate is {rate}: must be null where train_{part} is frozen"
                )
        check_lora(self.lora)
        if isinstance(self.temperature, dict):
            _check_modalities("temperature", self.temperature)

    def _check_negatives(self) -> None:
        if self.refresh and self.refresh_steps is None:
            raise ValueError("refresh needs refresh_steps, the steps between minings")
        if self.refresh_steps is not None and self.loss in DISTILLATION:
            raise ValueError(f"refresh_steps must be null for {self.loss}: no teacher scores them")
        if self.hardness and self.loss not in ("info_nce", "mamcl"):
            raise ValueError(f"hardness is {self.hardness}: must be 0 for the loss {self.loss}")
        if self.hardness and (self.dims or self.false_negative_margin is not None):
            raise ValueError("hardness goes with neither dims nor false_negative_margin")

    @property
    def visual_parts(self) -> dict[str, str]:
        """How the vision tower and the projector take part."""
        return {
            "vision": self.train_vision, "projector": self.train_projector or self.train_vision
        }  # fmt: skip


STAGE_1 = StageConfig(name="stage1")
"""Retrieval adaptation with the 2B model: symmetric InfoNCE on mixed batches."""

STAGE_2 = replace(
    STAGE_1, name="stage2", loss="mamcl", symmetric=False, learning_rate=2e-5, lora_alpha=64
)
"""Instruction tuning with the 2B model: MAMCL from query to candidate."""

TINY_STAGE_1 = replace(
    STAGE_1, learning_rate=1e-3, lora_rank=64, lora_alpha=128, lora_dropout=0.0, save_steps=20
)
"""Stage 1 for unite-tiny: a narrow model needs updates of higher rank and larger steps."""

TINY_STAGE_2 = replace(
    TINY_STAGE_1, name="stage2", loss="mamcl", symmetric=False, learning_rate=8e-4,
    router_weight=0.3,
)  # fmt: skip
"""Stage 2 for unite-tiny: it differs from stage 1 as in the paper, and trains a router, too
(docs/results.md, "Does the mask matter?")."""

STAGES = {
    "stage1": STAGE_1, "stage2": STAGE_2, "tiny-stage1": TINY_STAGE_1, "tiny-stage2": TINY_STAGE_2,
}  # fmt: skip
"""Settings by name: the paper's for the 2B model, and those that made the shipped models."""


@settings
class SamplingConfig:
    """Which pairs share a batch; by default all pairs are shuffled, batches running over epochs.

    Groups are those of `group_by`. With quotas an epoch is still as many pairs as without, so a
    modality above its natural share is repeated sooner, one below it later.
    """

    mixing_exponent: Share = 1.0
    """A group of n pairs is drawn in proportion to n^alpha, alpha = 1 / T in [0, 1]: 1 as it is,
    0 all groups alike. With quotas this holds inside each modality."""
    group_by: Literal["source", "task", "modality", "cluster"] = "source"
    """What makes a group of pairs; modality: that of the target; cluster: sub_batch pairs that are
    each other's hard negatives, of records that `unite mine` wrote."""
    sub_batch: Count = 1
    """Pairs of a single group that stay together in a batch; 1: any. As many as a batch of all
    processes makes batches of one group each."""
    quotas: dict[str, NonNegative] = Field(default_factory=dict)
    """Share of each target modality in every global batch, such as {"text": 0.4, "image": 0.6};
    rounded by largest remainders. Empty: as the pairs come."""
    distinct: bool = False
    """No content twice in a batch, as a query or as a candidate, and no two records of one group;
    it is so in any case where records have groups."""
    negatives: Natural | None = None
    """Hard negatives drawn per pair and batch; null: all."""

    def __post_init__(self):
        _check_modalities("quotas", self.quotas)
        if self.quotas and abs(sum(self.quotas.values()) - 1) > 1e-6:
            raise ValueError(f"quotas must add up to 1, not {self.quotas}")
        if self.group_by == "cluster" and (self.sub_batch == 1 or self.mixing_exponent != 1):
            raise ValueError(
                "group_by cluster needs sub_batch, the pairs of a cluster, above 1 and "
                "mixing_exponent 1: clusters are alike in size"
            )


def _stage(value: Any) -> Any:
    """A stage by name, and the fields that an object leaves out from the stage of its name."""
    if isinstance(value, str):
        if value not in STAGES:
            known = ", ".join(STAGES)
            raise ValueError(f"is {value!r}: must be one of {known}, or an object with a name")
        return STAGES[value]
    if isinstance(value, Mapping) and value.get("name") in STAGES:
        known = STAGES[value["name"]]
        return asdict(known) | dict(value) | {"name": known.name}
    return value


@settings
class TrainConfig:
    """One training run: a stage, what it starts from, its records and its output folder.

    `stage` is a StageConfig, an object of its fields, or the name of a stage: "stage1". Fields
    that an object leaves out are those of the stage of that name, else StageConfig's defaults.
    """

    model: PathName
    """Folder or hub id; stage k + 1 starts from the `model` folder of stage k's output."""
    data: Names
    """Files of records."""
    output: PathName
    """Folder of this run: checkpoints, logs, result."""
    stage: nested(StageConfig, _stage) = STAGE_1
    """Name of a stage (stage1, stage2, or for unite-tiny tiny-stage1, tiny-stage2), or an object of
    StageConfig's fields."""
    media_root: PathName = "."
    """Folder that media paths are relative to and must not leave."""
    weights: dict[str, NonNegative] = Field(default_factory=dict)
    """Factor by which records of a `source` or `task` (or both) come up more often than once per
    epoch; 0 leaves them out, 1.5 shows each once and a random half twice."""
    sampling: nested(SamplingConfig) = SamplingConfig()
    """Which pairs share a batch."""
    eval_data: PathName | None = None
    """Tasks (a file ...tasks.json) or held-out records to score while training; null: none."""
    eval_steps: Count = 100
    """Steps between scores; there are also some before the first and after the last step."""
    eval_metric: Name = "mixed_recall@10"
    """The score that decides what is best, the highest: single_recall@1 or @10, mixed_recall@1 or
    @10 (the pool of all modalities), target_share@10."""
    eval_patience: Count | None = None
    """Stop after so many scores in a row that are not the best; null: never."""
    keep: Literal["last", "best"] = "last"
    """Which weights become the model: those of the last step, or the best on eval_data."""
    max_bad_share: Share = 0.01
    """Share of records that may have unreadable media before training stops."""
    logging_steps: Count = 10
    """Steps between log entries."""
    save_total_limit: Count = 2
    """Checkpoints kept."""
    forward_items: Count = 32
    """Items of similar length that share one forward."""
    forward_tokens: Count | None = None
    """Tokens that share one forward at most, padding included; groups are then cut where little is
    padded. null: groups of forward_items, whatever their length."""
    attention: Name | None = None
    """As in LoadConfig: packed, sdpa, flash_attention_2; null: packed on a GPU in bfloat16."""
    grad_cache: bool = False
    """GradCache: hold one forward's activations at a time, running each forward twice."""
    cache_mib: Natural = 1024
    """Memory for encoded items, so that each media file is decoded once."""
    workers: Natural = 0
    """Processes that encode ahead of training; 0 encodes in between."""
    cache_vision: bool = False
    """Keep visual tokens in the cache instead of pixels: for a frozen vision tower."""
    vision_store: PathName | None = None
    """Folder of visual tokens that `unite_core.model.build_vision_store` made, shared by runs with
    the same frozen tower; needs cache_vision. null: each run computes its own."""
    embed: fields_of(EmbedConfig) = Field(default_factory=dict)
    """Fields of EmbedConfig in place of what `model` was saved with, such as {"max_frames": 8};
    the trained model is saved with them."""
    global_batch_size: Count | None = None
    """Pairs of all processes in a step; where batch_size x processes differs, training is refused.
    null: any number of processes."""
    bf16: bool = False
    """Compute in bfloat16; trained weights and the loss stay float32. False: all in float32,
    whatever the type of the checkpoint."""
    gradient_checkpointing: bool = False
    """Keep layers' inputs only: less memory, one forward more."""
    shard_frozen: bool = False
    """Spread the frozen decoder over the processes (FSDP)."""
    shard_trained: bool = False
    """Spread a language model that is trained whole over the processes, with its gradients and
    AdamW's moments (FSDP2); needs lora null and a frozen tower."""
    quantize: Literal["4bit"] | None = None
    """Keep the frozen decoder in four bits while it is trained (QLoRA; needs bitsandbytes). The
    update is merged into the weights as they were."""
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Fields of transformers' TrainingArguments: schedule, optimizer, clipping, loggers, hub, such
    as {"lr_scheduler_type": "linear", "report_to": "wandb"}."""

    def __post_init__(self):
        if (self.global_batch_size or 0) % self.stage.batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of batch_size "
                f"{self.stage.batch_size}: correct one of them"
            )
        if self.eval_data is None and (self.keep == "best" or self.eval_patience is not None):
            raise ValueError("keep 'best' and eval_patience need eval_data: name a file")
        self._check_spread()
        if self.vision_store is not None and not self.cache_vision:
            raise ValueError("vision_store needs cache_vision: set it to true")
        frozen = set(self.stage.visual_parts.values()) == {"frozen"}
        if self.cache_vision and (not frozen or self.workers):
            raise ValueError(
                "cache_vision needs a frozen tower in the same process: train_vision and "
                "train_projector must be frozen and workers 0"
            )
        for field in ("shard_frozen", "quantize"):
            if getattr(self, field) and self.stage.lora is None:
                raise ValueError(f"{field} needs frozen weights: lora must not be null")
            start = str((self.stage.lora or {}).get("init_lora_weights", ""))
            if getattr(self, field) and start.startswith(("pissa", "olora")):
                raise ValueError(f"{field} needs the weights as they are: {start} changes them")
        if self.shard_frozen and self.quantize:
            raise ValueError("quantize and shard_frozen exclude each other: choose one")
        check_trainer(self.trainer)

    def _check_spread(self) -> None:
        stage = self.stage
        for field in ("shard_frozen", "shard_trained"):
            if getattr(self, field) and self.eval_data is not None:
                raise ValueError(f"eval_data cannot be scored with {field}: score the saved model")
            if getattr(self, field) and stage.refresh_steps is not None:
                raise ValueError(f"refresh_steps cannot mine with {field}: mine between stages")
        frozen = set(stage.visual_parts.values()) == {"frozen"}
        beside = stage.learn_temperature or stage.router_weight
        if self.shard_trained and (stage.lora is not None or beside or not frozen):
            raise ValueError(
                "shard_trained needs lora null, train_vision and train_projector frozen, and "
                "neither learn_temperature nor router_weight"
            )
