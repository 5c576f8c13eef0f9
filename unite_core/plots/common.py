"""What all figures share: the style sheet, one colour and marker per modality, null lines.

Every plot function takes results, draws them into `ax` (default: the current axes) and returns
`ax`; nothing is computed and nothing is shown. Colours and markers of modalities are the same
everywhere, so that figures agree with each other and survive a black and white print; so are those
of models. All have a white ground of their own, for dark pages.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from ..data.modality import Modality

__all__ = [
    "label_style", "legend_below", "modality_style", "model_style", "null_line", "use_style",
]  # fmt: skip


STYLE = Path(__file__).with_name("unite.mplstyle")
_MODALITIES = {
    Modality.TEXT: ("#0072B2", "o"),
    Modality.IMAGE: ("#D55E00", "s"),
    Modality.VIDEO: ("#009E73", "^"),
}
_FUSED = ("#CC79A7", "D")
_MODELS = {
    "base": ("#999933", "v"),
    "stage 1": ("#56B4E9", "P"),
    "stage 2": ("#E69F00", "o"),
    "InfoNCE": ("#000000", "s"),
    "random mask": ("0.6", "X"),
}
_OTHER_MODELS = (
    ("#332288", "D"), ("#44AA99", "^"), ("#882255", "p"), ("#CC79A7", "h"), ("#0072B2", "<"),
    ("#D55E00", ">"),
)  # fmt: skip


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


def model_style(name: str, number: int = 0) -> dict[str, str]:
    """`color` and `marker` of a model, the same in every figure, whatever it is shown beside.

    Names that are not known here (other poolings, ways to search) take the looks of their
    `number`, of which there are six.

    >>> model_style("stage 2")
    {'color': '#E69F00', 'marker': 'o'}
    """
    colour, marker = _MODELS.get(name) or _OTHER_MODELS[number % len(_OTHER_MODELS)]
    return {"color": colour, "marker": marker}


def label_style(label: str) -> dict[str, str]:
    """`modality_style` if the label names a modality ("text+image"), else nothing."""
    known = {part.upper() for part in label.split("+")} <= set(Modality.__members__)
    return modality_style(label) if known else {}


def legend_below(ax: Axes, columns: int) -> None:
    """Put the legend below the axes and their label, in one row of `columns`."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=columns, borderaxespad=4.5)


def null_line(ax: Axes, what: str, value: float) -> None:
    """Draw a dashed horizontal line with its name and value at the right end."""
    ax.axhline(value, ls="--", color="0.4", lw=1)
    where = ("axes fraction", "data")
    ax.annotate(f"{what} = {value:.3g}", (1, value), (-2, 2), xycoords=where,
                textcoords="offset points", ha="right", color="0.4", fontsize=7)  # fmt: skip
