"""Studies: arms trained in blocks of seeds, scores as rows of a table, tests by written rules."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "arms": ["STUDIES", "Arm", "Run", "Size", "Study", "runs_of"],
        "execute": ["parts_of", "run_part", "run_study"],
        "rows": ["StudyTable", "read_table"],
    },
)
