"""The modality gap: how far apart modalities lie and what follows (numpy and scipy only).

    from unite_core import gap

    table = gap.measure(texts, images, paired=True, k=10)  # [N, D] each, row i the same thing
    print(gap.format_table(table))
    print(gap.MEASURES["rmg"])  # what a measure means; docs/gap.md has the formulas

Every measure comes with an interval, its value without a gap (nearly none is 0 there) and n.
"""

from .measures import INTERVALS, MEASURES, PAIRED, Definition, Measure
from .offsets import offset_direction, prompt_offset
from .synthetic import SyntheticGap
from .table import format_table, matrix, measure
from .vectors import load_vectors, unit_vectors

__all__ = [
    "INTERVALS", "MEASURES", "PAIRED", "Definition", "Measure", "SyntheticGap", "format_table",
    "load_vectors", "matrix", "measure", "offset_direction", "prompt_offset", "unit_vectors",
]  # fmt: skip
