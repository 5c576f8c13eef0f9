"""Data: items of text, images and videos, records of them, and the files that hold both."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "items": ["IMAGE_PLACEHOLDER", "VIDEO_PLACEHOLDER", "ItemError", "as_item"],
        "media": ["MediaError", "load_image"],
        "modality": ["Modality", "modality_of", "parse_modality"],
        "pairs": ["PairDataset"],
        "records": ["RecordError", "content_id", "iter_records", "read_records", "write_records"],
        "videos": ["load_video"],
    },
)
