"""How far a stage's settings can move a model, and which stage fits a model's size.

The reach of a stage is learning rate x LoRA alpha x steps: an optimizer step of AdamW changes an
entry of B by about the learning rate, and the update is alpha / rank times B A, a sum over rank.

Measured on unite-tiny (seed 0, 40 steps of 16 pairs of text and image of the corpus shapes; moved:
mean of 1 - cosine of 120 items' vectors before and after; ln 16 = 2.77 is the loss of chance):

    rate   rank  alpha  reach  moved  loss at the end, from 18
    1e-4      8     16   0.06   0.01  15.5
    3e-4      8     16   0.19   0.12   9.1
    1e-4     64    128   0.51   0.23   6.1
    1e-3      8     16   0.64   0.49   2.8
    3e-4     64    128   1.5    0.49   2.7
    1e-3     64    128   5.1    0.51   2.8

Below a reach of .64 a stage ends before its loss has come down to that of chance, where learning
begins.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from ..model.shipped import shipped_folder
from .config import STAGES, StageConfig, TrainConfig

__all__ = ["LEAST_REACH", "hidden_size", "short_reach", "stage_for", "stage_reach"]


LEAST_REACH = 0.64
"""Of a narrow model."""
NARROW = 512
"""Hidden size up to which a model is narrow; unite-tiny has 256, the 2B models 1536."""


def hidden_size(model: str | Path) -> int | None:
    """Hidden size of the language model below a model folder or shipped name; None if unknown."""
    folder = shipped_folder(model) or Path(model)
    for _ in range(8):  # adapters on adapters
        if (folder / "config.json").is_file():
            found = _object(folder / "config.json")
            size = (found.get("text_config") or found).get("hidden_size")
            return size if isinstance(size, int) else None
        base = _object(folder / "adapter_config.json").get("base_model_name_or_path")
        if not isinstance(base, str):
            return None
        folder = shipped_folder(base) or (folder / base if (folder / base).is_dir() else Path(base))
    return None


def stage_for(model: str | Path, name: str = "stage1") -> str:
    """The name in STAGES of the settings for a model's size: those of unite-tiny if it is narrow.

    >>> stage_for("tiny"), stage_for("tiny-stage1", "stage2"), stage_for("Qwen/Qwen2-VL-2B")
    ('tiny-stage1', 'tiny-stage2', 'stage1')
    """
    size = hidden_size(model)
    return f"tiny-{name}" if size and size <= NARROW and f"tiny-{name}" in STAGES else name


def stage_reach(stage: StageConfig, pairs: int) -> float:
    """Learning rate x alpha x steps of a stage on so many pairs."""
    steps = stage.max_steps
    if steps < 0:
        steps = math.floor(stage.epochs * pairs / stage.batch_size)
    return stage.learning_rate * stage.lora_alpha * steps


def short_reach(config: TrainConfig, pairs: int) -> str:
    """What to say of a stage that cannot move its narrow model; "" for any other.

    Args
        pairs  of the training data
    """
    size, stage = hidden_size(config.model), config.stage
    reach = stage_reach(stage, pairs)
    if stage.lora is None or not size or size > NARROW or reach >= LEAST_REACH:
        return ""
    name = "tiny-stage2" if stage.loss == "mamcl" else "tiny-stage1"
    return (
        f"learning rate {stage.learning_rate:g} x lora_alpha {stage.lora_alpha} x steps = "
        f"{reach:.2g} hardly moves a model of hidden size {size}: below {LEAST_REACH} its loss "
        f"stays above that of chance; take --stage {name} or more steps"
    )


def _object(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
