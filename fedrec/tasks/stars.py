"""What users said of items in stars, as a task's rows. Private."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from fedrec.data.interactions import InteractionTable
from fedrec.data.sequences import build_sequences
from fedrec.tasks.own_rows import OwnRows
from fedrec.tasks.taste import Scale, as_targets


class StarsOf:
    """Stars by user and item."""

    def __init__(self, table: InteractionTable) -> None:
        keys = table.user_codes.astype(np.int64) * table.n_items + table.item_codes
        order = np.lexsort((table.timestamp, keys))
        self._keys, self._stars, self._n_items = keys[order], table.rating[order], table.n_items
        self._places = {user: place for place, user in enumerate(table.user_ids)}

    def of(self, user: str, items: NDArray[np.int32]) -> NDArray[np.float32]:
        """The latest stars of a user for items that the user rated."""
        keys = self._places[user] * self._n_items + items.astype(np.int64)
        return self._stars[np.searchsorted(self._keys, keys, side="right") - 1]


def rated_by(
    table: InteractionTable, scale: Scale, *, most_rows: int, seed: int, only: Collection[tuple[str, str]] | None = None
) -> dict[str, OwnRows]:
    """Each user's latest ratings, one an item, oldest first.

    Args:
        table: with ratings; private.
        most_rows: of a user, the latest.
        seed: decides between rows of one user at the same time.
        only: pairs of user and item that are still there; None: all.
    Privacy: one user more or fewer changes nobody else's rows.
    """
    stars, found = StarsOf(table), dict[str, OwnRows]()
    for sequence in build_sequences(table, seed):
        items = sequence.items
        if only is not None:
            items = items[[(sequence.user, table.item_ids[item]) in only for item in items]]
        if not len(items):
            continue
        _, from_end = np.unique(items[::-1], return_index=True)
        latest = np.sort(len(items) - 1 - from_end)[-most_rows:]
        items = items[latest]
        found[sequence.user] = OwnRows(items, as_targets(stars.of(sequence.user, items), scale))
    return found
