"""The lists that a tenant's people were shown."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, select

from fedrec.database import Database
from fedrec_client.serving.records import Shown
from fedrec_client.serving.store.columns import chunks, from_json, to_json, upsert
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
        with self._database.write() as connection:
            return remove_shown_before(connection, self._tenant, timestamp)


def remove_shown_before(connection: Connection, tenant: str, timestamp: float) -> int:
    """`ShownBook.remove_before` in a transaction that has begun."""
    gone = delete(SHOWN).where(SHOWN.c.tenant == tenant, SHOWN.c.at < timestamp)
    return connection.execute(gone).rowcount


def add_shown(connection: Connection, tenant: str, lists: Sequence[Shown]) -> None:
    """`ShownBook.add` in a transaction that has begun."""
    first = {one.id: one for one in reversed(lists)}  # of one id given twice, as over several calls
    upsert(connection, SHOWN, [_row(tenant, one) for one in first.values()], replace=False)


def confirm_shown(connection: Connection, tenant: str, lists: Sequence[Shown]) -> None:
    """Note what was really displayed: of a list that is there already items and order alone change, a new one is added.

    What is known of an item that the list had keeps to it; one that was not in it comes without. A list of one named
    user is not changed by what names another: an id is the caller's word, and a list counts in its user's figures.
    """
    known: dict[str, Shown] = {}
    for some in chunks(dict.fromkeys(one.id for one in lists)):
        wanted = select(SHOWN).where(SHOWN.c.tenant == tenant, SHOWN.c.id.in_(some))
        known |= {row["id"]: shown_of(row) for row in connection.execute(wanted).mappings()}
    rows: dict[str, dict[str, Any]] = {}
    owners = {name: one.user for name, one in known.items()}
    for one in lists:
        owner = owners.setdefault(one.id, one.user)
        if one.user and owner and one.user != owner:
            continue
        rows[one.id] = _row(tenant, _reordered(known[one.id], one) if one.id in known else one)
    upsert(connection, SHOWN, list(rows.values()))


def _reordered(before: Shown, displayed: Shown) -> Shown:
    places = {item: place for place, item in enumerate(before.items)}
    found = [places.get(item) for item in displayed.items]
    sources = tuple(own if at is None else before.sources[at] for own, at in zip(displayed.sources, found, strict=True))
    features = {
        name: tuple(None if at is None else values[at] for at in found) for name, values in before.features.items()
    }
    return replace(before, items=displayed.items, sources=sources, features=features)


def shown_of(row: RowMapping) -> Shown:
    """A row of `SHOWN` as a list."""
    plain = {name: row[name] for name in ("id", "user", "session", "at", "arm", "adapter")}
    items, sources = (tuple(from_json(row[name])) for name in ("items", "sources"))
    features = {name: tuple(values) for name, values in from_json(row["features"]).items()}
    return Shown(**plain, items=items, sources=sources, features=features)


def _row(tenant: str, one: Shown) -> dict[str, Any]:
    plain = {name: getattr(one, name) for name in ("id", "user", "session", "at", "arm", "adapter")}
    lists = {name: to_json(list(getattr(one, name))) for name in ("items", "sources")}
    return {"tenant": tenant, **plain, **lists, "features": to_json(dict(one.features))}
