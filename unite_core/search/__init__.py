"""Encode a corpus to vectors, index and search them, and mine hard negatives."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "blocks": ["model_key"],
        "config": ["EncodeConfig", "IndexConfig", "MineConfig"],
        "encode": ["encode_corpus"],
        "hard_negatives": ["mine"],
        "index": ["SearchResult", "VectorIndex", "build_index", "load_index"],
        "query": ["search_items"],
        "shards": ["Shard", "ShardFolder"],
        "vector_store": ["StoredVectors", "encode_items"],
    },
)
