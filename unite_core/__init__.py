"""UNITE workbook: one embedder for text, images, videos and their combinations, trained with MAMCL.

Importing the package is cheap: torch, transformers and the rest load with the names that need them.
"""

import os

import lazy_loader

__version__ = "0.1.0"

# Threads that spin long while they wait eat the time of those they wait for: beside other work a
# training step takes many times longer. Not to spin at all costs a third when nothing else runs
# (speed/load.py). libgomp, torch's OpenMP, reads this when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["data", "evaluation", "gap", "loss", "model", "search", "train"],
    submod_attrs={
        "data": ["Modality", "read_records"],
        "loss": ["info_nce", "mamcl"],
        "model": ["EmbedConfig", "UniteEmbedder"],
        "train": ["STAGE_1", "STAGE_2", "StageConfig", "TrainConfig", "UniteTrainer"],
    },
)
