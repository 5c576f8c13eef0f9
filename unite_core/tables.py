"""Tables as plain text and as Markdown, from rows that are already in the order to print.

Standard library only, so every package may use it.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["cell_text", "markdown_table", "text_table"]


def text_table(
    rows: Sequence[Sequence], head: Sequence | None = None, left: int | None = None
) -> str:
    """Rows as columns of equal width, two spaces apart.

    Args
        rows  cells, formatted by `cell_text`
        head  column names, over a rule of dashes; None: no head
        left  number of leading columns aligned left, the rest right; None: all left

    >>> print(text_table([["red", 12], ["green", 3]], ["colour", "n"], left=1))
    colour   n
    ----------
    red     12
    green    3
    """
    lines = [[cell_text(cell) for cell in row] for row in ([head] if head else []) + [*rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = len(widths) if left is None else left
    padded = [
        [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    text = ["  ".join(line).rstrip() for line in padded]
    if head:
        text.insert(1, "-" * len("  ".join(padded[0])))
    return "\n".join(text)


def markdown_table(rows: Sequence[Sequence], head: Sequence, left: int | None = None) -> str:
    """Rows as a Markdown table; arguments as in `text_table`.

    >>> print(markdown_table([["red", 0.12345], ["green", True]], ["colour", "share"], left=1))
    | colour | share |
    | --- | ---: |
    | red | 0.123 |
    | green | yes |
    """
    left = len(head) if left is None else left
    marks = ["---" if column < left else "---:" for column in range(len(head))]
    lines = [[cell_text(cell).replace("|", r"\|") for cell in row] for row in (head, marks, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell_text(value: object) -> str:
    """Text of a cell: truth values as yes or no, floats to three significant digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
