"""Corpora by name, for notebooks (`corpus = "shapes"`), `unite corpus NAME` and the Snakefile.

A corpus is one function that writes a folder. It may live outside the package; import its module
before the name is looked up (`unite --plugin MODULE`):

    from unite_core.corpora import CORPORA

    @CORPORA.register("flowers")
    def build_flowers(root, seed=0, images=100): ...

The folder then holds media, `stage1.jsonl` and `stage2.jsonl` (training records), `tasks.json`
(`RetrievalTask` rows, those of the split "development" included) and, written last,
`manifest.json`, an object that may hold `weights`: {stage: {task: how often its records come up}}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..registry import Registry

__all__ = ["CORPORA", "CorpusEntry", "CorpusRegistry"]


@dataclass(frozen=True)
class CorpusEntry:
    """How to get a corpus.

    name      as registered
    build     build(root, seed=..., **options) writes the folder `root`; safe to repeat
    download  what building fetches ("about 230 MB"); empty: nothing, so it is built on the fly
    """

    name: str
    build: Callable[..., object]
    download: str = ""

    @property
    def on_the_fly(self) -> bool:
        """Whether it may be built without asking."""
        return not self.download

    def missing(self, root: str | Path) -> str:
        """What to tell a user who needs the corpus when `root` does not hold it."""
        size = f" (a download of {self.download})" if self.download else ""
        return (
            f"{root} holds no finished {self.name} corpus: run `unite corpus {self.name} --root "
            f'{root}`{size}, or set corpus = "shapes"'
        )


class CorpusRegistry(Registry[CorpusEntry]):
    """Registry whose decorator takes the build function and keeps an entry of it.

    >>> corpora = CorpusRegistry("corpus")
    >>> @corpora.register("flowers", download="2 GB")
    ... def build_flowers(root, seed=0): ...
    >>> print(corpora["flowers"].missing("data/flowers").split(":")[0])
    data/flowers holds no finished flowers corpus
    """

    def register(self, name: str, download: str = "") -> Callable[[Callable], Callable]:
        """Decorator for `build(root, seed=..., **options)`; see `CorpusEntry` for `download`."""

        def add(build: Callable) -> Callable:
            super(CorpusRegistry, self).register(name)(CorpusEntry(name, build, download))
            return build

        return add


CORPORA = CorpusRegistry("corpus")
"""Corpora by name."""


@CORPORA.register("shapes")
def build_shapes(root: str | Path, seed: int = 0, **options) -> Path:
    """Generate the shapes corpus; options are fields of `shapes.ShapesConfig`."""
    from .shapes import ShapesConfig, build

    return build(root, ShapesConfig(seed=seed, **options))


@CORPORA.register("emoji", download="about 230 MB")
def build_emoji(
    root: str | Path, seed: int = 0, cache: str = "data/packages", clips: int | list[int] = 3
) -> Path:
    """Fetch the emoji packages into `cache` and build the corpus from them.

    `clips` names the animation packages to take, 1 to 4, of 160 to 200 MB each.
    """
    from .emoji.build import build

    chosen = (clips,) if isinstance(clips, int) else tuple(clips)
    if not set(chosen) <= {1, 2, 3, 4}:
        raise ValueError(f"clips {list(chosen)}: animation packages are numbered 1 to 4")
    return build(root, cache, chosen, seed)


@CORPORA.register("icons", download="about 10 MB")
def build_icons(
    root: str | Path, seed: int = 0, cache: str = "data/packages", sets: list[str] | None = None
) -> Path:
    """Fetch public icon sets into `cache` and build the corpus; `sets` names some of ICON_SETS."""
    from .icons.build import build

    return build(root, cache, sets or (), seed)
