"""What notebooks share before their own question: a corpus on disk, a trained stage, a table."""

# Shapes: Q queries, N candidates, D embedding size, K results.

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from .config import STAGE_1, StageConfig, TrainConfig
from .evaluate import RetrievalTask, read_tasks
from .jsonfile import read_json
from .modality import modality_of
from .retrieval import search
from .runs import from_root
from .scores import EvaluationResult, paired_gain
from .shapes import build
from .tiny import TINY

__all__ = [
    "TINY_STAGE_1", "TINY_STAGE_2", "differences", "gains", "hit_and_miss", "is_instruction",
    "markdown_table", "model_source", "open_corpus", "stage_weights", "tasks_of", "train_stage",
    "trained_model", "write_texts",
]  # fmt: skip

TINY_STAGE_1 = replace(STAGE_1, learning_rate=1e-3, lora_rank=64, lora_alpha=128, lora_dropout=0.0)
"""Stage 1 for unite-tiny: a narrow model needs updates of higher rank and larger steps."""

TINY_STAGE_2 = replace(
    TINY_STAGE_1, name="stage2", loss="mamcl", symmetric=False, learning_rate=8e-4
)
"""Stage 2 for unite-tiny: what sets the paper's stages apart, at unite-tiny's scale."""


def open_corpus(corpus: str, data_root: str = "") -> Path:
    """The folder of a finished corpus, `data/<corpus>` unless another is named.

    Shapes are generated where they are missing; emoji, a download, are a FileNotFoundError that
    says how to build them.
    """
    if corpus not in ("shapes", "emoji"):
        raise ValueError(f"corpus {corpus!r}: use shapes or emoji")
    root = from_root(data_root or f"data/{corpus}")
    if not (root / "manifest.json").is_file():
        if corpus == "emoji":
            raise FileNotFoundError(
                f"{root} holds no finished emoji corpus: run `python -m unite_core.emoji --root "
                f'{root}` (a download of about 230 MB), or set corpus = "shapes"'
            )
        build(os.path.relpath(root))
    return root


def tasks_of(root: str | Path, *splits: str) -> list[RetrievalTask]:
    """A corpus's tasks of the named splits, in the order of its file.

    Raises ValueError for a split that has no task.
    """
    tasks = read_tasks(Path(root) / "tasks.json")
    known = {task.split for task in tasks}
    if lacking := sorted(set(splits) - known):
        raise ValueError(
            f"{Path(root) / 'tasks.json'} has no task of split {', '.join(lacking)}, only of "
            f"{', '.join(sorted(known))}: remove the corpus's manifest.json and build it again"
        )
    return [task for task in tasks if task.split in splits]


def is_instruction(task: RetrievalTask) -> bool:
    """Whether a side of the task mixes modalities, as only instructions do (PAPER §3.2)."""
    return any("+" in modality_of(side[0]).label for side in (task.queries, task.candidates))


def model_source(name: str) -> str | Path:
    """What a model parameter means: "" is unite-tiny, else a folder below the root or a hub id."""
    folder = from_root(name)
    return TINY if not name else folder if folder.is_dir() else name


def stage_weights(stage: StageConfig, root: str | Path) -> dict[str, float]:
    """How often a corpus wants records of a task to come up in a stage; what is not named, once."""
    manifest = Path(root) / "manifest.json"
    wanted = read_json(manifest).get("weights", {}) if manifest.is_file() else {}
    return wanted.get(stage.name, {})


def train_stage(
    stage: StageConfig,
    model: str | Path,
    root: str | Path,
    output: str | Path,
    data: str | Path | None = None,
) -> Path:
    """Train a stage on the corpus's records for it, or on the file `data` of others, unweighted.

    Returns the merged model's folder. A run in `output` that was cut short goes on from its last
    checkpoint (see `train.train`).
    """
    from .train import train

    return train(
        TrainConfig(
            model=str(model),
            data=(str(data or Path(root) / f"{stage.name}.jsonl"),),
            output=str(output),
            stage=stage,
            media_root=str(root),
            weights={} if data else stage_weights(stage, root),
            logging_steps=max(1, stage.max_steps // 40),
            cache_vision=True,
        )
    )


def trained_model(run: str) -> Path:
    """The merged model in the folder of a run of notebook 04 or 05."""
    model = from_root(run) / "train" / "model"
    if not model.is_dir():
        raise FileNotFoundError(
            f"{model} is missing, so {run} is no finished run of notebook 04 or 05: run that "
            "notebook into it first, or leave the parameter empty to train a short stage here"
        )
    return model


def gains(
    results: Mapping[str, EvaluationResult],
    before: str,
    after: str,
    tasks: Sequence[RetrievalTask],
    metric: str = "recall@10",
) -> list[dict]:
    """How far one model is above another, task by task, in their single pools.

    Returns rows of task, split, n, both values, the paired gain with its 95 % interval, and
    `apart`: whether the two models' own intervals do not overlap and the second is above.
    """
    rows = []
    for task in tasks:
        names = (task.name, task.split, metric)
        old, new = results[before].score(*names), results[after].score(*names)
        gain, low, high = paired_gain(results[before], results[after], *names)
        row = {"task": task.name, "split": task.split, "n": new.n, before: old.value}
        row |= {after: new.value, "gain": gain, "low": low, "high": high}
        rows.append(row | {"apart": new.low > old.high})
    return rows


def hit_and_miss(
    task: RetrievalTask, vectors: Mapping[str, np.ndarray], k: int = 5
) -> tuple[list[dict], list[list[dict]], list[list[bool]]]:
    """The task's first query answered at rank 1 and its first with no answer among the best k.

    `vectors` {content id: [D]} as `embed_tasks` gives. Returns queries, their k results each, and
    which of these are right, as `plots.plot_retrieved` takes them; what does not occur is left out.
    """
    place = {identity: row for row, identity in enumerate(task.candidate_ids)}
    itself = [[place[one]] if one in place else [] for one in task.query_ids]
    sides = (task.query_ids, task.candidate_ids)
    query, candidate = (np.stack([vectors[one] for one in side]) for side in sides)
    found = search(query, candidate, k, itself)[1]  # [Q, K]
    hits = [np.isin(row, right) for row, right in zip(found, task.positives, strict=True)]
    rows = [next((q for q, hit in enumerate(hits) if hit[0]), None)]
    rows += [next((q for q, hit in enumerate(hits) if not hit.any()), None)]
    rows = [row for row in rows if row is not None]
    retrieved = [[task.candidates[index] for index in found[row] if index >= 0] for row in rows]
    return [task.queries[row] for row in rows], retrieved, [hits[row].tolist() for row in rows]


def write_texts(model, processor, items: Sequence[Mapping], root, tokens: int = 24) -> list[str]:
    """What a generative Qwen2-VL writes about each item, greedily, at most `tokens` tokens.

    Args
        model      Qwen2VLForConditionalGeneration with sequential positions, as unite-tiny's
        processor  its Processor with the "raw" prompt, which ends where the answer begins
        root       folder that the items' paths are relative to
    """
    import torch

    encoded = [processor.encode(item, root, f"item {row}") for row, item in enumerate(items)]
    batch = processor.collate([one._replace(input_ids=one.input_ids[:-1]) for one in encoded])
    start = batch["input_ids"].shape[1]
    with torch.inference_mode():
        for _ in range(tokens):
            positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
            logits = model(**batch, position_ids=positions.expand(3, -1, -1)).logits[:, -1]
            chosen = logits.argmax(1, keepdim=True)
            batch["input_ids"] = torch.cat([batch["input_ids"], chosen], 1)
            mask = batch["attention_mask"]
            batch["attention_mask"] = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    texts = processor.tokenizer.batch_decode(batch["input_ids"][:, start:])
    return [text.split("<|im_end|>")[0] for text in texts]


def differences(first: StageConfig, second: StageConfig) -> list[dict]:
    """The fields in which two stages differ, as rows of a table."""
    pairs = [(each.name, getattr(first, each.name), getattr(second, each.name))
             for each in fields(StageConfig)]  # fmt: skip
    return [dict(zip(("field", "first", "second"), row, strict=True))
            for row in pairs if row[1] != row[2]]  # fmt: skip


def markdown_table(rows: Sequence[Mapping], names: Sequence[str] | None = None) -> str:
    """Rows as a Markdown table, floats to 3 digits; `names` replaces the columns' names."""
    lines = [list(names or rows[0]), ["---"] * len(rows[0])]
    lines += [[_cell(value) for value in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
