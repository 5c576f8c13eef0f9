"""InfoNCE and MAMCL as pure functions of embeddings: torch only, usable alone.

from unite_core.loss import info_nce, mamcl

loss = mamcl(query, candidate, target_modality, temperature=0.03)
"""

from .contrastive import in_batch_accuracy, info_nce, mamcl, surviving_share

__all__ = ["in_batch_accuracy", "info_nce", "mamcl", "surviving_share"]
