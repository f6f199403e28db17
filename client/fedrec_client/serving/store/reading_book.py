"""What the language model made of users' histories, so that a restart need not read them all again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from fedrec.database import Database
from fedrec_client.serving.store.columns import chunks, identifier, upsert
from fedrec_client.serving.store.tables import READINGS

_R = READINGS.c


@dataclass(frozen=True, repr=False)
class Reading:
    """Of one user's history.

    Attributes:
        digest: of the history that was read.
        reading_hash: of what read it: backbone, adapter, catalogue.
    """

    digest: bytes
    reading_hash: str
    content: bytes


class ReadingBook:
    """A cache: one reading a user. Every method is one transaction, with many users several.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def get(self, users: Iterable[str]) -> dict[str, Reading]:
        """Of those that have one."""
        found: dict[str, Reading] = {}
        columns = select(_R.user, _R.digest, _R.reading_hash, _R.content).where(_R.tenant == self._tenant)
        for some in chunks(users):
            with self._database.begin() as connection:
                for user, *values in connection.execute(columns.where(_R.user.in_(some))):
                    found[user] = Reading(*values)
        return found

    def put(self, readings: Mapping[str, Reading]) -> None:
        """Keep readings by user, in place of earlier ones."""
        with self._database.write() as connection:
            put_readings(connection, self._tenant, readings)

    def forget_all_but(self, reading_hash: str) -> int:
        """Drop what something else read; how many went."""
        gone = delete(READINGS).where(_R.tenant == self._tenant, _R.reading_hash != reading_hash)
        with self._database.write() as connection:
            return connection.execute(gone).rowcount


def put_readings(connection: Connection, tenant: str, readings: Mapping[str, Reading]) -> None:
    """`ReadingBook.put` within a transaction."""
    rows = [{"tenant": tenant, "user": identifier(user), **vars(reading)} for user, reading in readings.items()]
    upsert(connection, READINGS, rows)
