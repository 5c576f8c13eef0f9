"""Export trained models to sentence-transformers, checked to give the same vectors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "sentence_transformers": ["ExportError", "check_export", "export_model"],
    },
)
