"""What notebooks share: parameterised runs, corpora, models of the stages, tables, studies.

Interactive views are in `notebook.widgets`, a curation run's material in `notebook.curation`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batches": ["FIGURE_2B", "embedded_batch", "mixed_batch"],
        "corpus": ["kind_of", "open_corpus", "tasks_of"],
        "counterparts": [
            "embed_counterparts", "find_counterparts", "given_vectors", "pool_rows", "prompt_rows",
            "text_as",
        ],
        "evaluations": ["evaluate_models"],
        "files": ["NotebookError", "ParameterError"],
        "questions": ["caption_pairs", "first_of_each_shape", "question_kinds"],
        "runs": [
            "Run", "from_root", "open_run", "project_root", "run_notebook", "seed_everything",
            "sweep",
        ],
        "stages": [
            "first_factors", "model_source", "named_runs", "stage_models", "stage_weights",
            "train_stage", "trained_model",
        ],
        "study": [
            "arm_means", "arm_table", "budget_table", "difference_table", "endpoint_caption",
            "endpoint_table", "gap_table", "mean_table", "metric_table", "open_study", "task_rows",
            "with_gap",
        ],
        "tables": ["differences", "error_table", "gains", "hit_and_miss", "leads_said",
                   "markdown_table"],
        "tested": [
            "block_table", "blocks_said", "deviation_said", "find_winner", "power_table",
            "test_table", "winner_candidates",
        ],
    },
)  # fmt: skip
