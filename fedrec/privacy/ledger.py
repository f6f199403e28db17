"""A partner's own durable account of what one data set has paid: RESERVE, read data, RELEASE, send.

One ledger per partner and data set, over all runs, plans and adapters that ever touch those data. A crash in
between leaves the reserve spent. The file holds no private value: hashes, public figures, times and notes.

What shows: a changed, removed or inserted record (hash chain); a copy, an older copy in the same place, another
branch, a missing anchor (`NAME.anchor` beside the file, see ledger_anchor.py); a clock that was set back; a budget
that was raised. What cannot show from the inside: ledger and anchor put back together into their own files, by `cp`
or with the whole disk; that needs a witness, an export kept elsewhere. Nor does it show if somebody makes all hashes
and the anchor anew, or deletes both files and creates another ledger: the owner must not do that, nor can be hindered.
"""

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from fedrec.errors import BudgetError, LedgerError, PrivacyError
from fedrec.files import storage_errors, sync_folder
from fedrec.privacy.ledger_anchor import (
    Anchor,
    Place,
    anchor_path,
    check_anchor,
    is_of_unfinished_creation,
    keep_anchor,
    place_of,
)
from fedrec.privacy.ledger_chain import FORMAT, Budget, Chain, Kind, Mark, Record, canonical, chained, read_chain
from fedrec.privacy.ledger_report import LedgerReport, check_witness, report_of
from fedrec.privacy.ledger_store import append_record, make_engine, named_errors, newest, read_records, write_new
from fedrec.privacy.mechanism import Event, mechanism_problems


@dataclass(frozen=True)
class _Turn:
    """One use of a ledger, while nobody else can write to it."""

    db: Connection
    chain: Chain
    place: Place

    def append(self, kind: Kind, content: Any, event_id: str = "", note: str = "") -> None:
        """Once a turn."""
        append_record(self.db, chained(self.chain.records[-1], kind, content, time.time(), event_id, note))


class PrivacyLedger:
    """Append-only records in SQLite, each hashed with the one before; every use checks chain, anchor and owner.

    Safe between threads and processes: each call opens its own connection, and all queue up.

    Args:
        path: of the SQLite file; nothing is opened yet. Workers call `create` or `open`.
        partner, dataset: whose it must be; None leaves that open, for the owner's own tools.
    Raises (every use):
        LedgerError: changed, a copy, older than it should be, somebody else's, another format, or no ledger.
        RunError: in use for too long. StorageError: not to be opened or written.
    """

    def __init__(self, path: Path, *, partner: str | None = None, dataset: str | None = None) -> None:
        self.path = Path(path)
        self._owner = {"partner": partner, "dataset": dataset}
        self._engine = make_engine(self.path)

    @classmethod
    def create(
        cls, path: Path, *, partner: str, dataset: str, budget_epsilon: float, budget_delta: float
    ) -> "PrivacyLedger":
        """Make a ledger; it is whole and on the disk when this returns, or absent.

        Args:
            path: a free name in a folder that exists.
            budget_epsilon: of the data's owner, never of the coordinator; > 0, at `budget_delta` in (0, 1).
        Raises: LedgerError: a ledger, or the anchor of one, lies there. PrivacyError: a budget out of range.
        """
        path, budget = Path(path), Budget(budget_epsilon, budget_delta)
        if path.exists() or not is_of_unfinished_creation(path):
            raise _taken(path if path.exists() else anchor_path(path))
        # Built under another name: a crash leaves no half ledger, and `link` replaces nothing, unlike `rename`.
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
        with storage_errors(path.parent):
            try:
                os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                records = _first_records(partner, dataset, budget)
                write_new(fresh, records)
                if path.exists():
                    raise _taken(path)
                # Before the ledger itself, which is refused without its anchor; the link keeps device and inode.
                keep_anchor(path, Anchor(_mark_of(records), place_of(fresh)))
                path.hardlink_to(fresh)
            except FileExistsError as error:
                raise _taken(path) from error
            finally:
                fresh.unlink(missing_ok=True)
            sync_folder(path.parent)
        return cls.open(path, partner=partner, dataset=dataset)

    @classmethod
    def open(cls, path: Path, *, partner: str, dataset: str) -> "PrivacyLedger":
        """A ledger that must be there, whole, and of this partner and data set."""
        ledger = cls(path, partner=partner, dataset=dataset)
        ledger.chain()
        return ledger

    def reserve(
        self,
        event_id: str,
        *,
        plan_hash: str,
        run: str,
        part: str,
        sampling_prob: float,
        noise_multiplier: float,
        steps: int,
        most_steps: int,
        note: str = "",
    ) -> None:
        """Pay for an event; it is on the disk when this returns. Call BEFORE the data are read.

        The same event reserved again costs nothing: a repeated round repeats the same release with the same
        keyed noise. So `event_id` must name the whole question, as the noise context does.

        Args:
            event_id: name of the question; what follows it is public. Where the question holds anything private, as
                a fingerprint of the data, the name must be keyed with a secret.
            steps: sampled Gaussian mechanisms run under this event.
            run: the training under that plan, public.
            most_steps: of this part that the plan allows in one training, further attempts included.
            note: for the owner who reads the ledger; free text without private values.
        Raises:
            BudgetError: the budget does not cover it; nothing is written.
            PrivacyError: wrong figures, more steps than the plan has, or the event was reserved before at another cost.
        """
        problems = mechanism_problems(sampling_prob, noise_multiplier, steps)
        if problems or not event_id:
            problems += [] if event_id else ["event_id must not be empty"]
            raise PrivacyError.of_all(problems, "mend the plan", f"event {event_id}")
        event = (part, float(sampling_prob), float(noise_multiplier), steps)
        content = {"plan_hash": plan_hash, "run": run, "event": event}
        with self._turn() as turn:
            known = turn.chain.reserved.get(event_id)
            if known is None:
                _refuse_more_steps(turn.chain, (plan_hash, run), event, most_steps)
                _refuse_overspending(turn.chain, event)
                turn.append("reserve", content, event_id, note)
            elif known.content != canonical(content):
                raise PrivacyError(f"event {event_id} was reserved before at another cost", "name it anew")

    def release(self, event_id: str, delta_hash: str) -> None:
        """Note what an event gives away; on the disk when this returns. Call BEFORE it is sent.

        Args:
            delta_hash: hash of the noised difference; public.
        Raises: PrivacyError: the event was not reserved, or was released before with another hash, as it must
            not: two answers under one noise give away their difference.
        """
        with self._turn() as turn:
            if event_id not in turn.chain.reserved:
                raise PrivacyError(f"event {event_id} was never reserved", "reserve before reading data")
            known = turn.chain.released.get(event_id)
            if known is None:
                turn.append("release", delta_hash, event_id)
            elif known.content != canonical(delta_hash):
                raise PrivacyError(
                    f"event {event_id} was released before with another hash",
                    "send what was released; a new answer needs a new round, and costs",
                )

    @property
    def budget(self) -> Budget:
        """The newest one."""
        return self.chain().budget

    def spent(self) -> tuple[float, float]:
        """(epsilon, delta) of all that was charged, released or not; delta is the budget's."""
        chain = self.chain()
        return chain.spent(), chain.budget.delta

    def remaining(self) -> float:
        """Epsilon left at the budget's delta, >= 0."""
        return self.chain().remaining()

    def set_budget(self, epsilon: float, delta: float) -> None:
        """Change the budget, for all to see. Only the data's owner may call this.

        Below what is spent is legal: nothing more is released then. Raises PrivacyError: out of range.
        """
        budget = Budget(epsilon, delta)
        with self._turn() as turn:
            turn.append("budget", vars(budget))

    def adopt(self, *, lost_rounds: int, reason: str) -> None:
        """Accept this file as the ledger, though its anchor says otherwise. Only the data's owner may call this.

        For a restored backup or a file moved to another disk. No other copy may ever be used again: two adopted
        copies spend one budget twice, and nothing shows it.

        Args:
            lost_rounds: no fewer than the rounds since this copy was made, 0 if none can have been. Each is charged
                like the costliest event in the ledger; if a costlier plan began since, count its rounds higher.
            reason: for those who read the ledger; no private values.
        Raises: PrivacyError: no whole number >= 0, no reason, or lost rounds in a ledger without any event.
        """
        if type(lost_rounds) is not int or lost_rounds < 0 or not reason.strip():
            raise PrivacyError("adopt needs a whole number of lost rounds, >= 0, and a reason", "give both")
        with self._turn(anchored=False) as turn:
            event = turn.chain.costliest()
            if lost_rounds and event is None:
                raise PrivacyError(
                    "lost rounds cannot be charged: this copy has seen no event that tells what one costs",
                    "adopt it with 0 lost rounds, and lower the budget by what they cost",
                )
            turn.append("adopt", {"lost_rounds": lost_rounds, "event": event}, note=reason)

    def chain(self) -> Chain:
        """Everything in the ledger, checked."""
        with self._turn() as turn:
            return turn.chain

    def verify(self, witness: Mark | None = None) -> LedgerReport:
        """Check every record, the anchor and, if given, an earlier export, and report.

        Args:
            witness: newest place of an export that was kept elsewhere: `read_export(...)[0].mark`. It finds out what
                the anchor cannot: a disk that was put back with both.
        """
        chain = self.chain()
        if witness is not None:
            check_witness(chain, witness, str(self.path))
        return report_of(chain)

    @contextmanager
    def _turn(self, *, anchored: bool = True) -> Iterator[_Turn]:
        """Nobody else writes meanwhile. On the disk and anchored when it ends; an exception undoes it."""
        with named_errors(self.path), self._engine.connect() as db:
            with db.begin():
                turn = self._checked(db, anchored)
                yield turn
            # In a transaction of its own: the anchor must not name what a crash may yet undo, and whoever writes
            # it holds the lock and anchors the newest record of all, so that it never goes back.
            with db.begin():
                keep_anchor(self.path, Anchor(Mark(turn.chain.ledger_id, *newest(db)), turn.place))

    def _checked(self, db: Connection, anchored: bool) -> _Turn:
        chain = read_chain(read_records(db, str(self.path)), str(self.path))
        for word, wanted in self._owner.items():
            if wanted is not None and getattr(chain, word) != wanted:
                found = f"ledger of {word} {getattr(chain, word)!r}, not {wanted!r}"
                raise LedgerError(f"{self.path}: {found}", "give each partner and data set a ledger of its own")
        with storage_errors(self.path.parent):
            place = place_of(self.path)
        if anchored:
            check_anchor(self.path, place, chain)
        return _Turn(db, chain, place)


def _first_records(partner: str, dataset: str, budget: Budget) -> list[Record]:
    ledger_id = secrets.token_hex(16)
    identity = {"format": FORMAT, "ledger_id": ledger_id, "partner": partner, "dataset": dataset}
    genesis = chained(None, "genesis", identity, time.time())
    return [genesis, chained(genesis, "budget", vars(budget), time.time())]


def _mark_of(records: list[Record]) -> Mark:
    return Mark(json.loads(records[0].content)["ledger_id"], records[-1].seq, records[-1].hash)


def _refuse_more_steps(chain: Chain, training: tuple[str, str], event: Event, most_steps: int) -> None:
    """A plan's promise is for its steps. Refused before the accountant meets a number that nobody agreed to."""
    part, *_, steps = event
    paid = (charge.total() for charge in chain.charges if (charge.plan_hash, charge.run) == training)
    done = sum(total[3] for total in paid if total[0] == part)
    if done + steps > most_steps:
        raise PrivacyError(
            f"part {part!r}: the plan has {most_steps} steps, {done} are paid for; {steps} more are not in it",
            "agree on another plan",
        )


def _refuse_overspending(chain: Chain, event: Event) -> None:
    budget, after = chain.budget, chain.spent(event)
    if after <= budget.epsilon:
        return
    raise BudgetError(
        f"budget epsilon {budget.epsilon:g} at delta {budget.delta:g}: spent {chain.spent():.4f}, "
        f"remaining {chain.remaining():.4f}; part {event[0]!r} would bring it to {after:.4f}",
        "go on without this partner, or let its owner raise the budget",
    )


def _taken(path: Path) -> LedgerError:
    return LedgerError(f"{path}: is there already, so that no new ledger is made", "open it, or restore the rest of it")
