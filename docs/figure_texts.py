"""Sphinx extension: every figure that a notebook stored has words for those who cannot see it.

They are the output's own, where nbconvert looks for them, too: metadata {"image/png": {"alt": …}}.
A figure without gets the heading that it stands below.
"""

from __future__ import annotations

from collections.abc import Iterator

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

__all__ = ["FigureTexts", "setup", "stored_texts"]


class FigureTexts(SphinxTransform):
    """Give images of outputs their `alt`."""

    default_priority = 500

    def apply(self, **kwargs) -> None:
        """Change the document in place."""
        path = self.env.doc2path(self.env.docname)
        if path.suffix != ".ipynb":
            return
        images = [image for image in self.document.findall(nodes.image) if _is_output(image)]
        texts = list(stored_texts(nbformat.read(path, as_version=4)))
        for image, text in zip(images, texts, strict=True):
            image["alt"] = text or f"Figure: {_heading(image)}"


def stored_texts(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """The words of each PNG among the outputs, in order; "" where there are none."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", ()):
                yield output.get("metadata", {}).get("image/png", {}).get("alt", "")


def _is_output(image: nodes.image) -> bool:
    """Whether a notebook stored it, in contrast to an image that its text shows."""
    return image["uri"].endswith(".png") and "jupyter_execute" in image["uri"]


def _heading(node: nodes.Node) -> str:
    while not isinstance(node, nodes.section):
        node = node.parent
    return node.next_node(nodes.title).astext()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_transform(FigureTexts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
