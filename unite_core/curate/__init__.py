"""From raw sources to a training file: validate, deduplicate, align, filter, mix and report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapters": ["ADAPTERS"],
        "build": ["build_mix"],
        "dedupe": ["exact_duplicates", "leaks", "near_duplicates"],
        "ingest": ["ingest_source"],
        "recipe": ["Recipe", "Source", "read_recipe"],
        "validate": ["check_rows"],
    },
)
