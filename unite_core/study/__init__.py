"""Studies: arms trained in blocks of seeds, scores as rows of a table, tests by written rules."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "again": ["make_again"],
        "arms": ["STUDIES", "Arm", "Run", "Size", "Study", "runs_of"],
        "execute": ["parts_of", "run_part", "run_study"],
        "endpoints": ["STUDY_ENDPOINTS", "endpoint_rows", "query_differences"],
        "rows": ["StudyTable", "read_table"],
        "statistics": [
            "block_differences", "blocks_families_interval", "detectable_difference", "t_interval",
            "t_test",
        ],
        "verdicts": ["PLANS", "Cell", "choose_winner", "confirmation_of", "mask_conclusions"],
    },
)  # fmt: skip
