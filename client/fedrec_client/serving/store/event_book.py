"""The events of a tenant: an append-only log, and Gorse's view of it with one row for a type, user and item."""

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    tuple_,
)

from fedrec.database import Database
from fedrec.errors import DataError
from fedrec_client.serving.records import Event
from fedrec_client.serving.store.columns import chunks, from_cursor, from_json, storable, to_cursor, to_json
from fedrec_client.serving.store.tables import EVENTS

Mode = Literal["add", "set"]
_MOST = 1e15  # of a value, so that sums stay finite
_ADDING = 0x65766E74  # of PostgreSQL's advisory locks, which are numbers
_E = EVENTS.c
_KEY = (_E.item, _E.user, _E.type)  # in the order of its index


@dataclass(frozen=True, repr=False)
class AddedEvents:
    """What came of events.

    Attributes:
        accepted: how many count now.
        duplicates: ids that were there already; their events are ignored.
    """

    accepted: int
    duplicates: tuple[str, ...] = ()


class Past(NamedTuple):
    """An event as a history has it."""

    item: str
    type: str
    value: float
    timestamp: float

    def __repr__(self) -> str:
        return "Past(…)"


class EventBook:
    """What people did. Every method is one transaction.

    Raises, in every method: StorageError; DataError where a cursor is not of the list.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def add(self, events: Sequence[Event], *, mode: Mode = "add") -> AddedEvents:
        """Append events; ids that are there already are ignored, so that what was sent may be sent again.

        Args:
            mode: "set" first deletes earlier events of the same type, user (or session without one) and item.
        Raises: DataError: a value cannot be stored; then none of them is.
        """
        with self._database.write() as connection:
            return add_events(connection, self._tenant, events, mode)

    def remove(self, user: str, item: str, type: str | None = None) -> int:  # noqa: A002
        """Delete what a user did with an item; how many rows went."""
        with self._database.write() as connection:
            return remove_events(connection, self._tenant, user, item, type)

    def history(self, user: str, limit: int | None = None) -> list[Past]:
        """All that a user did, or the latest of it, oldest first."""
        return self._past(_E.user == user, limit) if user else []

    def session_history(self, session: str, limit: int | None = None) -> list[Past]:
        """All that was done in a session, or the latest of it, oldest first."""
        return self._past(_E.session == session, limit) if session else []

    def _past(self, which: ColumnElement[bool], limit: int | None) -> list[Past]:
        wanted = select(_E.item, _E.type, _E.value, _E.timestamp).where(_E.tenant == self._tenant, which)
        wanted = wanted.order_by(_E.timestamp.desc(), _E.seq.desc()).limit(limit)
        with self._database.begin() as connection:
            return [Past(*row) for row in connection.execute(wanted)][::-1]

    def find(
        self,
        n: int,
        cursor: str = "",
        *,
        type: str | None = None,  # noqa: A002
        user: str | None = None,
        item: str | None = None,
        until: float | None = None,
    ) -> tuple[list[Event], str]:
        """One row for a type, user and item, and where to go on: values added up, since the first, else of the latest.

        Events of sessions without a user are not among them. `updated` is when the last of them came.

        Args:
            until: only events that are not dated later.
        """
        after = from_cursor(cursor, str, str, str)
        key = (_unordered(_E.item), *_KEY[1:]) if user else _KEY
        sums = (func.sum(_E.value), func.min(_E.timestamp), func.max(_E.updated))
        wanted: Select[Any] = select(*key, *sums).group_by(*key).order_by(*key)
        wanted = _only(wanted, self._tenant, type, user, item)
        wanted = wanted if user else wanted.where(_E.user != "")
        wanted = wanted if until is None else wanted.where(_E.timestamp <= until)
        wanted = wanted if after is None else wanted.where(tuple_(*key) > tuple_(*after))
        with self._database.begin() as connection:
            groups = connection.execute(wanted.limit(n)).all()
            latest = _latest(connection, self._tenant, [(one[0], one[1], one[2]) for one in groups], until)
        found = [
            replace(latest[one_item, one_user, kind], value=value, timestamp=first, updated=updated)
            for one_item, one_user, kind, value, first, updated in groups
        ]
        return found, to_cursor(*groups[-1][:3]) if len(groups) == n and groups else ""

    def find_raw(
        self,
        n: int,
        cursor: str = "",
        *,
        type: str | None = None,  # noqa: A002
        user: str | None = None,
        item: str | None = None,
    ) -> tuple[list[Event], str]:
        """Events as they came, newest first, and where to go on."""
        after = from_cursor(cursor, int)
        order = _E.seq + literal_column("0") if user or item else _E.seq  # as `_unordered`
        wanted = _only(select(EVENTS), self._tenant, type, user, item).order_by(order.desc()).limit(n)
        wanted = wanted if after is None else wanted.where(_E.seq < after[0])
        with self._database.begin() as connection:
            rows = connection.execute(wanted).all()
        return [event_of(row) for row in rows], to_cursor(rows[-1].seq) if len(rows) == n and rows else ""

    def count(self) -> int:
        """How many there are."""
        wanted = select(func.count()).select_from(EVENTS).where(_E.tenant == self._tenant)
        with self._database.begin() as connection:
            return connection.execute(wanted).scalar_one()


def with_ids(events: Iterable[Event]) -> list[Event]:
    """Each with an id and a moment at which it came, so that what follows may be tried twice."""
    now = time.time()
    return [
        event
        if event.id and event.updated
        else replace(event, id=event.id or uuid.uuid4().hex, updated=event.updated or now)
        for event in events
    ]


def add_events(connection: Connection, tenant: str, events: Sequence[Event], mode: Mode = "add") -> AddedEvents:
    """`EventBook.add` in a transaction that has begun."""
    return add_batches(connection, tenant, [events], mode)[0]


def add_batches(
    connection: Connection, tenant: str, batches: Sequence[Sequence[Event]], mode: Mode = "add"
) -> list[AddedEvents]:
    """Events of several callers, as if one after the other, and what came of each one's."""
    if connection.dialect.name == "postgresql":
        # One after the other, so that numbers become visible in their order: who reads "since" would miss some.
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADDING})
    known = _known(connection, tenant, [event.id for events in batches for event in events if event.id])
    fresh: list[Event] = []
    added = []
    for events in batches:
        mine, duplicates = _split(with_ids(events), known)
        fresh += mine
        added.append(AddedEvents(len(mine), duplicates))
    written = _make_way(connection, tenant, fresh) if mode == "set" else fresh
    if written:
        connection.execute(insert(EVENTS), [_row(tenant, event) for event in written])
    return added


def remove_events(connection: Connection, tenant: str, user: str, item: str, type: str | None = None) -> int:  # noqa: A002
    """`EventBook.remove` in a transaction that has begun."""
    gone = delete(EVENTS).where(_E.tenant == tenant, _E.user == user, _E.item == item)
    return connection.execute(gone if type is None else gone.where(_E.type == type)).rowcount


def remove_events_of_item(connection: Connection, tenant: str, item: str) -> int:
    """Delete what anybody did with an item, in a transaction that has begun; how many rows went."""
    return connection.execute(delete(EVENTS).where(_E.tenant == tenant, _E.item == item)).rowcount


def event_of(row: Row[Any]) -> Event:
    """A row of `EVENTS` as an event."""
    names = ("type", "item", "user", "session", "value", "timestamp", "id", "ranking", "comment", "updated")
    return Event(**{name: getattr(row, name) for name in names}, labels=from_json(row.labels))


def _row(tenant: str, event: Event) -> dict[str, Any]:
    if abs(event.value) > _MOST:
        raise DataError(f"an event's value is beyond {_MOST:g}", "give smaller ones; nothing was stored")
    return {
        "tenant": tenant,
        "id": event.id,
        "type": event.type,
        "user": event.user,
        "item": event.item,
        "session": event.session,
        "value": event.value,
        "timestamp": event.timestamp,
        "updated": event.updated,
        "ranking": event.ranking,
        "labels": to_json(event.labels),
        "comment": storable(event.comment),
    }


def _split(events: Iterable[Event], known: set[str]) -> tuple[list[Event], tuple[str, ...]]:
    """Those whose id is not known yet, and from now on is; ids of the others."""
    fresh, duplicates = [], []
    for event in events:
        if event.id in known:
            duplicates.append(event.id)
        else:
            known.add(event.id)
            fresh.append(event)
    return fresh, tuple(duplicates)


def _known(connection: Connection, tenant: str, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for some in chunks(ids):
        found.update(connection.execute(select(_E.id).where(_E.tenant == tenant, _E.id.in_(some))).scalars())
    return found


def _make_way(connection: Connection, tenant: str, events: Sequence[Event]) -> list[Event]:
    """Delete what events replace; of several that replace one another the last remains."""
    remaining = {(one.type, one.user, one.item, "" if one.user else one.session): one for one in events}
    old = and_(_E.tenant == tenant, _E.type == bindparam("t"), _E.user == bindparam("u"), _E.item == bindparam("i"))
    named = [{"t": t, "u": u, "i": i} for t, u, i, s in remaining if u]
    nameless = [{"t": t, "u": u, "i": i, "s": s} for t, u, i, s in remaining if not u]
    if named:
        connection.execute(delete(EVENTS).where(old), named)
    if nameless:
        connection.execute(delete(EVENTS).where(old, _E.session == bindparam("s")), nameless)
    return list(remaining.values())


def _only(
    wanted: Select[Any],
    tenant: str,
    type: str | None,  # noqa: A002
    user: str | None,
    item: str | None,
) -> Select[Any]:
    wanted = wanted.where(_E.tenant == tenant)
    for column, value in ((_E.type, type), (_E.user, user), (_E.item, item)):
        wanted = wanted if value is None else wanted.where(column == value)
    return wanted


def _unordered(column: ColumnElement[str]) -> ColumnElement[str]:
    """The same value, but by no index: SQLite would go through a whole one that has the order that is wanted."""
    return column.concat(literal_column("''"))


def _latest(
    connection: Connection, tenant: str, keys: Sequence[tuple[str, str, str]], until: float | None
) -> dict[tuple[str, str, str], Event]:
    """Of each item, user and type the latest event."""
    found = {}
    place = func.row_number().over(partition_by=_KEY, order_by=(_E.timestamp.desc(), _E.seq.desc())).label("place")
    for some in chunks(keys, 200):
        # Some more than the keys, of which SQLite would go through the whole table; a page has few items or few users.
        items, users = {key[0] for key in some}, {key[1] for key in some}
        chosen = select(EVENTS, place).where(_E.tenant == tenant, _E.item.in_(items), _E.user.in_(users))
        ranked = (chosen if until is None else chosen.where(_E.timestamp <= until)).subquery()
        for row in connection.execute(select(ranked).where(ranked.c.place == 1)):
            found[row.item, row.user, row.type] = event_of(row)
    return found
