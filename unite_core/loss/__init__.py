"""InfoNCE and MAMCL as pure functions of embeddings; torch only, usable alone.

    from unite_core.loss import mamcl

    loss = mamcl(query, candidate, target_modality, temperature=0.03)

`contrastive` is what one calls, `chunked` computes it, `reference` says it in plain lines;
`hardness` weighs negatives, `distillation` learns a teacher's scores.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["reference"],
    submod_attrs={
        "contrastive": ["in_batch_accuracy", "info_nce", "mamcl", "surviving_share"],
        "distillation": ["Teacher", "distill_kl", "margin_mse"],
        "hardness": ["hardness_weighted"],
    },
)
