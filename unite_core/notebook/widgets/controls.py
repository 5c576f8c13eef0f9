"""Controls and the picture that follows them, for keyboards and screen readers as for eyes.

ipywidgets' own sliders have no label that is spoken and speak a position instead of a value, and
its outputs are emptied before they are drawn again: hence `Slider` and `Picture`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anywidget
import ipywidgets
import traitlets

from ..figures import words_of

__all__ = ["Picture", "Slider", "follow", "text_box"]


_HERE = Path(__file__).parent
_PIXELS = 90  # of the page for an inch of a figure
_SHARPNESS = 1.6  # pixels of a picture for one of the page


class Slider(anywidget.AnyWidget):
    """A slider over given values, with a label, and with the value's words shown and spoken.

    >>> slider = Slider("temperature", (0.01, 0.1, 1), 0.1)
    >>> slider.index, slider.words
    (1, ['0.01', '0.1', '1'])
    >>> slider.index = 2
    >>> slider.value
    1
    """

    _esm = _HERE / "slider.js"
    _css = _HERE / "slider.css"
    label = traitlets.Unicode().tag(sync=True)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    index = traitlets.Int().tag(sync=True)
    value = traitlets.Any(help="one of the values; setting it moves the slider")

    def __init__(
        self, label: str, values: Sequence[float], value: float, words: Sequence[str] = ()
    ):
        self._values = list(values)
        if value not in self._values:
            raise ValueError(f"slider {label!r}: {value!r} is none of its values {self._values}")
        super().__init__(
            label=label,
            words=list(words) or [f"{each:g}" for each in values],
            index=self._values.index(value),
            value=value,
        )

    @traitlets.observe("index")
    def _follow_index(self, change) -> None:
        self.value = self._values[change.new]

    @traitlets.observe("value")
    def _follow_value(self, change) -> None:
        self.index = self._values.index(change.new)


class Picture(anywidget.AnyWidget):
    """A figure that can be drawn again in its place, in words for those who cannot see it.

    `alt` says what is to be seen and is spoken when it changes; `note` is a line below, shown and
    spoken instead, or "".
    """

    _esm = _HERE / "picture.js"
    _css = _HERE / "picture.css"
    png = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    height = traitlets.Int().tag(sync=True)

    def show(self, figure, alt: str = "", note: str = "") -> None:
        """Show a matplotlib figure and close it; without `alt` the figure's titles are its words.

        All of it is drawn, and only what its size holds: figures of one size take one space.
        """
        import matplotlib.pyplot as plt

        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=_SHARPNESS * _PIXELS, bbox_inches=None)
        width, height = (round(_PIXELS * inches) for inches in figure.get_size_inches())
        alt = alt or words_of(figure)
        plt.close(figure)
        with self.hold_sync():  # one message, so that the page never shows half of it
            self.set_trait("width", width)
            self.set_trait("height", height)
            self.set_trait("alt", alt)
            self.set_trait("note", note)
            self.set_trait("png", drawn.getvalue())


def text_box(label: str, value: str = "", hint: str = "") -> ipywidgets.Text:
    """A box for a line of text, as wide as there is room; its value changes with Enter."""
    box = ipywidgets.Text(value=value, description=label, placeholder=hint, continuous_update=False)
    box.layout.flex, box.layout.width = "1 1 28em", "auto"
    return box


def follow(draw: Callable, *lines: Mapping) -> ipywidgets.VBox:
    """Lines of controls {argument: widget} above the figure that `draw` makes of their values.

    `draw(**values)` returns a figure, or (figure, words) where its titles do not say what it shows.
    A ValueError is told below the picture, which stays. Display the box as a cell's last value.
    """
    controls = {name: control for line in lines for name, control in line.items()}
    picture = Picture()

    def show(_=None) -> None:
        try:
            drawn = draw(**{name: control.value for name, control in controls.items()})
        except ValueError as error:
            picture.note = str(error)
            return
        figure, words = drawn if isinstance(drawn, tuple) else (drawn, "")
        picture.show(figure, words)

    for control in controls.values():
        control.observe(show, "value")
        if control.has_trait("description"):
            control.style.description_width = "initial"  # else a long one is cut
    show()
    rows = [ipywidgets.HBox(list(line.values())) for line in lines]
    for row in rows:
        row.layout.flex_flow = "row wrap"
    return ipywidgets.VBox([*rows, picture])
