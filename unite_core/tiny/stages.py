"""The two training stages with settings for the shipped backbone."""

from dataclasses import replace

from ..train.config import STAGE_1

__all__ = ["TINY_STAGE_1", "TINY_STAGE_2"]

TINY_STAGE_1 = replace(STAGE_1, learning_rate=1e-3, lora_rank=64, lora_alpha=128, lora_dropout=0.0)
"""Stage 1 for unite-tiny: a narrow model needs updates of higher rank and larger steps."""

TINY_STAGE_2 = replace(
    TINY_STAGE_1, name="stage2", loss="mamcl", symmetric=False, learning_rate=8e-4
)
"""Stage 2 for unite-tiny: it differs from stage 1 as in the paper."""
