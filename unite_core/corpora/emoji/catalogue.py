"""Catalogue of the emoji: codes, names, packages, and the split of each rendering.

Splits are pure functions of the code points, so what a model may have seen can be checked without
any download. A *family* is an emoji without tone, gender and direction; families that look alike
(`lookalikes.json`) count as one.

    concept      family is never in training, in any style, tone, animation or text
    development  the same, for model selection
    composition  family and tone or gender are in training, their combination is not
    style        emoji is in training, this rendering is not: every Twemoji image, and for a fifth
                 of the families the Fluent artwork (shared by 3-D, flat and animated)

Four styles draw every emoji, and tasks use these. Three more draw some emoji, for training only:
the more ways a thing is drawn, the less a model confuses one drawing with the thing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from ..packages import Package

__all__ = [
    "CLIP_PACKAGES", "EXTRA_STYLES", "HELD_OUT_STYLE", "PACKAGES", "STYLES", "Emoji", "family_of",
    "is_composition", "normalize", "read_catalogue", "split_of",
]  # fmt: skip


STYLES = ("fluent", "noto", "openmoji", "twemoji")
EXTRA_STYLES = ("fluent-flat", "noto-v1", "emojione")  # incomplete, for training only
HELD_OUT_STYLE = "twemoji"
_FLUENT_ARTWORK = ("fluent", "fluent-flat", "animated")
TONES = {"1f3fb": 1, "1f3fc": 2, "1f3fd": 3, "1f3fe": 4, "1f3ff": 5}
TONE_NAMES = ("", "light", "medium-light", "medium", "medium-dark", "dark")

PACKAGES = {
    "labels": Package(
        "emojibase-data", "17.0.0",
        "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
        6711091, "MIT",
    ),
    "fluent": Package(
        "@lobehub/fluent-emoji-3d", "1.1.0",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        15792027, "MIT",
    ),
    "noto": Package(
        "@iconify-json/noto", "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        3102958, "Apache-2.0",
    ),
    "openmoji": Package(
        "@iconify-json/openmoji", "1.2.29",
        "vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
        1264633, "CC-BY-SA-4.0",
    ),
    "twemoji": Package(
        "@iconify-json/twemoji", "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        1555888, "CC-BY-4.0",
    ),
    "fluent-flat": Package(
        "@iconify-json/fluent-emoji-flat", "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        1172438, "MIT",
    ),
    "noto-v1": Package(
        "@iconify-json/noto-v1", "1.2.5",
        "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        1587591, "Apache-2.0",
    ),
    "emojione": Package(
        "@iconify-json/emojione", "1.2.3",
        "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        687690, "CC-BY-4.0",
    ),
}  # fmt: skip
CLIP_PACKAGES = {
    1: Package(
        "@lobehub/fluent-emoji-anim-1", "1.0.0",
        "/4m31vAuZEQ4aUJ5pxcOU5PVkuJya55GRxUZL7+zgLlxZXpzzE8jPqpDyhZICE3n47nS/Y9M5/vLdizi8201QA==",
        164966217, "MIT",
    ),
    2: Package(
        "@lobehub/fluent-emoji-anim-2", "1.0.0",
        "S6yzf0RZXrQbXdxCWuHA9BAoLdBRk2flX+ne4TPGEH/qApwisCAKHoAAGjKSlTY3OVeZ9b7t/NEbmpjawnQYJA==",
        181915962, "MIT",
    ),
    3: Package(
        "@lobehub/fluent-emoji-anim-3", "1.0.0",
        "UzRSUDMjdfdt9vER5bhjHkPqgc3EEgfGtYs6ndvizOTvQOxYQ57ow2RTkWSDZxwW30X4EYBi2eWTS7CXDDoFsg==",
        197000910, "MIT",
    ),
    4: Package(
        "@lobehub/fluent-emoji-anim-4", "1.0.0",
        "IIkl5ztSd1HrzvIDt/uGsFoC1WODXRdYq5uROrnkyqi9DbToEcJ1nlY86PnoUXeFS9nBCnHfiYk3ouSEGThFmA==",
        185915894, "MIT",
    ),
}  # fmt: skip

# Gendered code points, mapped to the neutral one.
_NEUTRAL = {
    "1f468": "1f9d1", "1f469": "1f9d1", "1f466": "1f9d2", "1f467": "1f9d2", "1f474": "1f9d3",
    "1f475": "1f9d3", "1f934": "1fac5", "1f478": "1fac5", "1f930": "1fac4", "1fac3": "1fac4",
    "1f57a": "1f483",
}  # fmt: skip
_MX_CLAUS = "1f9d1-1f384"
_PEOPLE = {"1f9d1", "1f9d2", "2764", "1f48b", "1f91d"}
_COUPLES = {"1f46a", "1f46b", "1f46c", "1f46d", "1f491", "1f48f"}
_GENDER_SIGNS = {"2640": "woman", "2642": "man"}
_WOMEN = {"1f469", "1f467", "1f475", "1f478", "1f936"}
_MEN = {"1f468", "1f466", "1f474", "1f934", "1f385"}


@dataclass(frozen=True)
class Emoji:
    """One emoji with its texts. `code` is the hexcode in lower case without variation selectors."""

    code: str
    label: str
    label_de: str
    tags: tuple[str, ...]
    group: str
    subgroup: str

    @property
    def family(self) -> str:
        """`family_of` its code."""
        return family_of(self.code)

    @property
    def tones(self) -> tuple[int, ...]:
        """Skin tones from 1 (light) to 5 (dark), one per person."""
        return _tones(self.code)

    @property
    def gender(self) -> str | None:
        """ "woman", "man", or None for neither or both."""
        return _gender(self.code)


def normalize(hexcode: str) -> str:
    """`"1F3C4-1F3FC-200D-2642-FE0F"` to `"1f3c4-1f3fc-200d-2642"`."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def family_of(code: str) -> str:
    """The code without tone, gender and direction, look-alike families merged."""
    family = _collapse(code)
    return _lookalikes().get(family, family)


def split_of(code: str, style: str) -> str:
    """The split of a rendering: train, development, style, composition or concept.

    `style` is one of STYLES or EXTRA_STYLES, "animated", or "text" for the emoji's words.
    """
    family = family_of(code)
    draw = _draw("family", family)
    if draw < 0.15:
        return "concept"
    if draw < 0.22:
        return "development"
    if is_composition(code):
        return "composition"
    if style == HELD_OUT_STYLE:
        return "style"
    if style in _FLUENT_ARTWORK and _draw("artwork", family) < 0.2:
        return "style"
    return "train"


def is_composition(code: str) -> bool:
    """Whether the emoji is among the held-out fifth of toned or gendered variants."""
    tones, gender = _tones(code), _gender(code)
    if not tones and gender is None:
        return False
    return _draw("composition", f"{family_of(code)} {tones} {gender}") < 0.2


def read_catalogue(labels: Path) -> list[Emoji]:
    """All labelled emoji with their tone variants, from an unpacked emojibase-data."""
    english = json.loads((labels / "en" / "data.json").read_text(encoding="utf-8"))
    german = json.loads((labels / "de" / "data.json").read_text(encoding="utf-8"))
    names = json.loads((labels / "en" / "messages.json").read_text(encoding="utf-8"))
    groups = {g["order"]: g["message"] for g in names["groups"]}
    subgroups = {g["order"]: g["message"] for g in names["subgroups"]}
    german_label = {
        normalize(v["hexcode"]): v["label"] for e in german for v in (e, *e.get("skins", ()))
    }
    catalogue = []
    for entry in english:
        if "group" not in entry or groups[entry["group"]] in ("components", "flags"):
            continue
        for variant in (entry, *entry.get("skins", ())):
            code = normalize(variant["hexcode"])
            catalogue.append(
                Emoji(
                    code=code,
                    label=variant["label"],
                    label_de=german_label[code],
                    tags=tuple(entry.get("tags", ())),
                    group=groups[entry["group"]],
                    subgroup=subgroups[entry["subgroup"]],
                )
            )
    return sorted(catalogue, key=lambda emoji: emoji.code)


def _collapse(code: str) -> str:
    parts = [p for p in normalize(code).split("-") if p not in TONES and p != "200d"]
    parts = [p for p in parts if p not in _GENDER_SIGNS and p != "27a1"] or parts
    parts = [_NEUTRAL.get(p, p) for p in parts]
    if parts[0] in _COUPLES or (len(parts) > 1 and set(parts) <= _PEOPLE):
        return "family"
    family = "-".join(parts)
    return _MX_CLAUS if family in ("1f385", "1f936") else family


def _tones(code: str) -> tuple[int, ...]:
    return tuple(TONES[part] for part in code.split("-") if part in TONES)


def _gender(code: str) -> str | None:
    parts = code.split("-")
    for sign, name in _GENDER_SIGNS.items():
        if sign in parts[1:]:
            return name
    women, men = _WOMEN.intersection(parts), _MEN.intersection(parts)
    if bool(women) == bool(men):
        return None
    return "woman" if women else "man"


def _draw(purpose: str, key: str) -> float:
    """A uniform number in [0, 1), determined by the two arguments."""
    digest = hashlib.sha256(f"unite-emoji {purpose} {key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


@cache
def _lookalikes() -> dict[str, str]:
    text = resources.files(__package__).joinpath("lookalikes.json").read_text("utf-8")
    return json.loads(text)
