"""A tenant's events as drift, training and popularity read them: in order of arrival, by item, by user."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, case, func, select, tuple_

from fedrec.database import Database
from fedrec_client.serving.records import Event
from fedrec_client.serving.store.event_book import event_of
from fedrec_client.serving.store.tables import EVENTS

_E = EVENTS.c
_STEP = 5000


class Arrived(NamedTuple):
    """An event and its number; later ones have higher numbers, not always by one."""

    seq: int
    event: Event


class ItemCounts(NamedTuple):
    """How many events an item has since each of some moments, and, last, ever."""

    item: str
    events: tuple[int, ...]

    def __repr__(self) -> str:
        return "ItemCounts(…)"


class TrainingRow(NamedTuple):
    """An event as training reads it."""

    user: str
    item: str
    timestamp: float
    type: str
    value: float

    def __repr__(self) -> str:
        return "TrainingRow(…)"


class EventLog:
    """The log, to be read. Every method is one transaction, except `every_by_user`, which takes many short ones.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def since(self, seq: int, limit: int) -> list[Arrived]:
        """Events after a number, 0 for all, in order of arrival. None that comes later has a lower one."""
        wanted = select(EVENTS).where(_E.tenant == self._tenant, _E.seq > seq).order_by(_E.seq).limit(limit)
        with self._database.begin() as connection:
            return [Arrived(row.seq, event_of(row)) for row in connection.execute(wanted)]

    def latest(self, limit: int, before: int | None = None) -> list[Arrived]:
        """The newest events, or the newest before a number; newest first."""
        wanted = select(EVENTS).where(_E.tenant == self._tenant).order_by(_E.seq.desc()).limit(limit)
        wanted = wanted if before is None else wanted.where(_E.seq < before)
        with self._database.begin() as connection:
            return [Arrived(row.seq, event_of(row)) for row in connection.execute(wanted)]

    def last_seq(self) -> int:
        """The number of the latest event, 0 for none."""
        wanted = select(_E.seq).where(_E.tenant == self._tenant).order_by(_E.seq.desc()).limit(1)
        with self._database.begin() as connection:
            return connection.execute(wanted).scalar() or 0

    def counts_by_item(
        self, since: Sequence[float] = (), types: Collection[str] | None = None, without: Collection[str] = ()
    ) -> list[ItemCounts]:
        """Items with events of some types, all counted in one pass over an index that has all it takes.

        Args:
            since: Unix seconds from which on they are counted, apart for each.
            types: None: of any type; `without`: but not of these.
        """
        later = [func.sum(case((_E.timestamp >= moment, 1), else_=0)) for moment in since]
        wanted: Select[Any] = self._of_types(select(_E.item, *later, func.count()), types, without)
        with self._database.begin() as connection:
            rows = connection.execute(wanted.group_by(_E.item).order_by(_E.item)).all()
        return [ItemCounts(row[0], tuple(row[1:])) for row in rows]

    def latest_timestamp(self, types: Collection[str] | None = None, without: Collection[str] = ()) -> float | None:
        """When the latest event of some types happened, as its sender says; None: there is none."""
        wanted = self._of_types(select(func.max(_E.timestamp)), types, without)
        with self._database.begin() as connection:
            return connection.execute(wanted).scalar()

    def _of_types(self, wanted: Select[Any], types: Collection[str] | None, without: Collection[str]) -> Select[Any]:
        wanted = wanted.where(_E.tenant == self._tenant)
        wanted = wanted.where(_E.type.not_in(without)) if without else wanted
        return wanted if types is None else wanted.where(_E.type.in_(types))

    def every_by_user(self, id_prefix: str | None = None) -> Iterator[TrainingRow]:
        """Events of users, user by user, oldest first, read some at a time: what comes meanwhile may be there.

        Args:
            id_prefix: of those whose id begins so alone.
        """
        place = (_E.user, _E.timestamp, _E.seq)
        chosen = select(*place, _E.item, _E.type, _E.value).where(_E.tenant == self._tenant, _E.user != "")
        chosen = chosen if id_prefix is None else chosen.where(_E.id.startswith(id_prefix, autoescape=True))
        chosen, wanted = chosen.order_by(*place).limit(_STEP), chosen.order_by(*place).limit(_STEP)
        while True:
            with self._database.begin() as connection:
                rows = connection.execute(wanted).all()
            for user, timestamp, _, item, kind, value in rows:
                yield TrainingRow(user, item, timestamp, kind, value)
            if len(rows) < _STEP:
                return
            wanted = chosen.where(tuple_(*place) > tuple_(*rows[-1][:3]))
