"""Docstrings of this repository as reStructuredText.

They are plain text: paragraphs with `code`, parts headed Args, Returns or Fields whose rows have a
name and a description apart by two spaces or more, indented formulas and code, and examples.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

__all__ = ["to_rst"]

_HEADER = re.compile(r"(Args|Fields|Returns|Yields)\b(.*)")
_ROW = re.compile(r"(\S.*?)\s{2,}(\S.*)")
_CODE = re.compile(r"(`[^`]+`)")


def to_rst(lines: Iterable[str]) -> Iterator[str]:
    """Lines of a docstring, without its common indentation, as lines of reStructuredText.

    >>> print(*to_rst(["Args", "    k  how many of `x`", "", "    a * b"]), sep="|")
    **Args**||``k``|    how many of ``x``|||.. code-block:: python||    a * b||
    """
    for block in _blocks([line.rstrip() for line in lines]):
        header = _HEADER.fullmatch(block[0])
        if block[0].startswith(">>>"):
            yield from block
        elif header and len(block) > 1 and block[1].startswith(" "):
            yield from (f"**{header[1]}**{_inline(header[2])}", "")
            yield from _rows(_dedented(block[1:]))
        elif block[0].startswith(" "):
            yield from (f".. code-block:: {_language(block)}", "", *block)
        elif _ROW.fullmatch(block[0]):
            yield from _rows(block)
        else:
            yield from map(_inline, block)
        yield ""


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Parts that are rendered alike; indented ones go on over empty lines."""
    block: list[str] = []
    for line, following in pairwise([*lines, "", ""]):
        indented = bool(block) and block[0].startswith(" ")
        if not line:
            if indented:
                block.append("")
            elif block:
                yield block
                block = []
        elif block and _ends(block, line, following):
            yield block
            block = [line]
        else:
            block.append(line)
    if any(block):
        yield block


def _ends(block: list[str], line: str, following: str) -> bool:
    """Whether a line begins another part than that of the lines before it."""
    if block[0].startswith(">>>"):
        return False
    if block[0].startswith(" "):
        return not line.startswith(" ")
    if _HEADER.fullmatch(block[0]) and (len(block) == 1 or block[1].startswith(" ")):
        return len(block) > 1 and not line.startswith(" ")
    if _ROW.fullmatch(block[0]):
        named = _ROW.fullmatch(line) or following.startswith(" ")
        return not line.startswith(" ") and not named
    return line.startswith(" ")


def _language(block: list[str]) -> str:
    """Whether an indented part is Python or text, such as a formula."""
    try:
        ast.parse("\n".join(_dedented(block)))
    except SyntaxError:
        return "text"
    return "python"


def _rows(lines: list[str]) -> Iterator[str]:
    """A definition list of rows "name  description"; without names a paragraph."""
    for line, following in pairwise([*lines, ""]):
        row = _ROW.fullmatch(line)
        if row:
            yield from (f"``{row[1]}``", f"    {_inline(row[2])}")
        elif line.startswith(" "):
            yield f"    {_inline(line.strip())}"
        else:
            yield f"``{line}``" if following.startswith(" ") else _inline(line)
    yield ""


def _dedented(lines: list[str]) -> list[str]:
    indent = min(len(line) - len(line.lstrip()) for line in lines if line)
    return [line[indent:] for line in lines]


def _inline(text: str) -> str:
    """Text with its `code` marked as such and nothing else read as markup."""
    return "".join(
        f"`{part}`" if part.startswith("`") else re.sub(r"([\\*`|_])", r"\\\1", part)
        for part in _CODE.split(text)
    )
