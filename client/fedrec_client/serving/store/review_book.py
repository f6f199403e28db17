"""What waits for a person to decide: items that were flagged, rules that somebody proposed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from fedrec.database import Database
from fedrec.recommend.shelf import Json
from fedrec_client.serving.errors import ConflictError, NotFoundError
from fedrec_client.serving.store.audit_book import add_line, one_at_a_time
from fedrec_client.serving.store.columns import from_cursor, from_json, identifier, storable, to_cursor, to_json
from fedrec_client.serving.store.tables import REVIEWS

Kind = Literal["item", "rule"]
Decision = Literal["approved", "edited", "rejected"]
State = Literal["waiting", "approved", "edited", "rejected", "superseded"]
_R = REVIEWS.c


@dataclass(frozen=True)
class Case:
    """One question to a person.

    Attributes:
        subject: an item's id, or a rule's name.
        digest: of the content that is decided on.
        flags: why; of a rule none.
        content: the item, or what is to be done with the rule.
        asked_by, decided_by: names of API keys, "local", or "screen" for the service itself.
        at, decided_at: Unix seconds; 0: not decided yet.
    """

    id: int
    kind: Kind
    subject: str
    digest: str
    state: State
    flags: Sequence[Json] = field(repr=False)
    content: Json = field(repr=False)
    asked_by: str
    at: float
    decided_by: str = ""
    decided_at: float = 0.0
    note: str = field(default="", repr=False)


class ReviewBook:
    """A tenant's cases. Every method is one transaction, and writes its line into the audit log within it.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def ask(
        self, kind: Kind, subject: str, digest: str, flags: Sequence[Json], content: Json, who: str, at: float
    ) -> Case:
        """Put a question; a case on the same subject that waits is answered by it, unless it is the same question."""
        with self._database.write() as connection:
            one_at_a_time(connection)
            waiting = select(REVIEWS).where(_R.tenant == self._tenant, _R.kind == kind, _R.subject == subject)
            for row in connection.execute(waiting.where(_R.state == "waiting")).mappings().all():
                if row["digest"] == digest and row["flags"] == to_json(list(flags)):
                    return _case(row)
                self._close(connection, _case(row), who, at)
            values = {"tenant": self._tenant, "kind": kind, "subject": identifier(subject), "digest": digest}
            values |= {"state": "waiting", "flags": to_json(list(flags)), "content": to_json(content)}
            values |= {"asked_by": storable(who), "decided_by": "", "note": ""}
            last = connection.execute(select(func.max(_R.id)).where(_R.tenant == self._tenant)).scalar()
            number = (last or 0) + 1
            connection.execute(insert(REVIEWS).values(id=number, **values, at=at, decided_at=0.0))
            what = "flagged" if kind == "item" else "proposed"
            after = {"state": "waiting", "flags": list(flags), "content": content}
            self._log(connection, kind, subject, who, what, at, None, after)
        return Case(number, kind, subject, digest, "waiting", list(flags), content, who, at)

    def decide(self, number: int, decision: Decision, who: str, at: float, note: str = "", after: Json = None) -> Case:
        """Decide a case that waits; of two who decide at once one finds that it is decided.

        Args:
            after: the content that is in force from now on, where it was edited.
        Raises: NotFoundError; ConflictError: it does not wait any more, and says who decided it and how.
        """
        with self._database.write() as connection:
            found = self._find(connection, number)
            taken = update(REVIEWS).where(_R.tenant == self._tenant, _R.id == number, _R.state == "waiting")
            changed = {"state": decision, "decided_by": storable(who), "decided_at": at, "note": storable(note)}
            if not connection.execute(taken.values(**changed)).rowcount:
                found = self._find(connection, number)  # on PostgreSQL it may have been decided since it was read
                raise ConflictError(
                    f"this case is {found.state} already, by {found.decided_by or 'nobody named'}",
                    "load the page again; a new flag or proposal makes a new case",
                )
            before = {"state": "waiting", "content": found.content}
            told = {"state": decision, "content": found.content if after is None else after}
            self._log(connection, found.kind, found.subject, who, decision, at, before, told, note)
            return self._find(connection, number)

    def get(self, number: int) -> Case:
        """One of them. Raises NotFoundError."""
        with self._database.begin() as connection:
            return self._find(connection, number)

    def page(
        self, n: int, cursor: str = "", state: State | None = "waiting", kind: Kind | None = None
    ) -> tuple[list[Case], str]:
        """Some, oldest first, and where to go on; "" at the end. Raises DataError: the cursor is not of this list."""
        after = from_cursor(cursor, int)
        wanted = select(REVIEWS).where(_R.tenant == self._tenant).order_by(_R.id).limit(n)
        wanted = wanted if state is None else wanted.where(_R.state == state)
        wanted = wanted if kind is None else wanted.where(_R.kind == kind)
        wanted = wanted if after is None else wanted.where(_R.id > after[0])
        with self._database.begin() as connection:
            cases = [_case(row) for row in connection.execute(wanted).mappings()]
        return cases, to_cursor(cases[-1].id) if len(cases) == n and cases else ""

    def waiting(self) -> tuple[int, float | None]:
        """How many wait, and since when the oldest does."""
        wanted = select(func.count(), func.min(_R.at)).where(_R.tenant == self._tenant, _R.state == "waiting")
        with self._database.begin() as connection:
            count, oldest = connection.execute(wanted).one()
        return count, oldest

    def latest_items(self) -> dict[str, tuple[State, str]]:
        """State and digest of the latest case of each item that ever had one."""
        wanted = select(_R.subject, _R.state, _R.digest).where(_R.tenant == self._tenant, _R.kind == "item")
        with self._database.begin() as connection:
            rows = connection.execute(wanted.order_by(_R.id)).all()
        return {subject: (cast(State, state), digest) for subject, state, digest in rows}

    def _find(self, connection: Connection, number: int) -> Case:
        wanted = select(REVIEWS).where(_R.tenant == self._tenant, _R.id == number)
        row = connection.execute(wanted).mappings().first() if abs(number) < 2**63 else None
        if row is None:
            raise NotFoundError("case")
        return _case(row)

    def _close(self, connection: Connection, case: Case, who: str, at: float) -> None:
        changed = {"state": "superseded", "decided_by": storable(who), "decided_at": at}
        one = update(REVIEWS).where(_R.tenant == self._tenant, _R.id == case.id)
        connection.execute(one.values(**changed))
        told = {"state": "waiting"}, {"state": "superseded"}
        self._log(connection, case.kind, case.subject, who, "superseded", at, *told)

    def _log(
        self,
        connection: Connection,
        kind: Kind,
        subject: str,
        who: str,
        what: str,
        at: float,
        before: Json,
        after: Json,
        note: str = "",
    ) -> None:
        told = {"who": who, "what": what, "kind": kind, "subject": subject, "note": note}
        add_line(connection, self._tenant, at=at, before=before, after=after, **told)


def _case(row: RowMapping) -> Case:
    return Case(
        row["id"],
        row["kind"],
        row["subject"],
        row["digest"],
        row["state"],
        from_json(row["flags"]),
        from_json(row["content"]),
        row["asked_by"],
        row["at"],
        row["decided_by"],
        row["decided_at"],
        row["note"],
    )
