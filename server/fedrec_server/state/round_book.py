"""Every attempt at a round that was ever begun, and how it ended."""

from typing import Any

from sqlalchemy import func, insert, select, update

from fedrec_server.state.store import Database, now
from fedrec_server.state.tables import ROUNDS


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

    def began(self, run: str, number: int) -> str:
        """When the first attempt at a round was begun, as `now` writes it; "" if none was."""
        with self._database.begin() as connection:
            wanted = select(func.min(ROUNDS.c.started_at)).where(ROUNDS.c.run == run, ROUNDS.c.round == number)
            return str(connection.execute(wanted).scalar() or "")

    def latest(self, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """The latest attempts, or the latest before that of an `id`; newest first."""
        wanted = select(ROUNDS).order_by(ROUNDS.c.id.desc()).limit(limit)
        wanted = wanted if before is None else wanted.where(ROUNDS.c.id < before)
        with self._database.begin() as connection:
            return [dict(row) for row in connection.execute(wanted).mappings()]

    def committed(self, limit: int = 1000) -> list[dict[str, Any]]:
        """The latest committed attempt of each round, oldest round first; of the `limit` latest commits."""
        wanted = select(ROUNDS).where(ROUNDS.c.status == "committed").order_by(ROUNDS.c.id.desc()).limit(limit)
        with self._database.begin() as connection:
            rows = [dict(row) for row in connection.execute(wanted).mappings()]
        newest = {row["round"]: row for row in reversed(rows)}
        return [newest[number] for number in sorted(newest)]

    def attempts_of_round(self, number: int) -> int:
        """How many attempts at a round were begun, in whatever run."""
        with self._database.begin() as connection:
            wanted = select(func.count()).select_from(ROUNDS).where(ROUNDS.c.round == number)
            return int(connection.execute(wanted).scalar() or 0)
