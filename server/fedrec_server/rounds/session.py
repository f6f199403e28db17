"""The round loop over Flower's Grid: ask, aggregate, step, commit, and only then the next round."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from fedrec.aggregation.mean import Aggregator, UniformMean
from fedrec.aggregation.server_optimizer import OptimizerState
from fedrec.errors import ConfigError, PrivacyError, ProtocolError, QuorumError
from fedrec.model.adapter import AdapterDelta, AdapterSpec, AdapterState
from fedrec.registry.registry import Registry, ServerState
from fedrec.secagg.graph import two_thirds
from fedrec.wire import Mode, RoundPlan
from fedrec_server.rounds.exchange import Exchange, OnEvent, Signatures, wait_for_quorum
from fedrec_server.rounds.masked import MaskedExchange, MaskedRounds
from fedrec_server.rounds.schedule import RoundSpec

# Partners that an event or an error names one by one; of more it tells how many.
_NAMED = 100


@dataclass
class RoundSession:
    """Everything that a run of the loop needs, and where its result goes.

    Attributes:
        schedule: round 1 first.
        initial_state: committed as round 0; of no account when the registry has a version already.
        partners: node id -> name.
        partners_per_round: how many are asked in a round, drawn in public by seed and round; 0: everyone. That some
            are not asked buys no privacy: the coordinator knows whom it drew.
        quorum: good answers that a round needs. In secagg mode noise is sized for it; more only add noise.
        max_attempts: tries at one round before the run gives up.
        round_timeout_s: of one attempt.
        max_norm: largest L2 norm of an adapter_delta.
        in_flight: as in `Exchange`.
        privacy_plan_hash: of the plan that partners must have agreed to; "none" in mode `none`.
        statement: goes with every version.
        on_event: takes `round_started`, `partner_done`, `partner_refused`, `round_failed`, `round_committed`,
            `stopped`; each a flat dict with at least `event`, `round` and `part`.
        stop: true once a person asked to stop; the round under way is dropped.
        signatures: keys, where a network lies between; None in one process.
        wait: as in `Exchange`.
        masked: in secagg mode: sums under masks. Without it the mode is simulated, as in studies of thousands of
            devices: answers come bare, and the statement must say so.
        spoilers: partners because of whom a sum under masks was lost; not asked any more. Kept by the caller, where
            sessions follow each other.
        attempts_before: attempts at a round that an earlier process began; their numbers are not used again, since
            partners refuse a plan that they have seen.
        result: the adapter of the last committed round, once the loop has ended.
    Raises:
        ConfigError: naming all that does not fit together.
        PrivacyError: an aggregator that secagg mode cannot have.
    """

    run: str
    mode: Mode
    seed: int
    schedule: tuple[RoundSpec, ...] = field(repr=False)
    registry: Registry = field(repr=False)
    initial_state: AdapterState = field(repr=False)
    spec: AdapterSpec = field(repr=False)
    aggregator: Aggregator
    partners: Mapping[int, str]
    quorum: int
    max_attempts: int
    round_timeout_s: float
    max_norm: float
    privacy_plan_hash: str
    statement: Mapping[str, Any] = field(repr=False)
    on_event: OnEvent = field(repr=False)
    stop: Callable[[], bool] = field(repr=False)
    partners_per_round: int = 0
    in_flight: int = 0
    signatures: Signatures | None = field(default=None, repr=False)
    wait: Callable[[float], None] = field(default=time.sleep, repr=False)
    masked: MaskedRounds | None = field(default=None, repr=False)
    spoilers: set[str] = field(default_factory=set)
    attempts_before: Callable[[int], int] = field(default=lambda _: 0, repr=False)
    result: AdapterState | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        problems = [f"unknown part {s.part!r}" for s in self.schedule if s.part not in self.spec.parts]
        if len(set(self.partners.values())) != len(self.partners):
            problems.append("two nodes have the same partner's name")
        if not 0 <= self.partners_per_round <= len(self.partners):
            problems.append(f"{self.partners_per_round} partners a round of {len(self.partners)}")
        elif not 1 <= self.quorum <= (self.partners_per_round or len(self.partners)):
            problems.append(f"quorum {self.quorum} of {self.partners_per_round or len(self.partners)} partners")
        if self.quorum < (least := self.aggregator.least_answers):
            problems.append(f"quorum {self.quorum}, the aggregator needs {least} answers to bear the hostile ones")
        if self.max_attempts < 1 or not self.max_norm > 0 or self.in_flight < 0:
            problems.append("max_attempts and max_norm must be positive, in_flight not negative")
        if self.masked is not None:
            problems += self.masked.problems(self.partners_per_round or len(self.partners), self.schedule)
        if problems:
            raise ConfigError.of_all(problems, "mend the run's settings", "rounds")
        if self.mode == "secagg" and not isinstance(self.aggregator, UniformMean):
            # Masks hide all but the plain sum; and weights would scale noise that is sized for equal shares.
            raise PrivacyError("secagg mode allows the uniform mean only", "choose it, or inspect mode")
        self.initial_state.check(self.spec)

    def cohort(self, number: int) -> Mapping[int, str]:
        """Who is asked in a round, node id -> name; the same in every attempt at it."""
        if self.partners_per_round in (0, len(self.partners)):
            return self.partners
        nodes = sorted(self.partners, key=lambda node: self.partners[node])  # Flower's ids change with every start
        drawn = np.random.default_rng([self.seed, number]).choice(len(nodes), self.partners_per_round, replace=False)
        return {nodes[place]: self.partners[nodes[place]] for place in sorted(drawn)}


def run_rounds(grid: Grid, session: RoundSession) -> AdapterState:
    """Run every round of the schedule that is not yet committed.

    A run that was stopped or killed goes on after the registry's HEAD and ends in the same bits.

    Returns: the adapter of the last committed round.
    Raises:
        QuorumError: too few good answers in every attempt at a round, with the reasons.
        StorageError: a round could not be committed; all before it are.
        RunError: the registry is damaged. ModelError: its adapter is another model's.
    """
    number, state, server_state = begin(session)
    while number <= len(session.schedule):
        committed = run_round(grid, session, number, state, server_state)
        if committed is None:
            part = session.schedule[number - 1].part
            session.on_event({"event": "stopped", "round": number, "part": part})
            break
        state, server_state = committed
        number += 1
    return state


def begin(session: RoundSession) -> tuple[int, AdapterState, ServerState]:
    """The next round's number and what it starts from; the first adapter is committed as round 0.

    Raises: StorageError, RunError, ModelError: as `run_rounds`.
    """
    registry = session.registry
    head = registry.head() or registry.commit(
        session.initial_state,
        round=0,
        parent="",
        mode=session.mode,
        statement=session.statement,
        server_state={},
    )
    state, server_state = registry.load(head.round), registry.load_server_state(head.round)
    state.check(session.spec)
    return head.round + 1, state, server_state


def run_round(
    grid: Grid, session: RoundSession, number: int, state: AdapterState, server_state: ServerState
) -> tuple[AdapterState, ServerState] | None:
    """The next state, committed; None if a person asked to stop. Raises as `run_rounds`."""
    started = time.monotonic()
    asked = _ask_until_quorum(grid, session, number, state)
    if asked is None:
        return None
    plan, answers = asked
    optimizer = session.schedule[number - 1].optimizer
    moved, own = optimizer.step(answers.mean, _of_part(server_state, plan.part))
    after = state.plus(moved)
    after.check(session.spec)
    server_state = {**server_state, **{f"{plan.part}/{key}": array for key, array in own.items()}}
    version = session.registry.commit(
        after,
        round=number,
        attempt=plan.attempt,
        parent=plan.parent_hash,
        mode=session.mode,
        statement=session.statement,
        server_state=server_state,
    )
    session.on_event(
        {
            "event": "round_committed",
            **_place(plan),
            "partners": answers.partners if len(answers.partners) <= _NAMED else len(answers.partners),
            "adapter_hash": version.adapter_hash,
            "step_norm": moved.l2_norm,
            "reasons": dict(sorted(answers.reasons.items())[:_NAMED]),
            "seconds": time.monotonic() - started,
            "bytes_up": answers.bytes_up,
            "bytes_down": answers.bytes_down,
        }
    )
    return after, server_state


@dataclass(frozen=True)
class _Answers:
    """What an attempt came to."""

    partners: list[str]
    reasons: Mapping[str, str]
    bytes_up: int
    bytes_down: int
    mean: AdapterDelta


def _ask_until_quorum(
    grid: Grid, session: RoundSession, number: int, state: AdapterState
) -> tuple[RoundPlan, _Answers] | None:
    """The first attempt with enough good answers, and their aggregate; None if a person asked to stop.

    A failed attempt's answers are dropped: under secure aggregation nobody could open the sum of so few.
    """
    drawn = session.cohort(number)
    begun = session.attempts_before(number)
    for attempt in range(begun + 1, begun + session.max_attempts + 1):
        plan = _plan(session, number, attempt, state)
        cohort = {node: name for node, name in drawn.items() if name not in session.spoilers}
        least = session.quorum if session.masked is None else max(two_thirds(len(cohort)), session.quorum)
        wait_for_quorum(grid, plan, cohort, session.stop, least)
        if session.stop():
            return None
        session.on_event({"event": "round_started", **_place(plan), "partners": len(cohort)})
        ask = _ask_bare if session.masked is None else _ask_masked
        answers = ask(grid, session, plan, cohort, state)
        if not isinstance(answers, _Failed):
            return None if answers is None else (plan, answers)
        session.spoilers.update(answers.spoilers)
        lost, why = sorted(answers.reasons.items()), answers.why
        failed = {"good": answers.good, "reasons": dict(lost[:_NAMED])}
        session.on_event({"event": "round_failed", **_place(plan), **failed})
    others = [f"and {len(lost) - _NAMED} more"] if len(lost) > _NAMED else []
    raise QuorumError.of_all(
        [*(f"{partner}: {reason}" for partner, reason in lost[:_NAMED]), *others],
        "mend what the partners report and resume; committed rounds stay",
        f"round {number}: {why} in attempt {attempt}, the quorum is {session.quorum}",
    )


@dataclass(frozen=True)
class _Failed:
    """Too few good answers. Spoilers are not asked again."""

    good: int
    reasons: Mapping[str, str]
    why: str
    spoilers: frozenset[str] = frozenset()


def _ask_bare(
    grid: Grid, session: RoundSession, plan: RoundPlan, cohort: Mapping[int, str], state: AdapterState
) -> _Answers | _Failed | None:
    """One question to everybody, and answers that the coordinator sees."""
    running = session.aggregator.running()
    exchange = Exchange(
        grid,
        plan,
        session.spec,
        max_norm=session.max_norm,
        partners=cohort,
        running=running,
        on_event=session.on_event,
        in_flight=session.in_flight,
        signatures=session.signatures,
        wait=session.wait,
    )
    exchange.ask(state)
    if not exchange.collect(session.stop):
        return None
    good = len(exchange.partners)
    if good < session.quorum:
        return _Failed(good, exchange.reasons, f"{good} good answers")
    down = state.n_bytes * len(cohort)
    return _Answers(exchange.partners, exchange.reasons, exchange.bytes_up, down, running.result())


def _ask_masked(
    grid: Grid, session: RoundSession, plan: RoundPlan, cohort: Mapping[int, str], state: AdapterState
) -> _Answers | _Failed | None:
    """Five questions, and a sum of answers that nobody sees."""
    assert session.masked is not None  # chosen by it
    exchange = None
    try:
        exchange = MaskedExchange(
            grid,
            plan,
            session.spec,
            session.masked,
            partners=cohort,
            on_event=session.on_event,
            signatures=session.signatures,
            wait=session.wait,
        )
        mean = exchange.collect(state, session.stop)
    except (QuorumError, ProtocolError, PrivacyError) as error:  # of the latter two: a cohort that has become too small
        if exchange is None:
            return _Failed(0, {}, error.problem)
        return _Failed(len(exchange.partners), exchange.reasons, error.problem, exchange.spoilers)
    if mean is None:
        return None
    if mean.l2_norm > session.max_norm:
        return _Failed(len(exchange.partners), exchange.reasons, f"the mean has a norm above {session.max_norm:g}")
    return _Answers(exchange.partners, exchange.reasons, exchange.bytes_up, exchange.bytes_down, mean)


def _plan(session: RoundSession, number: int, attempt: int, state: AdapterState) -> RoundPlan:
    spec = session.schedule[number - 1]
    return RoundPlan(
        run=session.run,
        round=number,
        attempt=attempt,
        part=spec.part,
        local_epochs=spec.local_epochs,
        local_steps=spec.local_steps,
        learning_rate=spec.learning_rate,
        parent_hash=state.hash,
        privacy_plan_hash=session.privacy_plan_hash,
        mode=session.mode,
        quorum=session.quorum,
        deadline_s=session.round_timeout_s,
        seed=session.seed,
    )


def _place(plan: RoundPlan) -> dict[str, Any]:
    return {"round": plan.round, "attempt": plan.attempt, "part": plan.part}


def _of_part(server_state: ServerState, part: str) -> OptimizerState:
    """A part's optimizer state among all that a version keeps."""
    mine = f"{part}/"
    return {key.removeprefix(mine): array for key, array in server_state.items() if key.startswith(mine)}
