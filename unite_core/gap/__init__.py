"""How far apart modalities lie, and what it means: measures for any vectors (numpy and scipy only).

    from unite_core import gap

    table = gap.measure(texts, images, paired=True, k=10)  # [N, D] each, row i the same thing
    print(gap.format_table(table))

Every measure comes with an interval, with what it would be without a gap (nearly none is 0 there)
and with n.
"""

from .offsets import offset_direction, prompt_offset
from .synthetic import KnownGap
from .table import MEASURES, PAIRED, Measure, format_table, matrix, measure
from .vectors import load_vectors, unit_vectors

__all__ = [
    "MEASURES", "PAIRED", "KnownGap", "Measure", "format_table", "load_vectors", "matrix",
    "measure", "offset_direction", "prompt_offset", "unit_vectors",
]  # fmt: skip
