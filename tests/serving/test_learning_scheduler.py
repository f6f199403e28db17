"""When rounds are asked for: never beyond the budget, never too soon, and so that only the hour shows."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import ProtocolError
from fedrec_client.serving.learning.alerts import Alerts
from fedrec_client.serving.learning.scheduler import (
    Budget,
    Decision,
    Questions,
    Scheduler,
    Situation,
    decide,
    decisions,
)
from fedrec_client.serving.settings import LearningSettings

HOUR = 3600.0
ON = LearningSettings(rounds=True)
START = 100_000 * HOUR + 900


@dataclass
class World:
    """What the scheduler sees, and what it asked."""

    folder: Path
    settings: LearningSettings = ON
    now: float = START
    events: int = 0
    drifted_at: float = float("-inf")
    budget: Budget | None = field(default_factory=lambda: Budget(8.0, 0.5))
    asked: list[float] = field(default_factory=list)
    is_down: bool = False

    def ask(self) -> None:
        if self.is_down:
            raise ProtocolError("down")
        self.asked.append(self.now)

    def scheduler(self) -> Scheduler:
        questions = Questions(lambda: self.events, lambda: self.drifted_at, lambda: self.budget, self.ask)
        alerts = Alerts("", clock=lambda: self.now)
        return Scheduler(self.folder, self.settings, questions, alerts, clock=lambda: self.now, draw=lambda: 0.5)

    def minutes(self, n: int, scheduler: Scheduler | None = None) -> Decision:
        """Looks each minute."""

        async def looks() -> Decision:
            found = await one.look()
            for _ in range(n):
                self.now += 60
                found = await one.look()
            return found

        one = scheduler or self.scheduler()
        return asyncio.run(looks())


def test_off_by_default_and_nobody_is_asked(tmp_path: Path) -> None:
    world = World(tmp_path, LearningSettings(), events=0)
    world.minutes(0)
    world.events, world.drifted_at, world.now = 10**6, START + 5, START + 1000 * HOUR
    assert world.minutes(5).reason == "off"
    assert world.asked == []


def test_by_time_whatever_came(tmp_path: Path) -> None:
    for folder, events in (("a", 0), ("b", 9999)):
        (tmp_path / folder).mkdir()
        world = World(tmp_path / folder)
        world.scheduler()
        world.events = events
        world.minutes(60 * 60)
        assert [round((at - START) / HOUR, 1) for at in world.asked] == [25.2, 50.4]  # a tenth of a day, by half


@pytest.mark.parametrize("why", ["events", "drift"])
@pytest.mark.parametrize("minute", [1, 20, 44])
def test_what_came_is_told_at_the_full_hour_and_not_again(tmp_path: Path, why: str, minute: int) -> None:
    world = World(tmp_path, ON.model_copy(update={"min_hours": 1.0}))
    scheduler = world.scheduler()
    world.now += 2 * HOUR
    world.minutes(minute, scheduler)
    if why == "events":
        world.events = 10_000
    else:
        world.drifted_at = world.now
    world.minutes(600, scheduler)
    (asked,) = world.asked
    assert 0 <= asked - (START + 2 * HOUR + 2700) - 150 < 60  # the same, whichever minute it was
    lines = decisions(tmp_path)
    assert [line["reason"] for line in lines if line["asks"]] == [why]


def test_never_sooner_than_min_hours(tmp_path: Path) -> None:
    world = World(tmp_path, ON.model_copy(update={"every_hours": 0.0, "new_events": 10}))
    scheduler = world.scheduler()
    for _ in range(48):
        world.events += 10
        world.minutes(60, scheduler)
    gaps = [later - sooner for sooner, later in zip(world.asked, world.asked[1:], strict=False)]
    assert len(world.asked) >= 6
    assert min(gaps) >= 6 * HOUR


@pytest.mark.parametrize(("budget", "reason"), [(None, "budget unknown"), (Budget(0.4, 0.5), "budget spent")])
def test_the_budget_is_held_and_the_log_says_so_once(tmp_path: Path, budget: Budget | None, reason: str) -> None:
    world = World(tmp_path, budget=budget)
    scheduler = world.scheduler()
    world.events = 10**6
    world.now += 30 * HOUR
    assert world.minutes(100, scheduler).reason == reason
    assert world.asked == []
    assert [line["reason"] for line in decisions(tmp_path)] == [reason]
    world.budget = Budget(0.5, 0.5)
    world.minutes(1, scheduler)
    assert len(world.asked) == 1


def test_a_restart_forgets_neither_wishes_nor_what_waits(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.scheduler()
    world.now += 10 * HOUR
    world.drifted_at = world.now
    world.minutes(2)
    (waiting,) = [json.loads((tmp_path / "scheduler.json").read_text())["pending"]]
    world.minutes(2)
    assert json.loads((tmp_path / "scheduler.json").read_text())["pending"] == waiting
    world.minutes(60)
    assert len(world.asked) == 1
    world.minutes(60)
    assert len(world.asked) == 1
    (tmp_path / "scheduler.json").write_text("{")
    world.minutes(60)
    assert len(world.asked) == 1


def test_a_coordinator_that_is_down_is_asked_again(tmp_path: Path) -> None:
    world = World(tmp_path, is_down=True)
    scheduler = world.scheduler()
    world.now += 26 * HOUR
    assert world.minutes(30, scheduler).reason == "waits"
    world.is_down = False
    world.minutes(15, scheduler)
    assert len(world.asked) == 1


@given(
    st.floats(0, 1e6),
    st.integers(0, 10**6),
    st.booleans(),
    st.floats(0, 10),
    st.floats(0, 10),
    st.floats(0, 1),
)
def test_whatever_happens_nothing_is_asked_beyond_the_budget(
    now: float, events: int, drifted: bool, remaining: float, cost: float, draw: float
) -> None:
    found = decide(ON, Situation(now, 0.0, events, drifted, Budget(remaining, cost), draw))
    assert not found.asks or cost <= remaining
    assert not decide(ON, Situation(now, 0.0, events, drifted, None, draw)).asks
