"""The universal embedder: a vision-language backbone, pooling and unit vectors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "backbones": ["BACKBONES", "Backbone"],
        "config": ["EmbedConfig"],
        "embedder": ["UniteEmbedder"],
        "processor": ["Processor"],
        "prompts": ["build_prompt"],
        "router": ["ModalityRouter"],
        "vision_store": ["VisionStore", "build_vision_store", "embed_stored"],
        "weights": ["CheckpointError"],
    },
)
