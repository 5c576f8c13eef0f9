"""Names of mteb's retrieval tasks in the registry, with their frames and metrics.

Frame counts are those of the authors' evaluation: 48 for general video, 32 for CaReBench.
"""

from __future__ import annotations

from .registry import TaskSpec, frame_settings, register_mteb

__all__: list[str] = []


_RECALL = TaskSpec("").metrics
_HIT = ("hit@1", "hit@5", "hit@10", "ndcg@10")  # an image has five captions

for _name, _mteb, _frames, _metrics, _source in (
    ("flickr30k-t2i", "Flickr30kT2IRetrieval", 0, _RECALL, "5 000 captions, 1 000 images"),
    ("flickr30k-i2t", "Flickr30kI2TRetrieval", 0, _HIT, "5 000 captions, 1 000 images"),
    ("mscoco-t2i", "MSCOCOT2IRetrieval", 0, _RECALL, "24 809 captions, 5 000 images"),
    ("mscoco-i2t", "MSCOCOI2TRetrieval", 0, _HIT, "24 809 captions, 5 000 images"),
    ("msrvtt-t2v", "MSRVTTT2V", 48, _RECALL, "879 clips, not the 1 000 of 1K-A"),
    ("msrvtt-v2t", "MSRVTTV2T", 48, _RECALL, "879 clips, not the 1 000 of 1K-A"),
    ("msvd-t2v", "MSVDT2VRetrieval", 48, _RECALL, "660 clips, their first captions only"),
    ("msvd-v2t", "MSVDV2TRetrieval", 48, _RECALL, "660 clips, their first captions only"),
    ("didemo-t2v", "DiDeMoT2VRetrieval.v2", 48, _RECALL, "993 clips"),
    ("didemo-v2t", "DiDeMoV2TRetrieval.v2", 48, _RECALL, "993 clips"),
    ("carebench-t2v", "CaReBenchT2VRetrieval", 32, _RECALL, "general captions only"),
    ("carebench-v2t", "CaReBenchV2TRetrieval", 32, _RECALL, "general captions only"),
):
    register_mteb(
        _name,
        _mteb,
        settings=frame_settings(_frames) if _frames else {},
        metrics=_metrics,
        source=_source,
    )
