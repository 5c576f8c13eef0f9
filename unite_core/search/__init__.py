"""Encode a corpus to vectors, index and search them by any score, and mine hard negatives."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "blocks": ["model_key"],
        "config": ["EncodeConfig", "IndexConfig", "MineConfig", "ProbeConfig"],
        "encode": ["encode_corpus"],
        "factorised": ["factorised_scores", "fit_temperature", "group_log_partitions"],
        "hard_negatives": ["NegativeMiner", "mine"],
        "index": ["SearchResult", "VectorIndex", "build_index", "load_index"],
        "modality_probe": ["ModalityProbe", "fit_modality_probe", "load_modality_probe"],
        "pool": ["rank"],
        "probing": ["fit_probe"],
        "query": ["load_factorised", "search_items"],
        "results": ["Hit", "contact_page", "hit_table", "hits_of"],
        "scorers": ["Cosine", "CosineWithModality", "Factorised", "Standardised"],
        "shards": ["Shard", "ShardFolder"],
        "vector_store": ["StoredVectors", "encode_items"],
    },
)
