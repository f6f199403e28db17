"""Between the coordinator and a partner's worker: every round is held against signature, terms, policy and memory."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fedrec.errors import ModelError, PrivacyError, ProtocolError
from fedrec.files import json_bytes, read_json, replace_file, storage_errors
from fedrec.model.adapter import AdapterState
from fedrec.signing import SigningKey, verify
from fedrec.terms import FederationTerms
from fedrec.wire import RoundPlan
from fedrec_client.agreement import round_epsilon
from fedrec_client.link import Answer, WorkerLink
from fedrec_client.settings import PolicySettings

FORMAT = 1
# What a node may say no with; of anything else that fails, the class is counted too.
REFUSALS = ("BudgetError", "PrivacyError", "ProtocolError")
Place = tuple[int, int, int]


class SeenRounds:
    """The latest round that this node was asked, on its disk: nothing is ever answered twice, or out of order."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def latest(self) -> Place:
        """Generation, round, attempt; zeros before the first."""
        if not self._path.is_file():
            return (0, 0, 0)
        values, _ = read_json(self._path, FORMAT)
        return (int(values["generation"]), int(values["round"]), int(values["attempt"]))

    def see(self, place: Place) -> None:
        """Durably, before anything is computed. Raises ProtocolError: not later than what was seen. StorageError."""
        latest = self.latest()
        if place == latest:
            raise ProtocolError(f"round {place[1]} attempt {place[2]} was asked before", "begin another attempt")
        if place < latest:
            raise ProtocolError(f"round {place[1]} attempt {place[2]} is older than one that was asked before")
        values = dict(zip(("generation", "round", "attempt"), place, strict=True))
        with storage_errors(self._path.parent):
            replace_file(self._path, json_bytes({"format": FORMAT, **values}))


@dataclass
class NodeDesk:
    """Answers rounds of one federation for one partner.

    Attributes:
        partner: its name.
        coordinator: tells the coordinator's public key, as it is at this moment.
        key: the partner's own.
        worker: answers what is allowed.
        is_paused: asked before each round.
        now: local time.
        lost: how many rounds were not answered, by class of error; since this process began, as `answered`.
        follow: asks whether the coordinator has a new key that its old one vouches for, and keeps it.
    """

    partner: str
    coordinator: Callable[[], bytes]
    key: SigningKey
    terms: FederationTerms
    policy: PolicySettings
    worker: WorkerLink = field(repr=False)
    seen: SeenRounds = field(repr=False)
    is_paused: Callable[[], bool] = field(repr=False)
    now: Callable[[], datetime] = field(default=datetime.now, repr=False)
    follow: Callable[[], bool] = field(default=lambda: False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    last_refusal: str = ""
    answered: int = 0
    lost: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REFUSALS, 0))

    def answer(self, plan: RoundPlan, state: AdapterState, signature: str) -> Answer:
        """See `Desk`. One round at a time."""
        with self._lock:
            try:
                self._verify(plan, signature)
                self._check(plan, state)
                self.seen.see((self._generation(plan), plan.round, plan.attempt))
                header, adapter_delta = self.worker.train(plan, state)
            except (PrivacyError, ProtocolError) as error:
                self.last_refusal = error.problem
                self._lose(error)
                raise
            except Exception as error:
                self._lose(error)
                raise
            self.answered, self.last_refusal = self.answered + 1, ""
            return header, adapter_delta, self.key.sign("answer", header.to_record())

    def status(self) -> dict[str, Any]:
        """For the partner's own people."""
        generation, number, attempt = self.seen.latest()
        place = {"generation": generation, "round": number, "attempt": attempt}
        counts = {"answered": self.answered, "lost": dict(self.lost)}
        return {**place, **counts, "last_refusal": self.last_refusal, "paused": self.is_paused()}

    def _lose(self, error: Exception) -> None:
        name = type(error).__name__
        self.lost[name] = self.lost.get(name, 0) + 1

    def _verify(self, plan: RoundPlan, signature: str) -> None:
        """A plan under another key than the one known here may be the first that this node hears of a new one."""
        try:
            verify(self.coordinator(), "round-plan", plan.to_record(), signature)
        except ProtocolError:
            if not self.follow():
                raise
            verify(self.coordinator(), "round-plan", plan.to_record(), signature)

    def _check(self, plan: RoundPlan, state: AdapterState) -> None:
        """Raises with all that is wrong at once; the words go to the coordinator and name no private value."""
        terms, policy = self.terms, self.policy
        problems = [f"is of run {plan.run!r}"] if plan.run.rpartition("/")[0] != terms.name else []
        if plan.mode != terms.mode or plan.mode not in policy.modes:
            problems.append(f"asks for mode {plan.mode}")
        if plan.privacy_plan_hash != terms.plan_hash:
            problems.append("names another privacy plan than was agreed to")
        if plan.part not in terms.parts:
            problems.append(f"asks for part {plan.part!r}")
        problems += self._cost_problems(plan)
        try:
            state.check(terms.spec)
        except ModelError:
            problems.append("brings an adapter of another shape, or one that is not finite")
        if self.is_paused():
            problems.append("comes while this node is paused")
        if not is_open(policy.hours, self.now()):
            problems.append(f"comes outside of this node's hours, {policy.hours}")
        if problems:
            words = f"round {plan.round} attempt {plan.attempt}: {'; '.join(problems)}"
            raise PrivacyError(words, "the partner's client.toml says what it allows")

    def _cost_problems(self, plan: RoundPlan) -> list[str]:
        """Of a round with all its steps, held against the plan and against what a round may cost."""
        parts = {part.part: part for part in self.terms.plan.parts} if self.terms.plan else {}
        if (part := parts.get(plan.part)) is None:
            return []
        if plan.local_steps > part.total_steps:
            return [f"asks for {plan.local_steps} steps, the plan has {part.total_steps}"]
        costs = round_epsilon(part, self.policy.delta, plan.local_steps)
        return ["costs more than a round may"] if costs > self.policy.epsilon_round else []

    @staticmethod
    def _generation(plan: RoundPlan) -> int:
        number = plan.run.rpartition("/")[2]
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise ProtocolError("a run's name must end with its generation")
        return int(number)


def is_open(hours: str, moment: datetime) -> bool:
    """Whether a moment lies in hours like `22:00-06:00`, the end not included.

    >>> is_open("22:00-06:00", datetime(2026, 1, 1, 23, 0)), is_open("22:00-06:00", datetime(2026, 1, 1, 6, 0))
    (True, False)
    """
    start, end = (int(text[:2]) * 60 + int(text[3:]) for text in hours.split("-"))
    minute = moment.hour * 60 + moment.minute
    return start <= minute < end if start < end else minute >= start or minute < end
