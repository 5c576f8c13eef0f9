"""A small collection as one would bring it: a folder of pictures and a CSV with their titles.

The 1 594 black drawings of Microsoft's Fluent Emoji High Contrast (MIT), whose style is in no
corpus of this package. Nothing is cleaned: titles are the published names as words, pictures are
PNGs without a background.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ..files import replacing
from .icons.build import draw_icons
from .icons.catalogue import IconSet, read_icons
from .packages import Package, fetch

__all__ = ["line_drawings"]


_PACKAGE = Package(
    "@iconify-json/fluent-emoji-high-contrast", "1.2.6",
    "esqhZPpkrF7sNX3NsLoh8KW64okEr/bzko7WNnFP+qTJGAqDPDYjp0925yxuivXy3HtVQB8xhIKu3+Nq1byX5w==",
    1054969, "MIT",
)  # fmt: skip
_SET = IconSet("high-contrast", _PACKAGE, ())


def line_drawings(root: str | Path, cache: str | Path = "data/packages") -> Path:
    """Fetch the set into `cache`, draw it below `root`, and return the path of its `drawings.csv`.

    Columns are file, title and category. A finished collection is left as it is.
    """
    table = Path(root, "drawings.csv")
    if table.is_file():
        return table
    icons = list(read_icons(_SET, fetch([_PACKAGE], cache)[_PACKAGE.name]))
    draw_icons(icons, root)
    with replacing(table) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["file", "title", "category"])
        lines.writerows([icon.path, icon.title, icon.category] for icon in icons)
    return table
