"""The model card that every stage writes beside its weights: `README.md` as the hub reads it.

Front matter names base model, licence and results; the text tells data, settings, results, gap,
licences and how to load the model. Results and gap are filled in later, by whoever measures them:
`evaluation.model_card` does for the workbook's own results. The same run gives the same card, byte
for byte, however often it was interrupted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.modality import modality_of
from ..data.pairs import PairDataset
from ..data.readers import HUB
from ..files import read_json, replacing
from ..model.shipped import SHIPPED
from ..tables import markdown_table
from .config import StageConfig, TrainConfig

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

__all__ = ["CARD", "GAP", "RESULTS", "add_section", "write_card"]


CARD = "README.md"
RESULTS, GAP = "Results", "Modality gap"
"""Titles of the sections that are filled in after training."""
_NOT_MEASURED = "Not measured yet."
_SHIPPED_LICENCE = "apache-2.0"
_DEFAULTS = StageConfig("default")


def write_card(folder: str | Path, config: TrainConfig, dataset: PairDataset, steps: int) -> Path:
    """Write the card of a finished run into its model's folder; returns the file.

    Args
        dataset  the run's records
        steps    optimizer steps that were taken
    Hashes of model, records and media are those of `inputs.json` in the run's output.
    """
    from huggingface_hub import ModelCardData

    licence, base = _descent(config.model)
    about = ModelCardData(
        base_model=base,
        datasets=[name.removeprefix(HUB) for name in config.data if name.startswith(HUB)] or None,
        library_name="sentence-transformers",
        license=licence,
        model_name=config.stage.name,
        pipeline_tag="sentence-similarity",
        tags=["feature-extraction", "multimodal", "unite"],
    )
    parts = [
        f"---\n{about.to_yaml()}\n---",
        f"# {config.stage.name} of {_named(config.model)}",
        "Embeds texts, images, videos and their mixtures as unit vectors of one space.",
        *_load(),
        *_data(config, dataset),
        *_settings(config, steps),
        f"## {RESULTS}\n\n{_NOT_MEASURED}",
        f"## {GAP}\n\n{_NOT_MEASURED}",
        *_licences(licence, dataset),
    ]
    path = Path(folder, CARD)
    with replacing(path) as partial:
        partial.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def add_section(
    folder: str | Path, title: str, text: str, results: Sequence[EvalResult] = ()
) -> Path:
    """Write a section of a model's card, in place of one of that title; returns the file.

    Args
        folder   of the model
        title    of the section, such as RESULTS
        text     Markdown without headings of the first two levels
        results  for the front matter, where the hub reads them; those of the same data set, metric
                 and name are replaced
    ValueError where the folder has no card or the text has such a heading.
    """
    from huggingface_hub import ModelCard

    path = Path(folder, CARD)
    if not path.is_file():
        raise ValueError(f"{path} is missing: a finished stage writes it; give its model folder")
    if re.search(r"^##? ", text, re.M):
        raise ValueError(f"section {title!r}: begin its own headings with ###")
    card = ModelCard.load(path)
    new = {_key(result): result for result in results}
    before = [each for each in card.data.eval_results or () if _key(each) not in new]
    card.data.eval_results = [*before, *new.values()] or None
    card.text = _with_section(card.text, title, text.strip())
    with replacing(path) as partial:
        partial.write_text(_whole(card), encoding="utf-8")
    return path


def _whole(card: ModelCard) -> str:
    return f"---\n{card.data.to_yaml()}\n---\n\n{card.text.strip()}\n"


def _with_section(card: str, title: str, text: str) -> str:
    sections = re.split(r"^(?=## )", card.strip() + "\n", flags=re.M)
    new = f"## {title}\n\n{text}\n\n"
    places = [n for n, section in enumerate(sections) if section.startswith(f"## {title}\n")]
    if places:
        sections[places[0]] = new
    else:
        sections = [*sections[:-1], sections[-1].rstrip() + "\n\n", new]
    return "".join(sections)


def _key(result: EvalResult) -> tuple:
    return result.dataset_name, result.metric_type, result.metric_name


def _descent(model: str) -> tuple[str | None, str | None]:
    """Licence and hub id of the model that a run started from, as far as its card tells them."""
    from huggingface_hub import ModelCard

    if model in SHIPPED:
        return _SHIPPED_LICENCE, None
    if not Path(model).is_dir():
        return None, model
    if not Path(model, CARD).is_file():
        return None, None
    about = ModelCard.load(Path(model, CARD)).data
    base = about.base_model if isinstance(about.base_model, str) else None
    return about.license, base


def _named(path: str) -> str:
    """A hub id or relative path as it is, the end of an absolute one: the rest is a machine's."""
    return "/".join(Path(path).parts[-2:]) if Path(path).is_absolute() else path


def _load() -> list[str]:
    return [
        "## Use",
        "```python\nfrom unite_core import UniteEmbedder\n\n"
        'embedder = UniteEmbedder.load("PATH OF THIS FOLDER")\n'
        'vectors = embedder.embed([{"text": "a red circle"}, {"image": "circle.png"}])\n```',
        "In sentence-transformers, after `unite export PATH_OF_THIS_FOLDER EXPORT`:",
        "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        'model = SentenceTransformer("EXPORT", trust_remote_code=True)\n'
        'vectors = model.encode(["a red circle", {"image": "circle.png"}])\n```',
    ]


def _data(config: TrainConfig, dataset: PairDataset) -> list[str]:
    inputs = read_json(Path(config.output, "inputs.json"))
    counts: Counter = Counter()
    for pair in dataset:
        sides = (modality_of(item).label for item in (pair.query, pair.candidate))
        counts[pair.source, pair.task, " → ".join(sides)] += 1
    rows = [[*names, count] for names, count in sorted(counts.items())]
    media = inputs.get("media", {})
    hashes = [["records", _named(name), inputs.get(name, "")] for name in config.data]
    hashes += [["media", f"{media.get('files', 0)} files", media.get("content", "")]]
    hashes += [["started from", _named(config.model), inputs.get(config.model, "")]]
    left_out = f" {len(dataset.bad)} records could not be used." if dataset.bad else ""
    return [
        "## Training data",
        f"{len(dataset)} pairs.{left_out}",
        markdown_table(rows, ["source", "task", "query → candidate", "pairs"], left=3),
        "Hashes of what was read:",
        markdown_table(hashes, ["what", "name", "hash"]),
    ]


def _settings(config: TrainConfig, steps: int) -> list[str]:
    stage = config.stage
    names = [field.name for field in fields(StageConfig)]
    rows = [
        [name, json.dumps(value) if isinstance(value, dict | list | tuple) else str(value)]
        for name in names
        if (value := getattr(stage, name)) != getattr(_DEFAULTS, name) or name in _ALWAYS
    ]
    more = {"weights": config.weights, "sampling": asdict(config.sampling)}
    kept = "the best on held-out records" if config.keep == "best" else "those of the last step"
    return [
        "## Settings",
        f"{steps} steps; the weights are {kept}. What is not listed has its default.",
        markdown_table(rows, ["setting", "value"]),
        "Weights and sampling of records:",
        f"```json\n{json.dumps(more, indent=1)}\n```",
    ]


_ALWAYS = (
    "name", "loss", "symmetric", "temperature", "learning_rate", "lora_rank", "lora_alpha",
    "batch_size", "seed",
)  # fmt: skip


def _licences(licence: str | None, dataset: PairDataset) -> list[str]:
    sources: Mapping[str, None] = dict.fromkeys(dataset.table.sources)
    model = f"The model that it started from: {licence}." if licence else (
        "The licence of the model that it started from is not known here: set `license` above "
        "before you publish this one."
    )  # fmt: skip
    rows = [[source, "not stated in the records"] for source in sources]
    return [
        "## Licences",
        f"{model} Those of the training data bind, too:",
        markdown_table(rows, ["source", "licence"]),
    ]
