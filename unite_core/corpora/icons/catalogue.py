"""The icon sets: packages, which icons are taken, titles as found, and the split of a concept.

A *concept* is what several drawings share: the words of an icon's name in alphabetical order,
without the words that name a style of its set ("filled", "24"). Its split is a function of these
words, so what a model may have seen can be checked without any download.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..packages import Package

__all__ = ["ICON_SETS", "Icon", "IconSet", "concept_of", "read_icons", "split_of"]


SPLITS = {"concept": 0.12, "development": 0.05}
"""Shares of the concepts that are held out; the rest is for training."""
_SIZE = re.compile(r"-(\d\d)(?=-|$)")
_WANTED_SIZE = 24  # where a set draws one icon in several sizes
_KEYWORDS = 6  # of an icon, at most


@dataclass(frozen=True)
class IconSet:
    """A published set of icons.

    styles  last words of a name that say how it is drawn, not what
    leave   pattern of names that are not taken: the same drawing in another weight or size
    """

    name: str
    package: Package
    styles: tuple[str, ...]
    leave: str = ""


@dataclass(frozen=True)
class Icon:
    """A drawing with all that its package says about it."""

    set_name: str
    name: str  # as published: "arrow-left-24-filled"
    concept: str  # "arrow left"
    category: str  # "" if the set has none
    keywords: tuple[str, ...]  # other names
    svg: str

    @property
    def path(self) -> str:
        """Path of the picture below the corpus."""
        return f"images/{self.set_name}/{self.name}.png"

    @property
    def title(self) -> str:
        """The published name as words: the title that is found, dirt included."""
        return self.name.replace("-", " ")


def _set(name: str, version: str, size: int, licence: str, sha512: str, styles: tuple[str, ...],
         leave: str = "") -> IconSet:  # fmt: skip
    package = Package(f"@iconify-json/{name}", version, sha512, size, licence)
    return IconSet(name, package, styles, leave)


_ALL = (
    _set(
        "mdi", "1.2.3", 803764, "Apache-2.0",
        "O3cLwbDOK7NNDf2ihaQOH5F9JglnulNDFV7WprU2dSoZu3h3cWH//h74uQAB87brHmvFVxIOkuBX2sZSzYhScg==",
        ("outline",),
    ),
    _set(
        "tabler", "1.2.41", 338741, "MIT",
        "GHg+H/cnr0anaCoV383JONiOMxZQOdojWYNLgL3x0fRE07YW7c+AHiYmIhXet//oq26T830qitdP7l43ojiCXw==",
        ("filled",),
    ),
    _set(
        "fluent", "1.2.60", 2480119, "MIT",
        "+Tc4TcygQpzm2QNQ3v1/p5V+3OWczkJzKMqUw01pzGiIYLD85uhWPY4GaERkU0+J9J9ZqGQEWKSOk/qPL2ofsw==",
        ("filled", "regular", "light", "ltr", "rtl"),
    ),
    _set(
        "ph", "1.2.2", 945517, "MIT",
        "PgkEZNtqa8hBGjHXQa4pMwZa93hmfu8FUSjs/nv4oUU6yLsgv+gh9nu28Kqi8Fz9CCVu4hj1MZs9/60J57IzFw==",
        ("bold", "duotone", "fill", "light", "thin"), r"-(bold|duotone|light|thin)$",
    ),
    _set(
        "bi", "1.2.7", 223701, "MIT",
        "IPz8WNxmLkH1I9msl+0Q4OnmjjvP4uU0Z61a4i4sqonB6vKSbMGUWuGn8/YuuszlReVj8rf+3gNv5JU8Xoljyg==",
        ("fill",),
    ),
    _set(
        "carbon", "1.2.29", 329961, "Apache-2.0",
        "whk3BOU2jXFtweigCrrrYXT7NzWXGUT1q268vEnySzhfdnwZhQhVlFjhkgZH86JRRx21/CziTmzpAJMe5V2yKQ==",
        ("filled", "outline", "solid", "alt"),
    ),
    _set(
        "lucide", "1.2.137", 92640, "ISC",
        "uKz1+tFbv1RFX/mJQNksdnyKJijNfRGSNnxfiyKtr+dLNfA3ERph+IgpXClKGOlV/5GsZwLv2jgJXQ/bjF/JAg==",
        (),
    ),
    _set(
        "iconoir", "1.2.11", 126216, "MIT",
        "clBrCsZPkmdksYOkufVp7aoAU1j1hFQPrLUooWWmoYIMvKskUHQ+IDnwV7agTR+tGYHbud7OP2SRfYEpnqFDNw==",
        ("solid",),
    ),
    _set(
        "ion", "1.2.7", 428378, "MIT",
        "ZJNG5kLCbTPr68mdP0jx6Q3lB9AMEQKO2+VvIjuJ2llGFICBLD+cvESn/qGDRIqSfk2D3PrFMf/Qg8WKIUV7cg==",
        ("outline", "sharp"), r"-sharp$",
    ),
    _set(
        "vscode-icons", "1.2.97", 916664, "MIT",
        "nkqeEluYLK3JGXQqmQKHJHdrHYL/r09yz1RZLRl0qDoBdIlW2JQmTRDxc86lzwcmfIyTXib8CBDWEsBj5xVfWQ==",
        ("opened",),
    ),
    _set(
        "healthicons", "1.2.13", 785151, "MIT",
        "1c6nzjXoYBHwFqckX4Jb0PIReOzm3FZ4hWHNz/YYw1yL7QRBTeolh+S4kWpjWVa8hn9oJjgdFv0fyd8ERcRiEA==",
        ("outline", "24px", "negative"), r"(-24px|-negative)$",
    ),
    _set(
        "devicon", "1.2.68", 1797794, "MIT",
        "4RNlCSNCSgDEOVMHkBOxgik9agJcVRcfXwAZcwMdIolWx/lvXHzo2kqcqTqQGviZuBbnv3L1lyd+CowyZE+I3g==",
        ("wordmark",),
    ),
    _set(
        "ant-design", "1.2.9", 170003, "MIT",
        "cAP5tQXUj05Hb0o3nyjEzYofuU5luRm6IV4FNZ3KQkG2cfzvmM34WYJuNLA3/sWqfE0cHSaaaEGvIdAUq+bN2Q==",
        ("filled", "outlined", "twotone"),
    ),
    _set(
        "vaadin", "1.2.1", 56662, "Apache-2.0",
        "dT2PWQp5tPxqJsWCc7qXDRVMcGeOf3e+Hys1dcMQrfVVnaRgXxYXgA0Wj98N5QjZMIf9+/iqAKvY1Yuk484hEg==",
        ("o",),
    ),
    _set(
        "heroicons", "1.2.3", 130692, "MIT",
        "n+vmCEgTesRsOpp5AB5ILB6srsgsYK+bieoQBNlafvoEhjVXLq8nIGN4B0v/s4DUfa0dOrjwE/cKJgIKdJXOEg==",
        ("solid",), r"-(16|20)-solid$",
    ),
    _set(
        "eva", "1.2.3", 32708, "MIT",
        "67nZvxOHdoV2SaTLBw+seq+pbfB8OFRB7CVNI5gGJCGPXJKniPo/x9H/dYGovxq7q+GU0NwKrPxBcHyEFDwSUw==",
        ("fill", "outline"),
    ),
    _set(
        "circle-flags", "1.2.11", 109264, "MIT",
        "vrx2btOkTQ4/P75ElEDnjXShmNTwInXuhhpIQQ6U6YUTdxfWyvm/4ijNG8FX8iWFr+sqqQRCvXpm2RfRtjVXfg==",
        (),
    ),
    _set(
        "octicon", "1.2.36", 129470, "MIT",
        "YHlJokjC+uBj1kSd7+YTRMNIN85TvAGr4ZJVOHCTzj0nyH64ImXRIZmh4P6Nbv0RGDd7hS7+UwEDGchFgGxxVw==",
        ("fill",),
    ),
    _set(
        "skill-icons", "1.2.4", 495452, "MIT",
        "S6iRKHGlGCb/zfx3Isv1TBe5PunbDE5FEwJcaXji60+yRZMrcFFtYEI1xivKqaGKXyVZ508yjGDItsehQdJmSg==",
        ("dark", "light"),
    ),
    _set(
        "feather", "1.2.1", 11346, "MIT",
        "gURNg2TJYuO1U7DoOGCylm9TwkMfzjOH2BHdWsE0IXLXj/MNkFIJu56Wu1xRws27M8hzDzUDt/biGUa/LfAjdg==",
        (),
    ),
)  # fmt: skip
ICON_SETS: Mapping[str, IconSet] = {icon_set.name: icon_set for icon_set in _ALL}
"""Icon sets by name, all under licences that allow any use."""


def read_icons(icon_set: IconSet, package: Path) -> Iterator[Icon]:
    """Icons of an unpacked set, in the order of its file; withdrawn ones are left out."""
    data = json.loads((package / "icons.json").read_text(encoding="utf-8"))
    about = package / "metadata.json"
    about = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
    category = {n: c for c, names in about.get("categories", {}).items() for n in names}
    keywords: dict[str, list[str]] = {}
    for other, alias in data.get("aliases", {}).items():
        keywords.setdefault(alias["parent"], []).append(other.replace("-", " "))
    default = {"width": data.get("width", 16), "height": data.get("height", 16)}
    for name in _chosen(icon_set, data["icons"]):
        icon = default | data["icons"][name]
        yield Icon(
            icon_set.name, name, concept_of(name, icon_set.styles), category.get(name, ""),
            tuple(keywords.get(name, ())[:_KEYWORDS]), _svg(icon),
        )  # fmt: skip


def concept_of(name: str, styles: tuple[str, ...] = ()) -> str:
    """The words that say what is shown, in alphabetical order.

    >>> concept_of("circle-arrow-left-24-filled", ("filled", "regular"))
    'arrow circle left'
    """
    words = _SIZE.sub("", name).split("-")
    while len(words) > 1 and words[-1] in styles:
        words.pop()
    return " ".join(sorted(words))


def split_of(concept: str) -> str:
    """`train`, `development` or `concept` (held out for tests)."""
    digest = hashlib.sha256(f"icons {concept}".encode()).digest()
    place, below = int.from_bytes(digest[:4], "big") / 2**32, 0.0
    for split, share in SPLITS.items():
        below += share
        if place < below:
            return split
    return "train"


def _chosen(icon_set: IconSet, icons: Mapping[str, Mapping]) -> list[str]:
    """Names that are taken: of one drawing in several sizes the size nearest to 24."""
    leave = re.compile(icon_set.leave or "(?!)")
    best: dict[str, tuple[int, str]] = {}
    for name, icon in icons.items():
        if icon.get("hidden") or leave.search(name):
            continue
        sizes = _SIZE.findall(name) if icon_set.name in _SIZED else []
        key = _SIZE.sub("", name) if sizes else name
        found = (abs(int(sizes[-1]) - _WANTED_SIZE) if sizes else 0, name)
        best[key] = min(found, best.get(key, found))
    return [name for _, name in best.values()]


_SIZED = ("fluent", "octicon")


def _svg(icon: Mapping) -> str:
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {icon['width']} {icon['height']}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}">{icon["body"]}</svg>'
    )
