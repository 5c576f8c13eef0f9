"""Corpora that this machine can make or fetch: generated shapes and the emoji packages."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "packages": ["FetchError", "Package", "fetch"],
    },
)
