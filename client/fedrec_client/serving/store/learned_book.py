"""Weights of the final ranking that clicks taught, by arm. They tell of the partner's clicks, and stay here."""

from collections.abc import Mapping

from sqlalchemy import select

from fedrec.database import Database
from fedrec_client.serving.store.columns import from_json, to_json, upsert
from fedrec_client.serving.store.tables import LEARNED


class LearnedBook:
    """The latest of each arm. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def put(self, arm: str, weights: Mapping[str, float], at: float) -> None:
        """Keep an arm's weights by feature, in their order, in place of those before."""
        row = {"tenant": self._tenant, "arm": arm, "weights": to_json(list(weights.items())), "at": at}
        with self._database.write() as connection:
            upsert(connection, LEARNED, [row])

    def every(self) -> dict[str, dict[str, float]]:
        """Weights by arm."""
        wanted = select(LEARNED.c.arm, LEARNED.c.weights).where(LEARNED.c.tenant == self._tenant)
        with self._database.begin() as connection:
            return {arm: dict(from_json(weights)) for arm, weights in connection.execute(wanted)}
