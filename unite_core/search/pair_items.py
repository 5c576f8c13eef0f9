"""The distinct items of a data set's queries and candidates, as one sequence."""

# Shapes: N records, U distinct items.

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..data.bad_media import BadMediaRow
from ..data.items import ItemError
from ..data.media import MediaError
from ..data.pairs import PairDataset, content_number

__all__ = ["PairItems"]


class PairItems(Sequence):
    """Distinct items of queries and candidates by content, in order of appearance.

    queries     [N] item number of each record's query
    candidates  [N] item number of each record's candidate
    identities  [U] equal for items that share a group in some record
    families    [U] equal also for candidates of records of one `group`
    Items are parsed from the data set's files whenever they are indexed.
    """

    def __init__(self, dataset: PairDataset):
        self.dataset = dataset
        ids = np.stack(dataset.contents, axis=1).ravel()  # query, candidate, query, ...
        self._ids, first, number = np.unique(ids, return_index=True, return_inverse=True)
        by_appearance = np.argsort(first)
        self._places = first[by_appearance]  # [U] where in `ids`
        self._numbers = np.argsort(by_appearance)  # of the sorted ids
        self.queries, self.candidates = self._numbers[number].reshape(-1, 2).T
        self.identities, self.families = (
            np.stack(sides, axis=1).ravel()[self._places]
            for sides in (dataset.identities, dataset.families)
        )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> dict:
        row, is_candidate = divmod(int(self._places[number]), 2)
        pair = self.dataset[row]
        return pair.candidate if is_candidate else pair.query

    def where(self, number: int) -> str:
        """How errors name an item: its record and side."""
        row, is_candidate = divmod(int(self._places[number]), 2)
        return f"{self.dataset[row].where}, {'candidate' if is_candidate else 'query'}"

    def bad_records(self, bad: Mapping[int, MediaError | ItemError]) -> dict[int, BadMediaRow]:
        """Records with a query or candidate among the item numbers `bad`, and what is wrong."""
        broken = np.zeros(len(self), dtype=bool)
        broken[list(bad)] = True
        found = {}
        for row in np.flatnonzero(broken[self.queries] | broken[self.candidates]).tolist():
            number = next(n for n in (self.queries[row], self.candidates[row]) if broken[n])
            found[row] = BadMediaRow.from_error(self.dataset[row].where, bad[int(number)])
        return found

    def given_negatives(self) -> tuple[np.ndarray, np.ndarray]:
        """(records, item numbers) of negatives in the data that are also a query or candidate."""
        rows = np.flatnonzero(self.dataset.table.negatives)
        pairs = [
            (row, content_number(item)) for row in rows for item in self.dataset[row].negatives
        ]
        rows, ids = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        at = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        found = self._ids[at] == ids
        return rows[found], self._numbers[at[found]]
