"""What all figures share: the style sheet, one colour and marker per modality, null lines.

Every plot function takes results, draws them into `ax` (default: the current axes) and returns
`ax`; nothing is computed and nothing is shown. Colours and markers of modalities are the same
everywhere, so that figures agree with each other and survive a black and white print.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from ..data.modality import Modality

__all__ = [
    "MODEL_COLOURS", "MODEL_MARKERS", "label_style", "legend_below", "modality_style",
    "null_line", "use_style",
]  # fmt: skip


STYLE = Path(__file__).with_name("unite.mplstyle")
_MODALITIES = {
    Modality.TEXT: ("#0072B2", "o"),
    Modality.IMAGE: ("#D55E00", "s"),
    Modality.VIDEO: ("#009E73", "^"),
}
_FUSED = ("#CC79A7", "D")
MODEL_COLOURS = ("0.55", "#56B4E9", "#E69F00", "#000000", "#CC79A7", "#44AA99")
"""Colours of models in the order of training."""
MODEL_MARKERS = "vPX*ph"
"""Markers of models in the order of training."""


def use_style() -> None:
    """Give all figures of this session the workbook's look (unite.mplstyle)."""
    plt.style.use(STYLE)


def modality_style(modality: Modality | str | int) -> dict[str, str]:
    """`color` and `marker` of a modality or its name; all mixtures look the same.

    >>> modality_style("image")
    {'color': '#D55E00', 'marker': 's'}
    >>> modality_style("text+image") == modality_style("text,video")
    True
    """
    if isinstance(modality, str):
        names = modality.replace("+", ",").split(",")
        modality = sum(Modality[name.strip().upper()] for name in names)
    colour, marker = _MODALITIES.get(Modality(modality), _FUSED)
    return {"color": colour, "marker": marker}


def label_style(label: str) -> dict[str, str]:
    """`modality_style` if the label names a modality ("text+image"), else nothing."""
    known = {part.upper() for part in label.split("+")} <= set(Modality.__members__)
    return modality_style(label) if known else {}


def legend_below(ax: Axes, columns: int) -> None:
    """Put the legend below the axes, in one row of `columns`."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=columns, borderaxespad=0)


def null_line(ax: Axes, what: str, value: float) -> None:
    """Draw a dashed horizontal line with its name and value at the right end."""
    ax.axhline(value, ls="--", color="0.4", lw=1)
    where = ("axes fraction", "data")
    ax.annotate(f"{what} = {value:.3g}", (1, value), (-2, 2), xycoords=where,
                textcoords="offset points", ha="right", color="0.4", fontsize=7)  # fmt: skip
