"""The small backbone that ships with the package, and how it was pretrained."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "captions": ["write_texts"],
        "examples": ["generative_examples"],
        "model": ["EMBED_CONFIG", "TINY", "new_model", "train_tokenizer"],
        "pretrain": ["PHASES", "pretrain_backbone"],
        "stages": ["TINY_STAGE_1", "TINY_STAGE_2"],
    },
)
