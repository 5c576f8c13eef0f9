"""Retrieval tasks, metrics with intervals, and tests of differences between models.

Public benchmarks are in `evaluation.benchmarks`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["benchmarks"],
    submod_attrs={
        "baselines": ["Thumbnails", "without_sentence"],
        "confusion": ["modality_confusion"],
        "endpoints": ["ENDPOINTS", "Endpoint", "endpoint_tasks", "endpoint_values"],
        "errors": ["family_errors"],
        "families": ["effective_families", "enough_families", "joint_effective_families",
                     "joint_family_bootstrap", "joint_family_draws", "macro"],
        "in_training": ["TrainingScores"],
        "means": ["Mean", "format_means", "mean_gains", "mean_rows"],
        "metrics": ["METRICS", "bootstrap_interval", "chance_level", "paired_interval",
                    "ranking_metrics"],
        "own_pairs": ["pair_families", "pair_tasks"],
        "pools": ["COUNTERPARTS", "Pool", "Scorer"],
        "results": ["EvaluationResult", "Score", "comparison", "format_table", "load_results",
                    "paired_gain", "save_results"],
        "significance": ["compare_models", "holm", "paired_permutation"],
        "tasks": ["RetrievalTask", "embed_tasks", "evaluate", "read_tasks", "write_tasks"],
    },
)  # fmt: skip
