"""Figures of results: every function takes values and axes and returns the axes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "common": [
            "modality_style",
            "plot_history",
            "plot_retrieved",
            "plot_scores",
            "plot_similarity",
            "use_style",
        ],
    },
)
