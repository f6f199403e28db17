"""Answers that a partner gives to everybody, and requests that were handed over to a person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from fedrec.database import Database
from fedrec.support.answers import Answer
from fedrec.support.matching import Match
from fedrec_client.serving.store.columns import from_json, identifier, storable, to_json, upsert
from fedrec_client.serving.store.tables import HANDOVERS, SUPPORT_ANSWERS

_A, _H = SUPPORT_ANSWERS.c, HANDOVERS.c


@dataclass(frozen=True, repr=False)
class Handover:
    """A request that found no answer that was good enough. Private.

    Attributes:
        user: "" if nobody is named.
        matches: what was nearest, best first.
        at, answered_at: Unix seconds; 0 while nobody has answered.
        answer: a person's; "" while nobody has answered.
    """

    id: str
    user: str
    request: str
    matches: tuple[Match, ...]
    at: float
    answer: str = ""
    answered_at: float = 0.0


class SupportBook:
    """Answers by id, and hand-overs. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def put_answers(self, answers: Sequence[Answer]) -> None:
        """Add answers, or word them anew. Raises DataError: an id or text that cannot be stored."""
        rows = [
            {
                "tenant": self._tenant,
                "id": identifier(answer.id),
                "question": storable(answer.question),
                "answer": storable(answer.text),
            }
            for answer in answers
        ]
        with self._database.write() as connection:
            upsert(connection, SUPPORT_ANSWERS, rows)

    def answers(self) -> list[Answer]:
        """All of them, by id."""
        wanted = select(_A.id, _A.question, _A.answer).where(_A.tenant == self._tenant).order_by(_A.id)
        with self._database.begin() as connection:
            return [Answer(*row) for row in connection.execute(wanted)]

    def remove_answer(self, answer: str) -> bool:
        """Whether it was there."""
        gone = delete(SUPPORT_ANSWERS).where(_A.tenant == self._tenant, _A.id == answer)
        with self._database.write() as connection:
            return connection.execute(gone).rowcount > 0

    def handover(self, name: str) -> Handover | None:
        """One of them."""
        wanted = select(HANDOVERS).where(_H.tenant == self._tenant, _H.id == name)
        with self._database.begin() as connection:
            found = connection.execute(wanted).mappings().first()
        return None if found is None else _handover(dict(found))

    def handovers(self, n: int, *, is_open: bool) -> list[Handover]:
        """The oldest that wait for a person; or the latest that somebody answered, newest first."""
        wanted = select(HANDOVERS).where(_H.tenant == self._tenant)
        waits = wanted.where(_H.answered_at == 0).order_by(_H.at, _H.id)
        done = wanted.where(_H.answered_at > 0).order_by(_H.answered_at.desc(), _H.id)
        with self._database.begin() as connection:
            rows = connection.execute((waits if is_open else done).limit(n)).mappings().all()
        return [_handover(dict(row)) for row in rows]

    def counts(self) -> tuple[int, int]:
        """Waiting, answered."""
        wanted = select(_H.answered_at > 0, func.count()).where(_H.tenant == self._tenant).group_by(_H.answered_at > 0)
        with self._database.begin() as connection:
            found = {bool(is_answered): n for is_answered, n in connection.execute(wanted)}
        return found.get(False, 0), found.get(True, 0)

    def note_answer(self, name: str, answer: str, at: float) -> bool:
        """Keep a person's answer; False if there is no such hand-over, or somebody was first."""
        change = update(HANDOVERS).where(_H.tenant == self._tenant, _H.id == name, _H.answered_at == 0)
        with self._database.write() as connection:
            return connection.execute(change.values(answer=storable(answer), answered_at=at)).rowcount > 0


def add_handover(connection: Connection, tenant: str, handover: Handover) -> None:
    """Write one down, in a transaction that has begun. Raises DataError: a text that cannot be stored."""
    row = {
        "tenant": tenant,
        "id": handover.id,
        "user": identifier(handover.user) if handover.user else "",
        "request": storable(handover.request),
        "matches": to_json([[match.id, match.score] for match in handover.matches]),
        "at": handover.at,
        "answer": handover.answer,
        "answered_at": handover.answered_at,
    }
    connection.execute(insert(HANDOVERS), [row])


def _handover(row: Mapping[str, object]) -> Handover:
    values = {name: value for name, value in row.items() if name not in ("tenant", "matches")}
    matches = tuple(Match(name, score) for name, score in from_json(str(row["matches"])))
    return Handover(**values, matches=matches)  # type: ignore[arg-type]
