"""The two training stages with settings for the shipped backbone."""

from ..train.config import TINY_STAGE_1, TINY_STAGE_2

__all__ = ["TINY_STAGE_1", "TINY_STAGE_2"]
