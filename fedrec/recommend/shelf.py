"""The items that a partner can recommend now: the federation's catalogue and what was added since, with their fields.

Items are numbered by code, which never changes nor is used again while a process runs: an item that goes is closed.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError

Json = Any


@dataclass(frozen=True)
class Item:
    """An item as its owner describes it. Public within the partner.

    Attributes:
        id: the owner's.
        title: what a person reads.
        text: what the language model reads; empty: made of title and categories.
        timestamp: Unix seconds of its appearance; 0: unknown.
        is_hidden: kept, but not recommended.
        fields: anything else by name: numbers, texts, lists, nested; what rules and final ranking read.
    """

    id: str
    title: str = field(default="", repr=False)
    text: str = field(default="", repr=False)
    categories: tuple[str, ...] = field(default=(), repr=False)
    timestamp: float = field(default=0.0, repr=False)
    is_hidden: bool = field(default=False, repr=False)
    fields: Mapping[str, Json] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.id or not self.id.isprintable():
            raise DataError("an item's id is empty or not printable text", "give each item an id of its own")
        if not math.isfinite(self.timestamp):
            raise DataError("an item's timestamp is not finite", "give Unix seconds")


class Shelf:
    """Items by code, as columns; changed by one thread, read by others.

    Attributes:
        version: goes up with every change; what is derived from items is kept as long as it stays.
    """

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self.version = 0
        self._items: list[Item] = []
        self._codes: dict[str, int] = {}
        self._is_open: list[bool] = []
        self._held: set[str] = set()
        self._derived: dict[str, tuple[int, NDArray[Any]]] = {}
        for item in items:
            self.put(item)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: object) -> bool:
        return isinstance(item, str) and item in self._codes and self._is_open[self._codes[item]]

    @property
    def n_open(self) -> int:
        """Items that are there, hidden ones too."""
        return sum(self._is_open)

    def put(self, item: Item) -> int:
        """Add an item, or describe one anew; returns its code."""
        code = self._codes.get(item.id)
        if code is None:
            code = self._codes[item.id] = len(self._items)
            self._items.append(item)
            self._is_open.append(True)
        else:
            self._items[code], self._is_open[code] = item, True
        self.version += 1
        return code

    def remove(self, item: str) -> bool:
        """Close an item; whether it was there."""
        if item not in self:
            return False
        self._is_open[self._codes[item]] = False
        self.version += 1
        return True

    def hold(self, item: str) -> None:
        """Keep an id off all lists until a person has decided, whether its item is there yet or not."""
        if item not in self._held:
            self._held.add(item)
            self.version += 1

    def let_go(self, item: str) -> None:
        """A person has decided that it may be shown."""
        if item in self._held:
            self._held.remove(item)
            self.version += 1

    def is_held(self, item: str) -> bool:
        """Whether it waits for a person, or was rejected by one."""
        return item in self._held

    def code(self, item: str) -> int:
        """The code of an item that is there. Raises DataError."""
        if item not in self:
            raise DataError("no such item", "add it first")
        return self._codes[item]

    def code_of(self, item: str) -> int:
        """The code of an id that was put here once. Raises KeyError."""
        return self._codes[item]

    def find(self, item: str) -> int | None:
        """The code of an id, whether its item is still there or not; None if it never was."""
        return self._codes.get(item)

    def item(self, code: int) -> Item:
        """What stands at a code."""
        return self._items[code]

    def items(self) -> list[Item]:
        """All that are there."""
        return [item for item, is_open in zip(self._items, self._is_open, strict=True) if is_open]

    def recommendable(self) -> NDArray[np.bool_]:
        """Which codes are there, not hidden, and not held back: `[items]`; not to be written to."""
        return self.derive("recommendable", self._recommendable)

    def _recommendable(self) -> NDArray[np.bool_]:
        held, both = self._held, zip(self._items, self._is_open, strict=True)
        return np.array([is_open and not item.is_hidden and item.id not in held for item, is_open in both], bool)

    def timestamps(self) -> NDArray[np.float64]:
        """Unix seconds by code, 0 where unknown: `[items]`."""
        return self.derive("timestamps", lambda: np.array([item.timestamp for item in self._items], np.float64))

    def in_category(self, category: str) -> NDArray[np.bool_]:
        """Which codes are of a category: `[items]`."""
        return self.derive(
            f"category {category}", lambda: np.array([category in item.categories for item in self._items], bool)
        )

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A field as a column, NaN where it is missing or no number: `[items]`."""
        return self.derive(
            f"numbers {name}", lambda: np.array([_number(item.fields.get(name)) for item in self._items], np.float64)
        )

    def derive(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What `make` gives for this version of the items, kept under a name until they change."""
        version, found = self._derived.get(name, (-1, None))
        if version != self.version or found is None:
            version, found = self.version, make()
            found.flags.writeable = False
            self._derived[name] = (version, found)
        return found


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
