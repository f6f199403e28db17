"""Whoever is lost, and whatever a coordinator tells: the exact sum of the survivors, or none, and never both shares."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from fedrec.errors import ProtocolError, QuorumError
from fedrec.secagg import messages
from fedrec.secagg.coordinator import CoordinatorSum
from fedrec.secagg.graph import Graph, two_thirds

STEPS = ("advertise", "share", "mask", "confirm", "reveal")
BEFORE_MASKED = ("advertise", "share", "mask")


@st.composite
def losses(draw: st.DrawFn, least_lost: int, most_lost: int | None = None) -> tuple[int, dict[str, str]]:
    """So many partners, and who of them is lost at which step; within what the threshold allows, or beyond."""
    n = draw(st.integers(3, 12))
    allowed = n - two_thirds(n)
    low, high = (0, allowed) if most_lost is None else (allowed + least_lost, n)
    number = draw(st.integers(low, high))
    names = draw(st.permutations([f"p{place:03}" for place in range(n)]))[:number]
    return n, {name: draw(st.sampled_from(STEPS)) for name in names}


@settings(max_examples=14, deadline=None)
@given(case=losses(0), bits=st.sampled_from([8, 20, 31, 32]), numbers=st.integers(0, 9))
def test_any_losses_within_the_threshold_leave_the_exact_sum_of_the_survivors(
    make_sum: Any, case: tuple[int, dict[str, str]], bits: int, numbers: int
) -> None:
    n, lost = case
    world = make_sum(n, bits=bits, numbers=numbers)
    total = world.run(lost)
    survivors = [name for name in world.names if lost.get(name) not in BEFORE_MASKED]
    assert world.told["confirm"] == tuple(survivors)
    assert np.array_equal(total, world.plain(survivors))
    assert total.dtype == np.int64


@settings(max_examples=8, deadline=None)
@given(case=losses(1, 12))
def test_beyond_the_threshold_there_is_no_sum(make_sum: Any, case: tuple[int, dict[str, str]]) -> None:
    n, lost = case
    world = make_sum(n)
    with pytest.raises(QuorumError, match="are needed"):
        world.run(lost)


@settings(max_examples=8, deadline=None)
@given(n=st.integers(4, 10), quorum=st.integers(1, 10), lost=st.integers(0, 10))
def test_the_privacy_plans_quorum_is_a_threshold_too(make_sum: Any, n: int, quorum: int, lost: int) -> None:
    if quorum > n:
        with pytest.raises(ProtocolError, match="quorum"):
            make_sum(n, quorum=quorum)
        return
    world = make_sum(n, quorum=quorum)
    gone = dict.fromkeys(world.names[:lost], "mask")
    if n - lost >= max(quorum, two_thirds(n)):
        assert np.array_equal(world.run(gone), world.plain(set(world.names) - gone.keys()))
    else:
        with pytest.raises(QuorumError):
            world.run(gone)


@pytest.fixture
def sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of few partners in which nobody has everybody."""
    monkeypatch.setattr(messages, "graph_of", lambda partners, dishonest: Graph(partners, degree=12, threshold=5))


@pytest.mark.usefixtures("sparse")
@pytest.mark.parametrize("seed", range(2))
def test_a_sparse_graph_gives_the_exact_sum_of_the_survivors(make_sum: Any, seed: int) -> None:
    world = make_sum(24, seed=f"sparse {seed}")
    assert (world.terms.graph.degree, world.terms.threshold) == (12, 5)
    gone = np.random.default_rng(seed).choice(24, 4, replace=False)
    lost = {world.names[place]: STEPS[2 + number % 3] for number, place in enumerate(gone)}
    survivors = [name for name in world.names if lost.get(name) != "mask"]
    assert np.array_equal(world.run(lost), world.plain(survivors))
    for name, told in world.sent["reveal"].items():
        holds = {owner for owner in world.names if name in world.sent["advertise"][owner].chosen}
        assert told.seeds.keys() | told.mask_keys.keys() == holds != set(world.names)
        assert not told.seeds.keys() & told.mask_keys.keys()


@pytest.mark.usefixtures("sparse")
def test_a_sparse_graph_says_whose_neighbours_are_lost(make_sum: Any) -> None:
    """Where all that one partner drew are lost before they reveal, though there are survivors enough."""
    world = make_sum(24).until("reveal")
    world.step("reveal", set(world.names) - set(world.sent["advertise"]["p003"].chosen[:8]))
    with pytest.raises(QuorumError, match="4 holders of shares of p003 are left, 5 are needed"):
        world.coordinator.total()


class BothSides(RuleBasedStateMachine):
    """Partners whom a coordinator asks anything in any order, and an honest one that takes what it gets."""

    make_sum: Any = None

    @initialize(n=st.integers(3, 6))
    def begin(self, n: int) -> None:
        self.n, self.attempt = n, 0
        self.old: dict[str, list[Any]] = defaultdict(list)  # whatever was ever told at a step, in any attempt
        self.answered: set[tuple[int, str, str]] = set()
        self.signed: dict[tuple[int, str], set[tuple[str, ...]]] = defaultdict(set)
        self.opened: dict[tuple[int, str], set[tuple[str, str]]] = defaultdict(set)
        self.anew()

    @rule()
    def anew(self) -> None:
        """Another attempt; what was told before may come again."""
        self.attempt += 1
        self.world = self.make_sum(self.n, attempt=self.attempt, seed=f"attempt {self.attempt}")
        self.at = 0

    @rule(who=st.integers(0, 5), ahead=st.sampled_from([0, 0, 0, 0, 1, -1]))
    def ask_honestly(self, who: int, ahead: int) -> None:
        step = STEPS[max(0, min(4, self.at + ahead))]
        if step == "advertise" or step in self.world.told:
            self.hear(step, self.name(who), None)

    @rule()
    def ask_all(self) -> None:
        step = STEPS[self.at]
        for name in self.world.names:
            if (self.attempt, name, step) not in self.answered:
                self.hear(step, name, None)

    @rule(who=st.integers(0, 5), data=st.data())
    def ask_with_something_old(self, who: int, data: st.DataObject) -> None:
        """Of another partner, or of another attempt."""
        step = data.draw(st.sampled_from(STEPS[1:]))
        if self.old[step]:
            self.hear(step, self.name(who), data.draw(st.sampled_from(self.old[step])))

    @rule(who=st.integers(0, 5), gone=st.sets(st.integers(0, 5), max_size=2))
    def tell_other_survivors(self, who: int, gone: set[int]) -> None:
        names = tuple(name for place, name in enumerate(self.world.names) if place not in gone)
        self.hear("confirm", self.name(who), self.world.survivors(self.name(who), names))

    @rule()
    def close(self) -> None:
        step = STEPS[self.at]
        try:
            self.world.close(step)
        except QuorumError:
            self.anew()
            return
        if self.at == 4:
            self.open()
            return
        self.at += 1
        told = STEPS[self.at]
        self.old[told] += [self.world.for_one(told, name) for name in self.told_to(told)]

    def told_to(self, step: str) -> list[str]:
        each = {"mask": "share", "confirm": "mask"}  # what each is told itself
        return list(self.world.sent[each[step]]) if step in each else [self.world.names[0]]

    def open(self) -> None:
        try:
            total = self.world.coordinator.total()
        except QuorumError:
            pass
        else:
            assert not self.world.coordinator.spoilers
            survivors = self.world.told["confirm"]
            assert len(survivors) >= two_thirds(self.n)
            assert np.array_equal(total, self.world.plain(survivors))
        self.anew()

    def hear(self, step: str, name: str, told: Any) -> None:
        """A partner's answer, if there is one, and what the honest coordinator makes of it."""
        if told is None and step == "mask" and name not in self.world.sent["share"]:
            return
        try:
            answer = self.world.ask(step, name, told)
        except ProtocolError:
            return
        place = (self.attempt, name)
        assert (*place, step) not in self.answered, "a step was answered twice"
        self.answered.add((*place, step))
        if step == "confirm":
            self.signed[place].add(self.world.partners[name]._survivors)
        if step == "reveal":
            for kind, shares in (("seed", answer.seeds), ("key", answer.mask_keys)):
                self.opened[place] |= {(owner, kind) for owner in shares}
        if step == STEPS[self.at]:
            try:
                self.world.take(step, name, answer)
            except ProtocolError:
                # An honest partner that was told something else than the others.
                self.world.sent[step].pop(name, None)

    def name(self, who: int) -> str:
        return str(self.world.names[who % self.n])

    @invariant()
    def nobody_reveals_both_or_signs_two(self) -> None:
        for place in getattr(self, "opened", {}):
            owners = [owner for owner, _ in self.opened[place]]
            assert len(owners) == len(set(owners)), "both shares of one owner"
        for signed in getattr(self, "signed", {}).values():
            assert len(signed) == 1

    @invariant()
    def no_two_survivor_sets_are_opened_in_one_attempt(self) -> None:
        if not hasattr(self, "opened"):
            return
        revealers = [name for attempt, name in self.opened if attempt == self.attempt]
        sets = {self.world.partners[name]._survivors for name in revealers}
        assert len(sets) <= 1


def test_no_order_of_questions_opens_more_than_one_sum(make_sum: Any) -> None:
    BothSides.make_sum = make_sum
    run_state_machine_as_test(
        BothSides, settings=settings(max_examples=20, stateful_step_count=30, deadline=None, print_blob=False)
    )


def test_the_machine_reaches_sums_and_refusals(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would prove nothing if no run of it ever opened anything."""
    found: dict[str, int] = defaultdict(int)
    total, hear = CoordinatorSum.total, BothSides.hear

    def counted(self: CoordinatorSum) -> Any:
        result = total(self)
        found["sums"] += 1
        return result

    def heard(self: BothSides, step: str, name: str, told: Any) -> None:
        before = len(self.answered)
        hear(self, step, name, told)
        found["refused"] += len(self.answered) == before

    monkeypatch.setattr(CoordinatorSum, "total", counted)
    monkeypatch.setattr(BothSides, "hear", heard)
    BothSides.make_sum = make_sum
    machine = BothSides()
    machine.begin(n=3)
    for _ in range(2):
        for _ in STEPS:
            machine.ask_all()
            machine.close()
    assert (found["sums"], found["refused"]) == (2, 0)
    machine.ask_all()
    machine.ask_honestly(who=1, ahead=0)
    assert found["refused"] == 1
