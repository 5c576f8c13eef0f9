"""Figures of a notebook: saved beside its results and shown with words for those who cannot see."""

from __future__ import annotations

from html import escape
from pathlib import Path

from ..files import replacing

__all__ = ["save_figure", "show_figure", "words_of"]


def words_of(figure) -> str:
    """What a figure's titles say, and the labels of axes without a title: text in place of it."""
    parts = [figure.get_suptitle()]
    for ax in figure.axes:
        labels = (ax.get_ylabel(), ax.get_xlabel())
        parts.append(
            ax.get_title("left") or ax.get_title() or " against ".join(filter(None, labels))
        )
    return "; ".join(dict.fromkeys(" ".join(part.split()) for part in parts if part.strip()))


def save_figure(path: Path, figure, alt: str) -> None:
    """Write PATH.svg and PATH.png; equal figures give equal files.

    `alt` becomes the SVG's title, which browsers and screen readers read, and the PNG's
    description.
    """
    import matplotlib

    kinds = (
        (".svg", {"Date": None, "Title": alt}),
        (".png", {"Software": None, "Description": alt}),
    )
    with matplotlib.rc_context({"svg.hashsalt": "unite"}):
        for suffix, about in kinds:
            with replacing(path.with_name(path.name + suffix), durable=False) as partial:
                figure.savefig(partial, format=suffix[1:], metadata=about, bbox_inches="tight")


def show_figure(figure, alt: str) -> None:
    """Show a figure in a notebook with words in place of it, and close it.

    They are where the book and nbconvert look for them, {"image/png": {"alt": ...}} in the output's
    metadata. JupyterLab does not look there but shows HTML first, so the picture is there, too;
    `cleaned` drops that copy. Outside of a notebook nothing is shown.
    """
    import matplotlib.pyplot as plt
    from IPython import get_ipython
    from IPython.core.pylabtools import print_figure
    from IPython.display import display

    if get_ipython() is None:
        return
    png = print_figure(figure, "png", base64=True)
    copy = f'<img alt="{escape(alt)}" src="data:image/png;base64,{png}">'
    data = {"image/png": png, "text/html": copy, "text/plain": repr(figure)}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})
    plt.close(figure)
