"""Things that configurations name: losses, corpora, adapters, benchmarks and backbones.

    LOSSES = Registry("loss")

    @LOSSES.register("my_loss")
    def my_loss(batch, stage): ...

Code outside the package registers in the same way, before the name is looked up: a notebook by
importing the module, the command line by `unite --plugin MODULE`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to things of one kind; an unknown name is an error that lists the known ones.

    Args
        kind  what the things are, for error messages: "loss"
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that gives a thing its name; ValueError where the name is taken."""

        def add(thing: T) -> T:
            if name in self._things:
                raise ValueError(f"{self.kind} {name!r} is registered already: choose another name")
            self._things[name] = thing
            return thing

        return add

    def __getitem__(self, name: str) -> T:
        """The thing of that name; ValueError lists the names and the nearest one."""
        if name not in self._things:
            near = difflib.get_close_matches(str(name), self._things, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"{name!r} is no {self.kind}{hint}; known: {', '.join(self._things) or 'none'}"
            )
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def __contains__(self, name: object) -> bool:
        return name in self._things
