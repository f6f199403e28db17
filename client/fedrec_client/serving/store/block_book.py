"""What a tenant's users do not want to see."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, select

from fedrec.database import Database
from fedrec_client.serving.store.columns import identifier, storable, upsert
from fedrec_client.serving.store.tables import BLOCKS

Kind = Literal["item", "category"]


@dataclass(frozen=True, repr=False)
class Blocked:
    """Of one user."""

    items: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()


class BlockBook:
    """Block lists by user. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def block(self, user: str, kind: Kind, value: str) -> None:
        """Never again, until `unblock`. Raises DataError: no user or value that can be one."""
        row = {"tenant": self._tenant, "user": identifier(user), "kind": kind, "value": storable(value)}
        with self._database.write() as connection:
            upsert(connection, BLOCKS, [row])

    def unblock(self, user: str, kind: Kind, value: str) -> bool:
        """Allow again; whether it was blocked."""
        b = BLOCKS.c
        gone = delete(BLOCKS).where(b.tenant == self._tenant, b.user == user, b.kind == kind, b.value == value)
        with self._database.write() as connection:
            return bool(connection.execute(gone).rowcount)

    def of(self, user: str) -> Blocked:
        """All of a user."""
        b = BLOCKS.c
        wanted = select(b.kind, b.value).where(b.tenant == self._tenant, b.user == user)
        with self._database.begin() as connection:
            rows = [(kind, value) for kind, value in connection.execute(wanted)]
        items, categories = (frozenset(v for k, v in rows if k == kind) for kind in ("item", "category"))
        return Blocked(items, categories)
