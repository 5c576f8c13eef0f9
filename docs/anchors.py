"""Sphinx extension: `<a id="NAME"></a>` in Markdown is a target that `#NAME` finds."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

__all__ = ["HtmlAnchors", "setup"]

_ANCHOR = re.compile(r'<a id="([\w-]+)">')


class HtmlAnchors(SphinxTransform):
    """Replace raw anchors by targets, before MyST looks for those of its links."""

    default_priority = 500

    def apply(self, **kwargs) -> None:
        """Change the document in place."""
        for raw in list(self.document.findall(nodes.raw)):
            anchor = _ANCHOR.fullmatch(raw.astext())
            if anchor:
                target = nodes.target(ids=[anchor[1]], names=[anchor[1]])
                self.document.note_explicit_target(target)
                raw.replace_self(target)
            elif raw.astext() == "</a>":
                raw.parent.remove(raw)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_transform(HtmlAnchors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
