"""Corpora that this machine can make or fetch: generated shapes and the emoji packages.

`CORPORA` has them by name; a new one is one function (see `registry`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "packages": ["FetchError", "Package", "fetch"],
        "registry": ["CORPORA", "CorpusEntry"],
        "shapes": ["ShapesConfig"],
    },
)
