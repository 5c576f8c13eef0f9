"""What a run of a study shows its model: pairs, distinct texts and media, visual tokens.

Arms are compared at equal budgets, so these numbers stand in every row of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.items import as_item
from ..data.records import read_records
from ..model.preprocessing import media_of
from ..model.processor import Processor
from ..model.vision_store import VisionStore
from ..train.config import TrainConfig

__all__ = ["budget_of"]


def budget_of(
    configs: Sequence[TrainConfig], store: VisionStore, processor: Processor
) -> dict[str, int]:
    """Count what the stages of a run show.

    Args: configs, whose records are there and which count steps; store of all their media, and
    the processor of the model that they train. Without a config nothing is shown.
    Returns
        steps, pairs (steps times batch size), records, texts and media (distinct), and
        visual_tokens: what that many pairs have on average, drawn as the stages draw them.
    """
    found: dict[str, Any] = {"steps": 0, "pairs": 0, "records": 0, "visual_tokens": 0.0}
    texts, media = set(), set()
    for config in configs:
        records = [record for path in config.data for record in read_records(path)]
        items = [[as_item(record[side]) for side in ("query", "candidate")] for record in records]
        tokens = [sum(store.visual_tokens(processor, item) for item in pair) for pair in items]
        weights = [config.weights.get(record.get("task", ""), 1.0) for record in records]
        pairs = config.stage.max_steps * config.stage.batch_size
        found["steps"] += config.stage.max_steps
        found["pairs"] += pairs
        found["records"] += len(records)
        found["visual_tokens"] += pairs * float(np.average(tokens, weights=weights))
        texts |= {item["text"] for pair in items for item in pair if "text" in item}
        media |= {source for pair in items for item in pair for source in media_of(item)}
    counts = found | {"texts": len(texts), "media": len(media)}
    return {name: round(value) for name, value in counts.items()}
