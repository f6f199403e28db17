"""Every attempt at a round that was ever begun, and how it ended."""

from typing import Any

from sqlalchemy import func, insert, select, update

from fedrec_server.store import Database, now
from fedrec_server.tables import ROUNDS


class RoundBook:
    """Attempts, in the order in which they were begun. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, run: str, number: int, attempt: int, part: str) -> None:
        """Durably, before anybody is asked: this attempt's number is used."""
        values = {"run": run, "round": number, "attempt": attempt, "part": part, "status": "asked"}
        empty = {"seconds": 0.0, "partners": [], "reasons": {}, "bytes_up": 0, "bytes_down": 0, "adapter_hash": ""}
        with self._database.begin() as connection:
            connection.execute(insert(ROUNDS).values(**values, **empty, started_at=now()))

    def end(self, run: str, number: int, attempt: int, **found: Any) -> None:
        """How an attempt ended: `status` and whatever else of the table's columns is known."""
        with self._database.begin() as connection:
            this = (ROUNDS.c.run == run, ROUNDS.c.round == number, ROUNDS.c.attempt == attempt)
            connection.execute(update(ROUNDS).where(*this).values(**found))

    def attempts(self, run: str, number: int) -> int:
        """The highest attempt at a round that was ever begun, 0 if none."""
        with self._database.begin() as connection:
            wanted = select(func.max(ROUNDS.c.attempt)).where(ROUNDS.c.run == run, ROUNDS.c.round == number)
            return int(connection.execute(wanted).scalar() or 0)

    def latest(self, limit: int = 100) -> list[dict[str, Any]]:
        """The latest attempts, newest first."""
        with self._database.begin() as connection:
            rows = connection.execute(select(ROUNDS).order_by(ROUNDS.c.id.desc()).limit(limit)).mappings()
            return [dict(row) for row in rows]

    def attempts_of_round(self, number: int) -> int:
        """How many attempts at a round were begun, in whatever run."""
        with self._database.begin() as connection:
            wanted = select(func.count()).select_from(ROUNDS).where(ROUNDS.c.round == number)
            return int(connection.execute(wanted).scalar() or 0)
