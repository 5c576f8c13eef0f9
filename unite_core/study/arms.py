"""The studies as data: arms, blocks of seeds, sizes, and the runs that they make.

docs/study.md says what each is for, and was written before the first run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..registry import Registry
from .mixes import Mix

__all__ = ["STUDIES", "Arm", "Run", "Size", "Study", "runs_of"]


@dataclass(frozen=True)
class Arm:
    """What one arm of a study changes: fields of its stage, of its batches, its records."""

    name: str
    label: str
    """How figures and tables call it."""
    stage: Mapping[str, Any] = field(default_factory=dict)
    """Fields of StageConfig in place of the study's."""
    one_modality: bool = False
    """Whether a batch has targets of one modality only."""
    mix: Mix | None = None
    """Of the study of data: the records of stage 1."""
    trained: bool = True
    """Whether there is a stage 2; else the arm is the shared stage 1 itself, beside which the
    others stand, and in no test."""


@dataclass(frozen=True)
class Size:
    """How much of a study is run: `smoke` proves that it works, `small` is what was run, `full` a
    plan for GPUs that has not been run."""

    corpus: str
    """Name of the corpus that `root` is made of, where it is missing."""
    train_root: str
    """Folder with the stages' records."""
    root: str
    """Folder with tasks.json and all media; may be the same."""
    steps_1: int
    steps_2: int
    blocks: int
    first_block: int = 0
    """Seed of the first block; the others follow."""
    fit_pairs: int = 2500
    """Training pairs on which search-time scores are fitted."""
    model: str = ""
    """Backbone: a folder or hub id; empty: unite-tiny."""
    recipe: str = "tiny"
    """Whose stages: those for unite-tiny, or the paper's for 2B."""
    batch_size: int = 64
    corpus_options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TrainConfig in place of the study's, such as how a large model fits a GPU."""

    @property
    def seeds(self) -> range:
        """The blocks' numbers, which are the seeds of all their stages."""
        return range(self.first_block, self.first_block + self.blocks)


@dataclass(frozen=True)
class Study:
    """Arms that are compared within blocks of seeds."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    sizes: Mapping[str, Size]
    splits: tuple[str, ...]
    """Of tasks, the primary one first; `development` alone may choose."""
    shared_stage_1: bool = False
    """Whether the arms of a block go on from one first stage, which no other block uses; else each
    trains a first stage of its own."""
    scores: tuple[str, ...] = ("cosine",)
    """Search-time scores, names of `scoring.SCORES`."""

    @property
    def of_data(self) -> bool:
        """Whether arms differ in the records of stage 1."""
        return any(arm.mix for arm in self.arms)

    @property
    def needs_fit(self) -> bool:
        """Whether a score needs vectors of training pairs."""
        return set(self.scores) != {"cosine"}

    def arm(self, name: str) -> Arm:
        """The arm of that name; ValueError lists the known ones."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        known = ", ".join(arm.name for arm in self.arms)
        raise ValueError(f"study {self.name} has no arm {name!r}: it has {known}")


@dataclass(frozen=True)
class Run:
    """One training: an arm in a block."""

    arm: str
    block: int
    """One of `Size.seeds`."""

    @property
    def name(self) -> str:
        """`mamcl-3`: arm and block."""
        return f"{self.arm}-{self.block}"


STUDIES: Registry[Study] = Registry("study")
"""Studies by name."""

_SMOKE = Size("shapes", "data/shapes", "data/shapes", steps_1=6, steps_2=6, blocks=2, fit_pairs=100,
              batch_size=16)  # fmt: skip
_EMOJI = Size("emoji", "data/emoji", "data/emoji_clips", steps_1=420, steps_2=420, blocks=6,
              corpus_options={"clips": [1, 2, 3, 4]})  # fmt: skip
_HUB = Size("", "data/unite", "data/unite", steps_1=2_000, steps_2=1_000, blocks=6,
            model="Qwen/Qwen2-VL-2B-Instruct", recipe="paper", batch_size=1024,
            settings={"bf16": True, "gradient_checkpointing": True, "grad_cache": True,
                      "forward_tokens": 8192, "forward_items": 512})  # fmt: skip

_MASK = STUDIES.register("mask")(
    Study(
        "mask",
        "Does the modality mask help?",
        arms=(
            Arm("info_nce", "InfoNCE", {"loss": "info_nce"}),
            Arm("mamcl", "MAMCL", {"loss": "mamcl"}),
            Arm("random_mask", "random mask", {"loss": "random_mask"}),
            Arm("one_modality", "one modality a batch", {"loss": "info_nce"}, one_modality=True),
            Arm("soft_mask", "soft mask", {"loss": "mamcl", "cross_modal_weight": 0.1}),
            Arm("modality_term", "MAMCL + modality term",
                {"loss": "mamcl", "modality_weight": 0.3}),
            Arm("router", "MAMCL + router", {"loss": "mamcl", "router_weight": 0.3}),
            Arm("stage_1", "stage 1 alone", trained=False),
        ),
        sizes={"smoke": _SMOKE, "small": _EMOJI, "full": _HUB},
        splits=("concept", "composition", "development"),
        shared_stage_1=True,
        scores=("cosine", "z-score", "centred", "bonus", "probe", "probe-tau", "router", "oracle"),
    )
)  # fmt: skip

# The winner of the study of the mask, in seeds that did not choose it and at full length.
STUDIES.register("confirmation")(
    replace(
        _MASK,
        name="confirmation",
        question="Does the winner hold in runs of its own?",
        arms=tuple(map(_MASK.arm, ("info_nce", "mamcl", "router"))),
        sizes={
            "smoke": replace(_SMOKE, first_block=2),
            "small": replace(_EMOJI, steps_1=950, steps_2=950, blocks=2, first_block=6),
            "full": replace(_HUB, blocks=2, first_block=6),
        },
    )
)

_BOTH = {"image": 0.5, "video": 0.5}
STUDIES.register("data")(
    Study(
        "data",
        "Which data help which search?",
        arms=(
            Arm("TV", "text-video", mix=Mix({"video": 1.0})),
            Arm("TV_frame", "the same clips as one frame", mix=Mix({"frame": 1.0})),
            Arm("TI", "text-image", mix=Mix({"image": 1.0})),
            Arm("TI_TV", "half of each", mix=Mix(_BOTH)),
            Arm("noise_30", "30 % of texts swapped", mix=Mix(_BOTH, swapped=0.3)),
            Arm("clean_30", "30 % swapped, curated", mix=Mix(_BOTH, swapped=0.3, curated=True)),
            Arm("noise_10", "10 % of texts swapped", mix=Mix(_BOTH, swapped=0.1)),
            Arm("clean_10", "10 % swapped, curated", mix=Mix(_BOTH, swapped=0.1, curated=True)),
            Arm("TT", "text-text", mix=Mix({"text": 1.0})),
            Arm("all", "a third of each", mix=Mix({"text": 1 / 3, "image": 1 / 3, "video": 1 / 3})),
            Arm("TI_wide", "text-image, more emoji", mix=Mix({"image": 1.0}, wide=True)),
            Arm("TV_25", "a quarter of clips", mix=Mix({"image": 0.75, "video": 0.25})),
            Arm("TV_75", "three quarters of clips", mix=Mix({"image": 0.25, "video": 0.75})),
            Arm("TV_tokens", "text-video, half the steps", mix=Mix({"video": 1.0}, steps=0.5)),
            Arm("fine_within", "fine captions in stage 1", mix=Mix(_BOTH, fine="within")),
            Arm("fine_between", "fine between the stages", mix=Mix(_BOTH, fine="between")),
            Arm("fine_after", "fine captions in stage 2", mix=Mix(_BOTH, fine="after")),
        ),
        sizes={
            "smoke": _SMOKE,
            "small": replace(_EMOJI, train_root="data/emoji_clips", steps_1=200, steps_2=200,
                             blocks=5),
            "full": replace(_HUB, blocks=5),
        },
        splits=("concept", "development"),
    )
)  # fmt: skip


def runs_of(study: Study, size: Size) -> Iterator[Run]:
    """All runs, block by block, so that what is there when time runs out is balanced."""
    for block in size.seeds:
        for arm in study.arms:
            yield Run(arm.name, block)
