"""What notebooks share: parameterized runs, corpora, stages, tables and widgets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "corpus": ["is_instruction", "open_corpus", "tasks_of"],
        "counterparts": ["embed_counterparts", "find_counterparts", "given_vectors", "text_as"],
        "files": ["NotebookError", "ParameterError"],
        "runs": [
            "Run", "from_root", "open_run", "project_root", "run_notebook", "seed_everything",
            "sweep",
        ],
        "stages": [
            "CONTROLS", "model_source", "named_runs", "stage_models", "stage_weights",
            "train_stage", "trained_model",
        ],
        "tables": ["differences", "gains", "hit_and_miss", "markdown_table"],
    },
)  # fmt: skip
