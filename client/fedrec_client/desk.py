"""Between the coordinator and a partner's worker: every round is held against signature, terms, policy and memory."""

import fcntl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fedrec.errors import ModelError, PrivacyError, ProtocolError
from fedrec.files import json_bytes, read_json, replace_file, storage_errors
from fedrec.model.adapter import AdapterState
from fedrec.signing import Purpose, SigningKey, verify
from fedrec.terms import FederationTerms
from fedrec.wire import RoundPlan, SumHeader
from fedrec_client.agreement import round_epsilon
from fedrec_client.link import Answer, SignedSumAnswer, Trainer
from fedrec_client.settings import PolicySettings
from fedrec_client.sums import SumDesk, opened_plan

FORMAT = 1
# What a node may say no with; of anything else that fails, the class is counted too.
REFUSALS = ("BudgetError", "PrivacyError", "ProtocolError")
Place = tuple[int, int, int]
"""Generation, round, attempt."""


class SeenRounds:
    """The latest round that this node was asked, on its disk: nothing is ever answered twice, or out of order."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def latest(self) -> Place:
        """Zeros before the first."""
        return self._latest()[0]

    def see(self, place: Place, step: int = 0) -> None:
        """Durably, before anything is computed.

        Args:
            step: of a sum under masks, from 1: what was masked, confirmed or revealed once is never asked for again,
                by a process that has forgotten it either.
        Raises: ProtocolError: not later than what was seen. StorageError.
        """
        with storage_errors(self._path.parent), self._path.with_suffix(".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # a second process of this node looks after the first has written
            latest = self._latest()
            if (place, step) == latest:
                raise ProtocolError(f"round {place[1]} attempt {place[2]} was asked before", "begin another attempt")
            if (place, step) < latest:
                raise ProtocolError(f"round {place[1]} attempt {place[2]} is older than one that was asked before")
            values = dict(zip(("generation", "round", "attempt"), place, strict=True)) | {"step": step}
            replace_file(self._path, json_bytes({"format": FORMAT, **values}))

    def _latest(self) -> tuple[Place, int]:
        if not self._path.is_file():
            return (0, 0, 0), 0
        values, _ = read_json(self._path, FORMAT)
        place = (int(values["generation"]), int(values["round"]), int(values["attempt"]))
        return place, int(values.get("step", 0))  # before there were sums, none was written


@dataclass
class NodeDesk:
    """Answers rounds of one federation for one partner.

    Attributes:
        partner: its name.
        coordinator: tells the coordinator's public key, as it is at this moment.
        key: the partner's own.
        worker: answers what is allowed.
        sums: takes part in sums under masks; None where the terms ask for none.
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
    worker: Trainer = field(repr=False)
    seen: SeenRounds = field(repr=False)
    is_paused: Callable[[], bool] = field(repr=False)
    now: Callable[[], datetime] = field(default=datetime.now, repr=False)
    follow: Callable[[], bool] = field(default=lambda: False, repr=False)
    sums: SumDesk | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    last_refusal: str = ""
    answered: int = 0
    lost: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REFUSALS, 0))

    def answer(self, plan: RoundPlan, state: AdapterState, signature: str) -> Answer:
        """See `Desk`. One round at a time."""
        with self._turn():
            self._verify("round-plan", plan.to_record(), signature)
            if plan.mode == "secagg":
                raise PrivacyError("a share of noise never leaves without masks", "both sides must run the same fedrec")
            self._check(plan, state)
            self.seen.see((generation_of(plan.run), plan.round, plan.attempt))
            header, adapter_delta = self.worker.train(plan, state)
            self.answered, self.last_refusal = self.answered + 1, ""
            return header, adapter_delta, self.key.sign("answer", header.to_record())

    def add(self, header: SumHeader, body: bytes, state: AdapterState | None, signature: str) -> SignedSumAnswer:
        """See `Desk`. A sum is answered once its shares are revealed."""
        with self._turn():
            self._verify("secagg-ask", header.to_record(), signature)
            if self.sums is None:
                raise PrivacyError("the terms ask for no sums under masks")
            if header.step == "advertise":
                self._check(opened_plan(body), None)
            if state is not None:
                self._refuse("", self._adapter_problems(state))
            if header.step in ("advertise", "mask"):
                self._refuse("", self._moment_problems())
            self.seen.see((generation_of(header.run), header.round, header.attempt), header.number)
            answer, content = self.sums.answer(header, body, state)
            if header.step == "reveal":
                self.answered, self.last_refusal = self.answered + 1, ""
            return answer, content, self.key.sign("secagg-answer", answer.to_record())

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One question at a time; whatever it is refused for is counted."""
        with self._lock:
            try:
                yield
            except (PrivacyError, ProtocolError) as error:
                self.last_refusal = error.problem
                self._lose(error)
                raise
            except Exception as error:
                self._lose(error)
                raise

    def status(self) -> dict[str, Any]:
        """For the partner's own people."""
        generation, number, attempt = self.seen.latest()
        place = {"generation": generation, "round": number, "attempt": attempt}
        counts = {"answered": self.answered, "lost": dict(self.lost)}
        return {**place, **counts, "last_refusal": self.last_refusal, "paused": self.is_paused()}

    def _lose(self, error: Exception) -> None:
        name = type(error).__name__
        self.lost[name] = self.lost.get(name, 0) + 1

    def _verify(self, purpose: Purpose, values: Mapping[str, Any], signature: str) -> None:
        """What another key than the known one signed may be the first that this node hears of a new one."""
        try:
            verify(self.coordinator(), purpose, values, signature)
        except ProtocolError:
            if not self.follow():
                raise
            verify(self.coordinator(), purpose, values, signature)

    def _check(self, plan: RoundPlan, state: AdapterState | None) -> None:
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
        problems += self._adapter_problems(state) if state is not None else []
        self._refuse(f"round {plan.round} attempt {plan.attempt}: ", problems + self._moment_problems())

    def _adapter_problems(self, state: AdapterState) -> list[str]:
        try:
            state.check(self.terms.spec)
        except ModelError:
            return ["brings an adapter of another shape, or one that is not finite"]
        return []

    def _moment_problems(self) -> list[str]:
        problems = ["comes while this node is paused"] if self.is_paused() else []
        if not is_open(self.policy.hours, self.now()):
            problems.append(f"comes outside of this node's hours, {self.policy.hours}")
        return problems

    @staticmethod
    def _refuse(heading: str, problems: list[str]) -> None:
        if problems:
            raise PrivacyError(f"{heading}{'; '.join(problems)}", "the partner's client.toml says what it allows")

    def _cost_problems(self, plan: RoundPlan) -> list[str]:
        """Of a round with all its steps, held against the plan and against what a round may cost."""
        parts = {part.part: part for part in self.terms.plan.parts} if self.terms.plan else {}
        if (part := parts.get(plan.part)) is None:
            return []
        if plan.local_steps > part.total_steps:
            return [f"asks for {plan.local_steps} steps, the plan has {part.total_steps}"]
        costs = round_epsilon(part, self.policy.delta, plan.local_steps)
        return ["costs more than a round may"] if costs > self.policy.epsilon_round else []


def generation_of(run: str) -> int:
    """Of a run's name, which ends with it. Raises ProtocolError: it does not."""
    number = run.rpartition("/")[2]
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
