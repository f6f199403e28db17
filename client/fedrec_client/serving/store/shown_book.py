"""The lists that a tenant's people were shown."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, select

from fedrec.database import Database
from fedrec_client.serving.records import Shown
from fedrec_client.serving.store.columns import from_json, to_json, upsert
from fedrec_client.serving.store.tables import SHOWN


class ShownBook:
    """Lists by the id of their answer. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def add(self, lists: Sequence[Shown]) -> None:
        """Note lists; one whose id is there already is ignored."""
        with self._database.write() as connection:
            add_shown(connection, self._tenant, lists)

    def find(self, ranking: str) -> Shown | None:
        """One of them."""
        wanted = select(SHOWN).where(SHOWN.c.tenant == self._tenant, SHOWN.c.id == ranking)
        with self._database.begin() as connection:
            found = connection.execute(wanted).mappings().first()
        return None if found is None else shown_of(found)

    def latest(self, n: int) -> list[Shown]:
        """The newest, newest first."""
        wanted = select(SHOWN).where(SHOWN.c.tenant == self._tenant)
        wanted = wanted.order_by(SHOWN.c.at.desc(), SHOWN.c.id.desc()).limit(n)
        with self._database.begin() as connection:
            return [shown_of(row) for row in connection.execute(wanted).mappings()]

    def between(self, after: float, until: float, limit: int) -> list[Shown]:
        """The first lists after a moment and not after another, oldest first."""
        wanted = select(SHOWN).where(SHOWN.c.tenant == self._tenant, SHOWN.c.at > after, SHOWN.c.at <= until)
        wanted = wanted.order_by(SHOWN.c.at, SHOWN.c.id).limit(limit)
        with self._database.begin() as connection:
            return [shown_of(row) for row in connection.execute(wanted).mappings()]

    def remove_before(self, timestamp: float) -> int:
        """Forget older ones; how many went."""
        gone = delete(SHOWN).where(SHOWN.c.tenant == self._tenant, SHOWN.c.at < timestamp)
        with self._database.write() as connection:
            return connection.execute(gone).rowcount


def add_shown(connection: Connection, tenant: str, lists: Sequence[Shown]) -> None:
    """`ShownBook.add` in a transaction that has begun."""
    upsert(connection, SHOWN, [_row(tenant, one) for one in lists], replace=False)


def shown_of(row: RowMapping) -> Shown:
    """A row of `SHOWN` as a list."""
    plain = {name: row[name] for name in ("id", "user", "session", "at", "arm", "adapter")}
    return Shown(**plain, items=tuple(from_json(row["items"])), sources=tuple(from_json(row["sources"])))


def _row(tenant: str, one: Shown) -> dict[str, Any]:
    plain = {name: getattr(one, name) for name in ("id", "user", "session", "at", "arm", "adapter")}
    return {"tenant": tenant, **plain, "items": to_json(list(one.items)), "sources": to_json(list(one.sources))}
