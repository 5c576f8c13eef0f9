"""A corpus to vectors on disk, an index over them, queries, and mined hard negatives."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["EncodeConfig", "IndexConfig", "MineConfig"],
        "encode": ["StoredVectors", "encode_items"],
        "exact": ["ranked"],
        "hard_negatives": ["mine"],
        "index": ["VectorIndex", "build_index", "load_index"],
        "query": ["search_items"],
    },
)
