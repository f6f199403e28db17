"""The users of a tenant: who they are, all that is kept of one, and how it goes."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, delete, func, select

from fedrec.database import Database
from fedrec.recommend.shelf import Json
from fedrec_client.serving.records import User
from fedrec_client.serving.store.columns import (
    chunks,
    from_cursor,
    from_json,
    identifier,
    storable,
    to_cursor,
    to_json,
    upsert,
)
from fedrec_client.serving.store.tables import BLOCKS, EVENTS, HANDOVERS, OPINIONS, READINGS, SHOWN, USERS

_NESTED = {"labels", "subscribe", "items", "sources", "features", "matches"}
_HIDDEN = {"tenant", "seq"}


class UserBook:
    """Users by id. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def put(self, users: Sequence[User]) -> None:
        """Add users, or describe them anew. Raises DataError: an id or label that cannot be stored."""
        with self._database.write() as connection:
            put_users(connection, self._tenant, users)

    def put_new(self, ids: Iterable[str]) -> None:
        """Add users of whom nothing is known but the id; those that are there stay as they are. Raises DataError."""
        with self._database.write() as connection:
            put_new_users(connection, self._tenant, ids)

    def get(self, user: str) -> User | None:
        """One of them."""
        wanted = select(USERS).where(USERS.c.tenant == self._tenant, USERS.c.id == user)
        with self._database.begin() as connection:
            found = connection.execute(wanted).mappings().first()
        return None if found is None else _user(found)

    def page(self, n: int, cursor: str = "") -> tuple[list[User], str]:
        """Some, by id, and where to go on; "" at the end. Raises DataError: the cursor is not of this list."""
        after = from_cursor(cursor, str)
        wanted = select(USERS).where(USERS.c.tenant == self._tenant).order_by(USERS.c.id).limit(n)
        wanted = wanted if after is None else wanted.where(USERS.c.id > after[0])
        with self._database.begin() as connection:
            found = [_user(row) for row in connection.execute(wanted).mappings()]
        return found, to_cursor(found[-1].id) if len(found) == n and found else ""

    def count(self) -> int:
        """How many there are."""
        wanted = select(func.count()).select_from(USERS).where(USERS.c.tenant == self._tenant)
        with self._database.begin() as connection:
            return connection.execute(wanted).scalar_one()

    def remove(self, user: str) -> dict[str, int]:
        """Delete all that is kept of a user, at once; rows that went, by kind.

        What was done without a name goes too where its session names this user elsewhere, and nobody else.
        """
        with self._database.write() as connection:
            return remove_user(connection, self._tenant, user)

    def export(self, user: str) -> dict[str, list[dict[str, Json]]]:
        """All that `remove` would delete, by kind, as plain values for JSON; bytes in base64."""
        found: dict[str, list[dict[str, Json]]] = {}
        with self._database.begin() as connection:
            for kind, table, which in _all_of(connection, self._tenant, user):
                rows = connection.execute(select(table).where(which)).mappings()
                found.setdefault(kind, []).extend(_plain(row) for row in rows)
        return found


def put_users(connection: Connection, tenant: str, users: Sequence[User]) -> None:
    """`UserBook.put` in a transaction that has begun."""
    upsert(connection, USERS, [_row(tenant, user) for user in users])


def put_new_users(connection: Connection, tenant: str, ids: Iterable[str]) -> None:
    """`UserBook.put_new` in a transaction that has begun."""
    upsert(connection, USERS, [_row(tenant, User(user)) for user in ids], replace=False)


def remove_user(connection: Connection, tenant: str, user: str) -> dict[str, int]:
    """`UserBook.remove` in a transaction that has begun."""
    removed: dict[str, int] = {}
    for kind, table, which in _all_of(connection, tenant, user):
        removed[kind] = removed.get(kind, 0) + connection.execute(delete(table).where(which)).rowcount
    return removed


def _all_of(connection: Connection, tenant: str, user: str) -> Iterator[tuple[str, Table, ColumnElement[bool]]]:
    """Where rows of a user are: one list for what is exported and what is deleted. In an order in which both work."""
    sessions = _own_sessions(connection, tenant, user)
    rankings = select(SHOWN.c.id).where(SHOWN.c.tenant == tenant, SHOWN.c.user == user)
    yield (
        "opinions",
        OPINIONS,
        and_(OPINIONS.c.tenant == tenant, OPINIONS.c.user == "", OPINIONS.c.ranking.in_(rankings)),
    )
    yield "users", USERS, and_(USERS.c.tenant == tenant, USERS.c.id == user)
    tables = {"events": EVENTS, "shown": SHOWN, "blocks": BLOCKS, "opinions": OPINIONS, "readings": READINGS}
    tables |= {"handovers": HANDOVERS}
    for kind, table in tables.items():
        yield kind, table, and_(table.c.tenant == tenant, table.c.user == user)
    for some in chunks(sessions):
        for kind, table in (("events", EVENTS), ("shown", SHOWN)):
            # Not `user = ""`, for which SQLite would go through everybody's nameless rows by the index of users.
            nameless = table.c.user.concat("") == ""
            yield kind, table, and_(table.c.tenant == tenant, table.c.session.in_(some), nameless)


def _own_sessions(connection: Connection, tenant: str, user: str) -> list[str]:
    """Sessions in which this user was named, and nobody else."""
    own: set[str] = set()
    shared: set[str] = set()
    for table in (EVENTS, SHOWN):
        wanted = select(table.c.session).where(table.c.tenant == tenant, table.c.user == user)
        own.update(session for session in connection.execute(wanted).scalars() if session)
    for table in (EVENTS, SHOWN):
        named = select(table.c.session).where(table.c.tenant == tenant, table.c.user.not_in(["", user])).distinct()
        for some in chunks(sorted(own)):
            shared.update(connection.execute(named.where(table.c.session.in_(some))).scalars())
    return sorted(own - shared)


def _row(tenant: str, user: User) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "id": identifier(user.id),
        "labels": to_json(user.labels),
        "comment": storable(user.comment),
        "subscribe": to_json(list(user.subscribe)),
    }


def _user(row: RowMapping) -> User:
    return User(row["id"], from_json(row["labels"]), row["comment"], tuple(from_json(row["subscribe"])))


def _plain(row: RowMapping) -> dict[str, Json]:
    return {name: _value(name, value) for name, value in row.items() if name not in _HIDDEN}


def _value(name: str, value: Any) -> Json:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return from_json(value) if name in _NESTED else value
