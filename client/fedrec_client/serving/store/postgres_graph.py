"""A graph of items in PostgreSQL, and in this process what changed since it was made.

Nothing is ever changed in the database: other processes search the same graph, and items that joined there have other
codes. What joins or changes here is few, and is looked at item by item.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import StorageError
from fedrec.recommend.index import Codes, EqualLengths
from fedrec.recommend.live_model import Floats, GrowingRows
from fedrec_client.serving.store.graph_book import GraphBook, GraphGoneError

# So many changed items are looked at one by one, or a tenth of all; with more a new graph is due.
_LEAST_ROOM, _SHARE = 1000, 0.1
# How often a search says that the graph is in use.
_TOUCH_S = 60.0


class PostgresGraph:
    """See the module. `candidates` may be called in any thread, the rest in one.

    Args:
        name: of a graph that `book` holds, made of `n` items around `centre`.
    """

    waits = True

    def __init__(self, book: GraphBook, name: str, centre: Floats, n: int) -> None:
        self._book, self._name, self._centre, self._n = book, name, centre, n
        self._room = max(_LEAST_ROOM, int(_SHARE * n))
        self._places: dict[int, int] = {}
        self._n_made = n
        self._later_codes: Codes = np.zeros(0, np.int64)
        self._later = GrowingRows(np.zeros((0, len(centre)), np.float32))
        self._touched = time.monotonic()

    @classmethod
    def of(cls, book: GraphBook, rows: Floats) -> Self | None:
        """The graph of just these rows, found or made; None: another process makes it now. Raises StorageError."""
        lengths = EqualLengths.of(rows)
        name = book.name_of(rows)
        graph = cls(book, name, lengths.centre, len(rows))
        made_at = book.made_at(name)
        if made_at is not None and graph._is_searchable(rows[0]):
            return graph
        if not book.make(name, lengths.augmented(rows), broken=made_at):
            return None
        with suppress(StorageError):  # they are dropped another time
            book.drop_unused()
        graph._warm(rows[0])
        return graph

    def _is_searchable(self, vector: Floats) -> bool:
        """Whether the table that is listed is a graph still: somebody may have emptied, changed or dropped it."""
        try:
            self._warm(vector)
        except GraphGoneError:
            return False
        return True

    def _warm(self, vector: Floats) -> None:
        """Now rather than with a user: the first searches read it from the disk."""
        self.candidates(vector, 200, 1)

    def __len__(self) -> int:
        return self._n

    def fits(self, rows: Floats) -> bool:
        """Whether what changed stays few."""
        return len(self._places) + len(rows) <= self._room

    def add(self, rows: Floats) -> None:
        """Items that joined, with the codes that follow. Raises ValueError: too many."""
        self._put(range(self._n, self._n + len(rows)), rows)
        self._n += len(rows)

    def change(self, codes: Sequence[int], rows: Floats) -> None:
        """Other rows for items that are there. Raises ValueError: too many."""
        self._put(codes, rows)

    def candidates(self, vector: Floats, k: int, effort: int) -> Codes:
        """Codes of about the k highest inner products, best first. Raises StorageError; GraphGoneError."""
        later = self._later_codes  # its rows are there already, whatever joins meanwhile
        products = self._later.rows[: len(later)] @ vector - self._centre @ vector
        n_void = min(int((later < self._n_made).sum()), k)  # the graph may find them by what they were
        found, of_found = self._search(np.append(vector, np.float32(0.0)), k + n_void, effort)
        is_kept = ~np.isin(found, later)
        codes, scores = np.concatenate([found[is_kept], later]), np.concatenate([of_found[is_kept], products])
        best: Codes = codes[np.argsort(-scores, kind="stable")][:k]
        return best

    def _search(self, vector: Floats, k: int, effort: int) -> tuple[Codes, NDArray[np.float64]]:
        is_due = time.monotonic() - self._touched > _TOUCH_S
        found = self._book.search(self._name, vector, k, effort, touch=is_due)
        if is_due:
            self._touched = time.monotonic()
        return found

    def _put(self, codes: Sequence[int], rows: Floats) -> None:
        if not self.fits(rows):
            raise ValueError("more items changed than this graph can take")
        for code, row in zip(codes, rows, strict=True):
            place = self._places.setdefault(code, len(self._places))
            if place < len(self._later.rows):
                self._later.rows[place] = row  # a search that reads half of it is one score off
            else:
                self._later.append(row[None])
        self._later_codes = np.fromiter(self._places, np.int64, len(self._places))
