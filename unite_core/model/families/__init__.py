"""One file for each family of vision-language models: its architecture, and the embedders on it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "embedding_gemma2": ["EMBEDDING_GEMMA2"],
        "qwen2_5_vl": ["QWEN2_5_VL"],
        "qwen2_vl": ["QWEN2_VL"],
        "qwen3_5": ["QWEN3_5"],
        "qwen3_vl": ["QWEN3_VL"],
    },
)
