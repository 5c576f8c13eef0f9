"""Which items count as one: those of equal content, and those that share a group, in any record.

Groups join contents and contents join groups: an item that one record puts into a group belongs to
it wherever it stands, as a query, a candidate or a hard negative.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["merge_identities"]


def merge_identities(members: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Identity of each content that is in a group: {content number: smallest group number}.

    Args
        members  (content number, group number), once or more often; the two kinds never coincide

    >>> merge_identities([(1, 101), (2, 101), (3, 102), (2, 102), (4, 103)])
    {1: 101, 2: 101, 3: 101, 4: 103}
    """
    above: dict[int, int] = {}  # group -> a smaller group that it is joined with
    groups: dict[int, int] = {}  # content -> its first group

    def smallest(group: int) -> int:
        while (parent := above.get(group, group)) != group:
            above[group] = above.get(parent, parent)
            group = parent
        return group

    for content, group in members:
        low, high = sorted((smallest(groups.setdefault(content, group)), smallest(group)))
        if low != high:
            above[high] = low
    return {content: smallest(group) for content, group in groups.items()}
