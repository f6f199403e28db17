"""What people did with items, by kind; and which of it counts as positive, and how much. Private."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedrec.data.interactions import InteractionTable
from fedrec.errors import ConfigError, DataError

_DTYPES = {"user_codes": "int32", "item_codes": "int32", "kind_codes": "int32", "timestamps": "float64"}


@dataclass(frozen=True, eq=False, repr=False)
class EventLog:
    """Events as columns, in any order. Private.

    Attributes:
        user_codes: int32 `[events]`, places in `user_ids`.
        item_codes: int32 `[events]`, places in `item_ids`.
        kind_codes: int32 `[events]`, places in `kinds`.
        timestamps: float64 `[events]`, Unix seconds.
        user_ids: distinct and sorted; one of them may have no event.
        item_ids: the catalogue's, in its order.
        kinds: names of what can be done, distinct.
    Raises: DataError: columns that do not fit each other.
    """

    user_codes: NDArray[np.int32]
    item_codes: NDArray[np.int32]
    kind_codes: NDArray[np.int32]
    timestamps: NDArray[np.float64]
    user_ids: tuple[str, ...] = field(repr=False)
    item_ids: tuple[str, ...] = field(repr=False)
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            column = getattr(self, name)
            if column.dtype != dtype or column.shape != (len(self.user_codes),):
                raise DataError(f"events: {name} is not {dtype} [events]", "give each event a value in each column")
        columns = ((self.user_codes, self.user_ids), (self.item_codes, self.item_ids), (self.kind_codes, self.kinds))
        in_range = all(((codes >= 0) & (codes < len(names))).all() for codes, names in columns)
        if not in_range or not np.isfinite(self.timestamps).all() or not all(a < b for a, b in pairwise(self.user_ids)):
            raise DataError("events: codes, ids or times out of range", "number users, items and kinds from 0")

    def __repr__(self) -> str:
        return "EventLog(<private>)"

    def __len__(self) -> int:
        return len(self.user_codes)

    def counts(self) -> dict[str, int]:
        """How many events there are of each kind. Exact: private."""
        found = np.bincount(self.kind_codes, minlength=len(self.kinds)).tolist()
        return dict(zip(self.kinds, found, strict=True))

    @classmethod
    def of(
        cls, rows: Sequence[tuple[str, int, str, float]], item_ids: tuple[str, ...], kinds: tuple[str, ...]
    ) -> "EventLog":
        """Of (user, item code, kind, time) rows in any order. Raises KeyError: a kind that is not named."""
        users = tuple(sorted({row[0] for row in rows}))
        places, of_kind = {user: at for at, user in enumerate(users)}, {kind: at for at, kind in enumerate(kinds)}
        return cls(
            np.array([places[row[0]] for row in rows], np.int32),
            np.array([row[1] for row in rows], np.int32),
            np.array([of_kind[row[2]] for row in rows], np.int32),
            np.array([row[3] for row in rows], np.float64),
            users,
            item_ids,
            kinds,
        )


def positives(log: EventLog, weights: Mapping[str, float], positive_from: float) -> InteractionTable:
    """The pairs of user and item that count as positive, each once, with how much it counts as its rating.

    The strongest event of a pair decides, and the most negative one takes from it: `max(0, weights) + min(0, weights)`.
    A pair of less than `positive_from` is no positive. It stands at the time of the first of its strongest events.

    Args:
        weights: of every kind of event, finite; negative of what speaks against an item.
        positive_from: > 0.
    Returns: users with a positive alone, ratings all at least `positive_from`. Private.
    Raises:
        ConfigError: a kind without weight, a weight without kind, or numbers that cannot be.
        DataError: nothing is positive.
    Privacy: one user more or fewer changes nobody else's rows.

    >>> log = EventLog.of([("a", 0, "view", 1.0), ("a", 0, "buy", 2.0), ("a", 1, "view", 3.0)], ("x", "y"),
    ...                   ("view", "buy"))
    >>> positives(log, {"view": 1, "buy": 5}, positive_from=2).timestamp.tolist()
    [2.0]
    """
    _refuse(log, weights, positive_from)
    weight = np.array([weights[kind] for kind in log.kinds], np.float64)[log.kind_codes]
    pair = log.user_codes.astype(np.int64) * len(log.item_ids) + log.item_codes
    order = np.lexsort((log.timestamps, -weight, pair))  # of each pair: the strongest first, the earliest of equals
    pairs, first = np.unique(pair[order], return_index=True)
    strongest, weakest = weight[order][first], np.minimum.reduceat(weight[order], first) if len(first) else weight[:0]
    strength = np.maximum(strongest, 0) + np.minimum(weakest, 0)
    kept = strength >= positive_from
    if not kept.any():
        raise DataError("events: no pair of user and item is positive", "lower positive_from, or weigh events higher")
    users, codes = np.unique(pairs[kept] // len(log.item_ids), return_inverse=True)
    return InteractionTable(
        codes.astype(np.int32),
        (pairs[kept] % len(log.item_ids)).astype(np.int32),
        strength[kept].astype(np.float32),
        log.timestamps[order][first][kept],
        tuple(log.user_ids[user] for user in users),
        log.item_ids,
    )


def _refuse(log: EventLog, weights: Mapping[str, float], positive_from: float) -> None:
    lacking, unknown = sorted(set(log.kinds) - set(weights)), sorted(set(weights) - set(log.kinds))
    problems = [f"the data have events {kind!r}, which have no weight" for kind in lacking]
    problems += [f"the data have no events {kind!r}" for kind in unknown]
    problems += [f"the weight of {kind!r} is not finite" for kind, one in weights.items() if not np.isfinite(one)]
    if not (np.isfinite(positive_from) and positive_from > 0):
        problems.append("positive_from must be finite and above 0")
    if problems:
        raise ConfigError.of_all(problems, f"weigh these: {', '.join(log.kinds)}", "scenario.events")
