"""Retrieval tasks, metrics with intervals, and tests of differences between models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "metrics": [
            "METRICS",
            "bootstrap_interval",
            "chance_level",
            "paired_interval",
            "query_metrics",
        ],
        "results": ["EvaluationResult", "Score", "format_table", "load_results", "save_results"],
        "significance": ["compare_models", "holm", "paired_permutation"],
        "tasks": ["RetrievalTask", "embed_tasks", "evaluate", "read_tasks", "write_tasks"],
    },
)
