"""Who asks and what they do next: users of MovieLens with their first 100 items as history, the others as events."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedrec.data.sequences import build_sequences
from fedrec.errors import DataError
from fedrec_client.serving.records import Event
from fedrec_client.serving.settings import default_settings
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_sim.world import World

EVENT_TYPE = "rating"


@dataclass
class Workload:
    """Users and their next items. Public data.

    Attributes:
        users: ids.
        later: of each user, items that come after the history, in their order.
    """

    users: tuple[str, ...]
    later: dict[str, list[str]] = field(repr=False)
    n_items: int = 0
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0), repr=False)
    _items: tuple[str, ...] = field(default=(), repr=False)

    def user(self) -> str:
        """Somebody."""
        return self.users[int(self._random.integers(len(self.users)))]

    def is_event(self, share: float) -> bool:
        """Whether the next request is an event."""
        return bool(self._random.random() < share)

    def event(self, user: str, item: str = "") -> dict[str, object]:
        """What a user does next; any item once theirs are used up."""
        rest = self.later[user]
        item = item or (rest.pop(0) if rest else self._items[int(self._random.integers(len(self._items)))])
        return {"type": EVENT_TYPE, "user": user, "item": item, "value": 4.0}


def fill(place: Path, world: World, history: int, seed: int = 1) -> Workload:
    """Put the first `history` items of each user who has more into a new store; the rest are what they do later.

    Raises: DataError: nobody has as many.
    """
    users, later, events = [], {}, list[Event]()
    ids = world.catalog.ids
    for sequence in build_sequences(next(iter(world.table.tables())), seed):
        if len(sequence) <= history:
            continue
        codes = sequence.items.tolist()
        users.append(sequence.user)
        later[sequence.user] = [ids[code] for code in codes[history:]]
        for code, moment in zip(codes[:history], sequence.timestamps.tolist(), strict=False):
            events.append(Event(EVENT_TYPE, ids[code], user=sequence.user, value=4.0, timestamp=float(moment)))
    if not users:
        raise DataError(f"no user has more than {history} items", "ask for shorter histories")
    place.mkdir(parents=True, exist_ok=True)
    store = ServingStore.open(store_url(place, default_settings().store.database))
    try:
        for some in _chunks(events, 5000):
            store.of("default").events.add(some)
    finally:
        store.close()
    return Workload(tuple(users), later, len(ids), np.random.default_rng(seed), ids)


def _chunks(events: list[Event], size: int) -> Iterator[list[Event]]:
    for start in range(0, len(events), size):
        yield events[start : start + size]
