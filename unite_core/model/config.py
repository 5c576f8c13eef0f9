"""Configuration as data: what an embedder sees of an item, and what a training stage does."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import _one_of

__all__ = ["EmbedConfig"]


@dataclass(frozen=True)
class EmbedConfig:
    """How items become tokens; saved as `unite.json` beside the weights (DESIGN §3.2 to 3.4).

    Pixel limits are areas in square pixels, *after* resizing to multiples of patch x merge.
    """

    positions: str = "sequential"  # "sequential" (UNITE weights) or "mrope" (plain Qwen-VL)
    prompt: str = "unite"  # "unite" (summary line) or "raw" (chat turn only)
    image_min_pixels: int = 256 * 28 * 28
    image_max_pixels: int = 1280 * 28 * 28
    video_min_pixels: int = 128 * 28 * 28  # per frame
    video_max_pixels: int = 240 * 320  # per frame
    video_pixels: str = "effective"  # "released": the processor's second resize, for parity
    fps: float = 1.0  # frames per second taken from a video file
    min_frames: int = 4
    max_frames: int = 12
    max_length: int = 2048  # tokens; text is shortened, visual tokens never

    def __post_init__(self):
        _one_of("positions", self.positions, ("sequential", "mrope"))
        _one_of("prompt", self.prompt, ("unite", "raw"))
        _one_of("video_pixels", self.video_pixels, ("effective", "released"))
        if not 0 < self.image_min_pixels <= self.image_max_pixels:
            raise ValueError(
                f"image_min_pixels {self.image_min_pixels} must be positive and at most "
                f"image_max_pixels {self.image_max_pixels}"
            )
        if not 0 < self.min_frames <= self.max_frames:
            raise ValueError(
                f"min_frames {self.min_frames} must be positive and at most "
                f"max_frames {self.max_frames}"
            )
        if self.fps <= 0 or self.max_length <= 0:
            raise ValueError(f"fps {self.fps} and max_length {self.max_length} must be positive")
