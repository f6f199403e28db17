"""A data set as a scenario needs it: events by kind, items with fields, people with labels, and what is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.data.events import EventLog
from fedrec.errors import DataError

Value = str | float | bool
Fields = Mapping[str, Value]


@dataclass(frozen=True, eq=False)
class LoggedShows:
    """Rows of a policy that drew what it showed, with its probabilities; none of them is among the events. Private.

    Attributes:
        users: ids, as in the events; some may have none there.
        items: int32 `[rows]`, catalogue codes.
        rewards: float64 `[rows]`, 1 for a click.
        propensities: float64 `[rows]`, probability with which the item was shown.
    """

    users: tuple[str, ...] = field(repr=False)
    items: NDArray[np.int32] = field(repr=False)
    rewards: NDArray[np.float64] = field(repr=False)
    propensities: NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Scene:
    """Events with all that rules and figures read beside them.

    Attributes:
        fields: by item, public.
        appeared: float64 `[items]`, Unix seconds; 0 where unknown.
        labels: by user id, what is known of them. Private.
        told: what is real and what is made, and what stands for a user, in sentences.
        made: of users who are made, how; None of real ones.
        shows: of a logging policy, if there is one.
    Raises: DataError: fields or times that are not one an item.
    """

    catalog: ItemCatalog
    log: EventLog = field(repr=False)
    fields: tuple[Fields, ...] = field(repr=False)
    appeared: NDArray[np.float64] = field(repr=False)
    labels: Mapping[str, Fields] = field(repr=False)
    told: str = ""
    made: str | None = None
    shows: LoggedShows | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not len(self.fields) == len(self.appeared) == len(self.catalog):
            raise DataError("scene: fields or times are not one an item", "give each item its own")

    @property
    def field_names(self) -> set[str]:
        """That some item has."""
        return {name for own in self.fields for name in own}

    @property
    def label_names(self) -> set[str]:
        """That some user has."""
        return {name for own in self.labels.values() for name in own}
