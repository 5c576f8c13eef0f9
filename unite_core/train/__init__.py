"""Training in stages: configurations, losses by name, batches and the trainer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["STAGE_1", "STAGE_2", "SamplingConfig", "StageConfig", "TrainConfig"],
        "losses": ["LOSSES", "LossBatch", "stage_loss"],
        "run": ["train"],
        "trainer": ["UniteTrainer"],
    },
)
