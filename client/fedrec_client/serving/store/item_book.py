"""The items of a tenant."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select

from fedrec.database import Database
from fedrec.recommend.shelf import Item
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
from fedrec_client.serving.store.tables import ITEMS

_TOGETHER = 10_000
# What an `Item` is made of, in its order.
_DESCRIBED = [ITEMS.c[one] for one in ("id", "title", "text", "categories", "timestamp", "is_hidden", "fields")]


class ItemBook:
    """Items by id. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def put(self, items: Sequence[Item]) -> None:
        """Add items, or describe them anew. Raises DataError: a field is no JSON; then nothing is stored."""
        with self._database.write() as connection:
            put_items(connection, self._tenant, items)

    def get(self, item: str) -> Item | None:
        """One of them."""
        wanted = select(*_DESCRIBED).where(ITEMS.c.tenant == self._tenant, ITEMS.c.id == item)
        with self._database.begin() as connection:
            found = connection.execute(wanted).first()
        return None if found is None else _item(found)

    def several(self, ids: Iterable[str]) -> dict[str, Item]:
        """Those of them that there are, by id."""
        found: dict[str, Item] = {}
        with self._database.begin() as connection:
            for some in chunks(ids):
                wanted = select(*_DESCRIBED).where(ITEMS.c.tenant == self._tenant, ITEMS.c.id.in_(some))
                found |= {row.id: _item(row) for row in connection.execute(wanted)}
        return found

    def remove(self, item: str) -> bool:
        """Forget one; whether it was there. Events that name it stay."""
        with self._database.write() as connection:
            return remove_item(connection, self._tenant, item)

    def page(self, n: int, cursor: str = "", text: str = "") -> tuple[list[Item], str]:
        """Some, by id, and where to go on; "" at the end.

        Args:
            text: only those with it in id, title or text, in capital or small letters.
        Raises: DataError: the cursor is not of this list.
        """
        after = from_cursor(cursor, str)
        wanted = select(*_DESCRIBED).where(ITEMS.c.tenant == self._tenant).order_by(ITEMS.c.id).limit(n)
        wanted = wanted if after is None else wanted.where(ITEMS.c.id > after[0])
        wanted = wanted.where(ITEMS.c.searched.contains(text.casefold(), autoescape=True)) if text else wanted
        with self._database.begin() as connection:
            found = list(map(_item, connection.execute(wanted).all()))
        return found, to_cursor(found[-1].id) if len(found) == n and found else ""

    def every(self) -> Iterator[Item]:
        """All, by id, read some at a time: what is put meanwhile may be there or not."""
        cursor = ""
        while True:
            items, cursor = self.page(_TOGETHER, cursor)
            yield from items
            if not cursor:
                return

    def count(self) -> int:
        """How many there are."""
        wanted = select(func.count()).select_from(ITEMS).where(ITEMS.c.tenant == self._tenant)
        with self._database.begin() as connection:
            return connection.execute(wanted).scalar_one()


def put_items(connection: Connection, tenant: str, items: Sequence[Item]) -> None:
    """`ItemBook.put` in a transaction that has begun."""
    upsert(connection, ITEMS, [_row(tenant, item) for item in items])


def remove_item(connection: Connection, tenant: str, item: str) -> bool:
    """`ItemBook.remove` in a transaction that has begun."""
    return bool(connection.execute(delete(ITEMS).where(ITEMS.c.tenant == tenant, ITEMS.c.id == item)).rowcount)


def _row(tenant: str, item: Item) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "id": identifier(item.id),
        "title": storable(item.title),
        "text": storable(item.text),
        "categories": to_json(list(item.categories)),
        "timestamp": item.timestamp,
        "is_hidden": item.is_hidden,
        "fields": to_json(dict(item.fields)),
        "searched": "\n".join((item.id, item.title, item.text)).casefold(),
    }


def _item(row: Row[*tuple[Any, ...]]) -> Item:
    item, title, text, categories, timestamp, is_hidden, fields = row
    return Item(item, title, text, tuple(from_json(categories)), timestamp, is_hidden, from_json(fields))
