"""Figures: every function takes values and axes, draws, and returns the axes.

matplotlib loads with the first function that is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "common": ["modality_style", "model_style", "use_style"],
        "concepts": ["plot_chain_rule", "plot_circle", "plot_pull", "plot_ranks", "plot_remaining",
                     "plot_scores_by_modality"],
        "curation": [
            "draw_card", "plot_alignment", "plot_groups", "plot_pair_types", "plot_quantity",
            "plot_recovery", "plot_removed",
        ],
        "embedding_map": ["plot_contact_sheet", "plot_map"],
        "evaluation": ["plot_gains", "plot_modality_confusion", "plot_pools", "plot_scores",
                       "plot_sign_flips"],
        "gap": [
            "plot_corrections", "plot_cosine_histograms", "plot_dimensions", "plot_mean_cosines",
            "plot_pool_confusion", "plot_projection", "plot_replacement", "plot_spectra",
            "plot_stages", "plot_truths", "share_legend",
        ],
        "items": ["draw_results", "plot_pairs", "plot_retrieved", "plot_similarity"],
        "loss": ["plot_batch", "plot_by_temperature", "plot_history", "plot_mask",
                 "plot_probabilities", "plot_push"],
        "published": ["plot_published"],
        "study": [
            "arm_style", "draw_endpoints", "plot_arm_curve", "plot_arms", "plot_block_differences",
            "plot_gap_and_index", "plot_power", "plot_rates",
        ],
        "tokens": ["plot_item_cosines", "plot_parts", "plot_patches", "plot_positions",
                   "plot_token_runs"],
    },
)  # fmt: skip
