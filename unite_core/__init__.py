"""UNITE workbook: one embedder for text, image, video and their mixtures, trained with MAMCL.

Importing the package is cheap: torch, transformers and the rest load with the names that need them.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "EmbedConfig": "config",
    "Modality": "modality",
    "STAGE_1": "config",
    "STAGE_2": "config",
    "StageConfig": "config",
    "UniteEmbedder": "embedder",
    "UniteTrainer": "train",
    "info_nce": "loss",
    "mamcl": "loss",
    "read_records": "records",
}

__all__ = [*_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
