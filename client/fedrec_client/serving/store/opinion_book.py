"""What a tenant's users say of the reasons that they were given."""

from dataclasses import dataclass

from sqlalchemy import func, select

from fedrec.database import Database
from fedrec_client.serving.store.columns import identifier, storable, upsert
from fedrec_client.serving.store.tables import OPINIONS

_O = OPINIONS.c


@dataclass(frozen=True, repr=False)
class Opinion:
    """Whether the reason for an item in a list was helpful.

    Attributes:
        user: "" if nobody is named.
        ranking: the answer that gave the reason.
        at: Unix seconds.
    """

    user: str
    ranking: str
    item: str
    is_helpful: bool
    comment: str
    at: float


class OpinionBook:
    """Opinions, one of a user on an item in a ranking. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def add(self, user: str, ranking: str, item: str, is_helpful: bool, comment: str, at: float) -> None:
        """Note one, in place of the same user's earlier one. Raises DataError: a text that cannot be stored."""
        key = {"user": identifier(user) if user else "", "ranking": storable(ranking), "item": identifier(item)}
        row = {"tenant": self._tenant, **key, "is_helpful": is_helpful, "comment": storable(comment), "at": at}
        with self._database.write() as connection:
            upsert(connection, OPINIONS, [row])

    def latest(self, n: int) -> list[Opinion]:
        """The newest, newest first."""
        wanted = select(_O.user, _O.ranking, _O.item, _O.is_helpful, _O.comment, _O.at)
        wanted = wanted.where(_O.tenant == self._tenant).order_by(_O.at.desc(), _O.ranking, _O.item, _O.user).limit(n)
        with self._database.begin() as connection:
            return [Opinion(*row) for row in connection.execute(wanted)]

    def counts(self) -> dict[bool, int]:
        """How many are helpful (True), and how many not."""
        wanted = select(_O.is_helpful, func.count()).where(_O.tenant == self._tenant).group_by(_O.is_helpful)
        with self._database.begin() as connection:
            rows = connection.execute(wanted).all()
        found = {row[0]: row[1] for row in rows}
        return {kind: found.get(kind, 0) for kind in (True, False)}
