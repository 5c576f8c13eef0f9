"""Items, records and their files: what one row of data is, in text, images and videos."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "items": ["IMAGE_PLACEHOLDER", "VIDEO_PLACEHOLDER", "ItemError", "as_item"],
        "media": ["MediaError", "load_image", "load_video"],
        "modality": ["Modality", "modality_of", "parse_modality"],
        "pairs": ["PairDataset"],
        "records": ["RecordError", "content_id", "iter_records", "read_records", "write_records"],
    },
)
