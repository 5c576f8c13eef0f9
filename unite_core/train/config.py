"""TODO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from ..data.modality import parse_modality
from ..files import from_row
from ..model.config import EmbedConfig
from ..settings import _one_of

__all__ = ["STAGE_1", "STAGE_2", "SamplingConfig", "StageConfig", "TrainConfig"]


@dataclass(frozen=True)
class StageConfig:
    """One training stage as data (PAPER §3.3)."""

    name: str
    loss: str = "info_nce"  # or "mamcl", or "random_mask": the control that masks as many
    symmetric: bool = True  # add the candidate-to-query direction and halve
    temperature: float = 0.03
    cross_modal_weight: float = 0.0  # of "mamcl": how much negatives of other modalities count
    false_negative_margin: float | None = None  # drop negatives this far above the positive
    dims: tuple[int, ...] = ()  # Matryoshka: also train the first so many numbers of a vector
    learning_rate: float = 1e-4
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    batch_size: int = 64  # pairs per device
    max_steps: int = -1  # -1: `epochs` decide
    epochs: float = 1.0
    save_steps: int = 100
    train_vision: bool = False  # the vision tower and projector stay frozen unless asked
    seed: int = 0

    def __post_init__(self):
        _one_of("loss", self.loss, ("info_nce", "mamcl", "random_mask"))
        object.__setattr__(self, "dims", tuple(self.dims))  # a list in JSON
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, not {self.temperature}")
        if (
            not 0 <= self.cross_modal_weight <= 1
            or self.cross_modal_weight
            and self.loss != "mamcl"
        ):
            raise ValueError(
                f"cross_modal_weight {self.cross_modal_weight} must be in [0, 1], and 0 for the "
                f"loss {self.loss}"
            )
        if any(size < 1 for size in self.dims):
            raise ValueError(f"dims {list(self.dims)} must be at least 1")
        if self.batch_size < 2:
            raise ValueError(
                f"batch_size {self.batch_size} leaves no in-batch negative: use 2 or more"
            )
        if self.lora_rank < 1:
            raise ValueError(f"lora_rank must be at least 1, not {self.lora_rank}")


STAGE_1 = StageConfig(name="stage1")
"""Retrieval adaptation: symmetric InfoNCE on mixed batches (PAPER §3.3, 2B)."""

STAGE_2 = replace(
    STAGE_1, name="stage2", loss="mamcl", symmetric=False, learning_rate=2e-5, lora_alpha=64
)
"""Instruction tuning: one-directional MAMCL (PAPER §3.3, 2B)."""


@dataclass(frozen=True)
class SamplingConfig:
    """Which pairs share a batch; the defaults shuffle all pairs, batches running on over epochs.

    Groups are those of `group_by`. With quotas an epoch is still as many pairs as without, so a
    modality above its natural share is repeated sooner, one below it later.
    """

    mixing_exponent: float = 1.0
    """A group of n pairs is drawn in proportion to n^alpha, alpha = 1 / T in [0, 1]: 1 as it is,
    0 all groups alike. With quotas this holds inside each modality."""
    group_by: str = "source"  # or "task"
    sub_batch: int = 1  # pairs of a single group that stay together in a batch; 1: any
    quotas: dict[str, float] = field(default_factory=dict)
    """Share of each target modality in every global batch, such as {"text": 0.4, "image": 0.6};
    rounded by largest remainders. Empty: as the pairs come."""
    distinct: bool = False  # no content twice in a batch, be it query or candidate
    negatives: int | None = None  # hard negatives drawn per pair and batch; None: all

    def __post_init__(self):
        _one_of("group_by", self.group_by, ("source", "task"))
        if not 0 <= self.mixing_exponent <= 1:
            raise ValueError(f"mixing_exponent must be in [0, 1], not {self.mixing_exponent}")
        if self.sub_batch < 1 or (self.negatives or 0) < 0:
            raise ValueError(
                f"sub_batch {self.sub_batch} must be at least 1 and negatives {self.negatives} "
                "at least 0"
            )
        codes = [parse_modality(name) for name in self.quotas]
        shares = self.quotas.values()
        if len(set(codes)) < len(codes):
            raise ValueError(f"quotas name a modality twice: {', '.join(self.quotas)}")
        if codes and (min(shares) < 0 or abs(sum(shares) - 1) > 1e-6):
            raise ValueError(f"quotas must be at least 0 and add up to 1, not {self.quotas}")


@dataclass(frozen=True)
class TrainConfig:
    """One training run: a stage, what it starts from, its records and its output folder.

    In JSON `stage` is a StageConfig's fields, or the name of one: "stage1". Fields that it leaves
    out are those of the stage of that name, for other names StageConfig's defaults.
    """

    model: str  # folder or hub id; stage k + 1 starts from the `model` folder of stage k's output
    data: tuple[str, ...]  # files of records; a single name is taken as one file
    output: str  # folder of this run: checkpoints, logs, result
    stage: StageConfig = STAGE_1
    media_root: str = "."
    weights: dict[str, float] = field(default_factory=dict)
    """Factor by which records of a `source` or `task` (or both) come up more often than once per
    epoch; 0 leaves them out, 1.5 shows each once and a random half twice."""
    sampling: SamplingConfig = SamplingConfig()  # in JSON an object of its fields
    max_bad_share: float = 0.01  # of the records, with unreadable media; beyond it the run stops
    logging_steps: int = 10
    save_total_limit: int = 2  # checkpoints kept
    forward_items: int = 32  # items of similar length that share one forward
    forward_tokens: int | None = None  # that share one, padding included; None: any number
    grad_cache: bool = False  # hold one forward's activations at a time, running each twice
    cache_mib: int = 1024  # memory for encoded items, so that each medium is decoded once
    workers: int = 0  # processes that encode ahead of training; 0 encodes in between
    cache_vision: bool = False  # keep visual tokens, not pixels, in the cache: for a frozen tower
    embed: dict[str, str | int | float] = field(default_factory=dict)
    """Fields of EmbedConfig in place of what `model` was saved with, such as {"max_frames": 8};
    the trained model is saved with them."""
    global_batch_size: int | None = None
    """Pairs of all processes in a step; where batch_size x processes differs, training is refused.
    None: any number of processes."""
    bf16: bool = False  # compute in bfloat16; trained weights and the loss stay float32
    gradient_checkpointing: bool = False  # keep layers' inputs only: less memory, a forward more
    shard_frozen: bool = False  # each process keeps a part of the frozen decoder (`shard`, FSDP)

    def __post_init__(self):
        data = (self.data,) if isinstance(self.data, str) else tuple(map(str, self.data))
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "stage", _as_stage(self.stage))
        object.__setattr__(self, "sampling", _as_sampling(self.sampling))
        if not data:
            raise ValueError("data names no file of records: give at least one")
        from_row(EmbedConfig, self.embed, "embed")
        if (self.global_batch_size or 0) % self.stage.batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of batch_size "
                f"{self.stage.batch_size}: correct one of them"
            )
        if self.cache_vision and (self.stage.train_vision or self.workers):
            raise ValueError(
                "cache_vision needs a frozen tower in the same process: train_vision must be false "
                "and workers 0"
            )
        low = [name for name in ("logging_steps", "save_total_limit", "forward_items")
               if getattr(self, name) < 1]  # fmt: skip
        low += [name for name in ("workers", "cache_mib", "max_bad_share")
                if getattr(self, name) < 0]  # fmt: skip
        if self.forward_tokens is not None and self.forward_tokens < 1:
            low.append("forward_tokens")
        low += [f"weights[{name!r}]" for name, weight in self.weights.items() if weight < 0]
        if low:
            raise ValueError(f"{', '.join(low)} too small: counts start at 1, shares at 0")


def _as_stage(value) -> StageConfig:
    """A StageConfig from itself, from a stage's name, or from a mapping of its fields."""
    if isinstance(value, StageConfig):
        return value
    stages = {stage.name: stage for stage in (STAGE_1, STAGE_2)}
    if isinstance(value, str):
        _one_of("stage", value, tuple(stages))
        return stages[value]
    if not isinstance(value, Mapping) or "name" not in value:
        raise ValueError(f"stage must be a name or an object with a name, not {value!r}")
    unknown = sorted(set(value) - {each.name for each in fields(StageConfig)})
    if unknown:
        raise ValueError(f"stage has unknown field {', '.join(unknown)}: correct or remove it")
    return replace(stages.get(value["name"], StageConfig(value["name"])), **value)


def _as_sampling(value) -> SamplingConfig:
    """A SamplingConfig from itself or from a mapping of its fields."""
    if isinstance(value, SamplingConfig):
        return value
    return from_row(SamplingConfig, value, "sampling")
