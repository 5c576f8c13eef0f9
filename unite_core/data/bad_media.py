"""Rows that are left out because an item of them cannot be used, and how many may be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .items import ItemError
from .media import MediaError

__all__ = ["BadMediaError", "BadMediaRow", "check_bad_share", "list_bad"]


@dataclass(frozen=True)
class BadMediaRow:
    """A row that was left out because a media file cannot be read or an item does not fit."""

    where: str
    cause: str  # the same words for the same kind of defect
    message: str

    @classmethod
    def from_error(cls, where: str, error: MediaError | ItemError) -> BadMediaRow:
        """From an error "file: cause (detail); remedy" or "cause: remedy", or raised from one."""
        source = error.__cause__
        source = source if isinstance(source, MediaError | ItemError) else error
        message = str(source)
        if isinstance(source, ItemError):
            cause = re.split("[:;] ", message)[0].lstrip("0123456789 ")
        else:
            cause = message.split(": ", 1)[-1].split(";")[0].split(" (")[0]
        return cls(where, cause, f"{where}: {message}")


class BadMediaError(ValueError):
    """More rows with unreadable media than allowed; the message counts causes and lists rows."""


def check_bad_share(bad: Sequence[BadMediaRow], total: int, max_share: float) -> None:
    """Raise a BadMediaError with causes and rows if more than `max_share` of `total` are bad."""
    if len(bad) > max_share * total:
        raise BadMediaError(
            f"{len(bad)} of {total} records have media that cannot be read, more than the "
            f"{max_share:.2%} of max_bad_share: repair or remove them, or raise the limit\n"
            + list_bad(bad)
        )


def list_bad(bad: Sequence[BadMediaRow], shown: int = 20) -> str:
    """Lines with the number of rows of each cause and the first `shown` rows."""
    causes = Counter(row.cause for row in bad)
    lines = [f"  {count} x {cause}" for cause, count in causes.most_common()]
    lines += [f"  {row.message}" for row in bad[:shown]]
    if len(bad) > shown:
        lines.append(f"  and {len(bad) - shown} more")
    return "\n".join(lines)
