"""Non-learned baselines: pixels alone, and queries without their sentence.

Composed queries change little of what they show ("the same with dark skin tone"), so a score on
them means something only beside these baselines.
"""

# Shapes: N items.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.items import images_of, videos_of
from ..data.media import load_image, thumbnail
from ..data.modality import Modality, modality_of
from ..data.videos import read_clip
from .tasks import RetrievalTask

__all__ = ["Thumbnails", "shows_something", "without_sentence"]


class Thumbnails:
    """Embedder without weights: the pixels of a thumbnail of the image or of the first frame."""

    def embed(self, items: Sequence[Mapping], media_root: str | Path = ".",
              progress: bool = True) -> np.ndarray:  # fmt: skip
        """Embed items by their pixels: [N, D] float32 unit vectors, mean removed; text ignored."""
        vectors = np.stack([thumbnail(_first_frame(item, media_root)) for item in items])
        vectors -= vectors.mean(1, keepdims=True)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def shows_something(task: RetrievalTask) -> bool:
    """Whether all queries and candidates of a task have an image or a video."""
    return all(modality_of(item) & ~Modality.TEXT for item in (*task.queries, *task.candidates))


def without_sentence(task: RetrievalTask) -> RetrievalTask:
    """The same task with the text removed from every query."""
    queries = [{key: value for key, value in q.items() if key != "text"} for q in task.queries]
    return replace(task, queries=queries)


def _first_frame(item: Mapping, root: str | Path) -> Image.Image:
    if images_of(item):
        return load_image(images_of(item)[0], root)
    return read_clip(videos_of(item)[0], root, 1.0, 1, 1).frames[0]
