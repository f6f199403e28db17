"""The ledger's hash chain without its file: what a record is, how it is hashed, and what a whole chain says."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from fedrec.errors import LedgerError, PrivacyError
from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.mechanism import Event, is_count, mechanism_problems

FORMAT = 2
Kind = Literal["genesis", "budget", "reserve", "release", "adopt"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CREATED_RECORDS = 2
"""What creation writes: genesis and the first budget."""
ADOPTED = "adopted"
"""Stands for the plan of what an adopt record charges."""

# One encoder for all: making one takes longer than encoding a record, and every use hashes every record.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


class Record(NamedTuple):
    """One record; nothing in it is private.

    Attributes:
        event_id: of reserve and release; empty for other kinds.
        content: canonical JSON: who it is, the budget, the cost, or the hash of what was released.
        hash: SHA-256 over the fields above and the hash of the record before.
    """

    seq: int
    kind: str
    event_id: str
    content: str
    note: str
    time_utc_s: float
    hash: str


@dataclass(frozen=True)
class Budget:
    """What all releases from the data together may cost. Public. Raises PrivacyError if out of range."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf or not 0 < self.delta < 1:
            given = f"epsilon {self.epsilon!r} and delta {self.delta!r}"
            raise PrivacyError(
                f"a budget must be finite and > 0, with delta in (0, 1), is {given}",
                "for example epsilon 4 at a delta far below one over the number of users",
            )


@dataclass(frozen=True)
class Mark:
    """A place on one ledger's chain. Who keeps it elsewhere can tell later whether the ledger went back behind it."""

    ledger_id: str
    seq: int
    hash: str


@dataclass(frozen=True)
class Charge:
    """Equal events together: `count` times `event`, under one plan (or `ADOPTED`) in one training."""

    plan_hash: str
    run: str
    event: Event
    count: int

    def total(self) -> Event:
        """The same as one event."""
        part, sampling_prob, noise_multiplier, steps = self.event
        return part, sampling_prob, noise_multiplier, steps * self.count


@dataclass(frozen=True)
class Chain:
    """What a checked chain says. Made by `read_chain` alone.

    Attributes:
        budget: the newest one.
        reserved: event_id -> its reserve record; likewise `released`.
        charges: all that was charged, equal events together.
    """

    records: tuple[Record, ...] = field(repr=False)
    ledger_id: str
    partner: str
    dataset: str
    budget: Budget
    reserved: Mapping[str, Record] = field(repr=False)
    released: Mapping[str, Record] = field(repr=False)
    charges: tuple[Charge, ...]

    @property
    def mark(self) -> Mark:
        """The newest place."""
        return Mark(self.ledger_id, self.records[-1].seq, self.records[-1].hash)

    def holds(self, mark: Mark) -> bool:
        """Whether a place lies on this chain."""
        inside = mark.ledger_id == self.ledger_id and 1 <= mark.seq <= len(self.records)
        return inside and self.records[mark.seq - 1].hash == mark.hash

    def spent(self, *more: Event) -> float:
        """Epsilon at the budget's delta of all that was charged, released or not, and of `more` on top (PLD)."""
        return epsilon_pld([*(charge.total() for charge in self.charges), *more], self.budget.delta)

    def remaining(self) -> float:
        """Epsilon left, >= 0."""
        return max(0.0, self.budget.epsilon - self.spent())

    def costliest(self) -> Event | None:
        """The event that alone costs most, or None if the ledger has seen none."""
        events = {charge.event for charge in self.charges}
        return max(sorted(events), key=lambda event: epsilon_pld([event], self.budget.delta), default=None)

    def unreleased(self) -> tuple[str, ...]:
        """Events that were paid for and never released, oldest first."""
        return tuple(event_id for event_id in self.reserved if event_id not in self.released)

    def clock_jumps(self, tolerance_s: float = 1.0) -> tuple[tuple[int, float], ...]:
        """(seq, seconds) of records that are older than the one before; the composition depends on no time."""
        steps = zip(self.records, self.records[1:], strict=False)
        jumps = ((after.seq, before.time_utc_s - after.time_utc_s) for before, after in steps)
        return tuple((seq, back_s) for seq, back_s in jumps if back_s > tolerance_s)


def canonical(value: Any) -> str:
    """One text for one value; floats as their repr, which is exact."""
    return _ENCODER.encode(value)


def chained(
    last: Record | None, kind: Kind, content: Any, time_utc_s: float, event_id: str = "", note: str = ""
) -> Record:
    """The record that follows `last`."""
    seq = last.seq + 1 if last else 1
    bare = Record(seq, kind, event_id, canonical(content), note, time_utc_s, "")
    return bare._replace(hash=_hash(last.hash if last else "", bare))


def read_chain(records: Iterable[Record], name: str) -> Chain:
    """Check every record against the chain, and say what they amount to.

    Args:
        name: of the file, for the error.
    Raises: LedgerError: naming the first record that was changed or removed, or that no ledger writes.
    """
    found: list[Record] = []
    previous = ""
    for number, record in enumerate(records, start=1):
        if record.seq != number or record.hash != _hash(previous, record):
            raise broken(name, number)
        found.append(record)
        previous = record.hash
    if len(found) < CREATED_RECORDS:
        raise broken(name, len(found) + 1)
    return _understood(found, name)


def broken(name: str, number: int) -> LedgerError:
    """The error for a chain that does not hold."""
    return LedgerError(
        f"{name}: row {number} of the ledger was changed or removed",
        "restore the newest backup, then fedrec privacy ledger adopt",
    )


def _hash(previous: str, record: Record) -> str:
    try:
        return hashlib.sha256(canonical([previous, *record[:-1]]).encode()).hexdigest()
    except (TypeError, ValueError):  # bytes, or half a character: nothing that was ever written
        return ""


def _understood(records: list[Record], name: str) -> Chain:
    """Hashes prove that nothing changed since; here each record must also be one that a ledger writes."""
    reserved: dict[str, Record] = {}
    released: dict[str, Record] = {}
    counts: Counter[str] = Counter()
    budget, adopted = None, list[Charge]()
    record = records[0]
    try:
        identity = _genesis(record)
        for record in records[1:]:
            match record.kind:
                case "budget":
                    budget = Budget(**json.loads(record.content))
                case "reserve" if record.event_id not in reserved:
                    reserved[record.event_id] = record
                    counts[record.content] += 1
                case "release" if record.event_id in reserved and record.event_id not in released:
                    released[record.event_id] = record
                case "adopt":
                    adopted += _adopted(record)
                case _:
                    raise ValueError(record.kind)
        # Thousands of records hold few different costs, so each text is read once.
        charges = [_charge(content, count) for content, count in counts.items()]
    except (KeyError, TypeError, ValueError, PrivacyError) as error:
        raise broken(name, record.seq) from error
    if budget is None or records[1].kind != "budget":
        raise broken(name, CREATED_RECORDS)
    return Chain(
        tuple(records),
        *identity,
        budget,
        MappingProxyType(reserved),
        MappingProxyType(released),
        (*charges, *adopted),
    )


def _genesis(record: Record) -> tuple[str, str, str]:
    content = json.loads(record.content)
    if record.kind != "genesis" or content["format"] != FORMAT:
        raise ValueError(record.kind)
    return content["ledger_id"], content["partner"], content["dataset"]


def _charge(content: str, count: int) -> Charge:
    values = json.loads(content)
    return Charge(values["plan_hash"], values["run"], _event(values["event"]), count)


def _adopted(record: Record) -> list[Charge]:
    values = json.loads(record.content)
    if values["lost_rounds"] == 0:
        return []
    if not is_count(values["lost_rounds"]):
        raise ValueError(record.kind)
    return [Charge(ADOPTED, "", _event(values["event"]), values["lost_rounds"])]


def _event(values: list[Any]) -> Event:
    part, sampling_prob, noise_multiplier, steps = values
    if problems := mechanism_problems(sampling_prob, noise_multiplier, steps):
        raise PrivacyError.of_all(problems)
    return part, sampling_prob, noise_multiplier, steps
