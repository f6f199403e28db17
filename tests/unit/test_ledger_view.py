"""Looking at a ledger from beside: the same figures, no lock, nothing written."""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedrec.errors import LedgerError
from fedrec.privacy import ledger_view
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.ledger_chain import Chain
from fedrec.privacy.ledger_view import LedgerView
from fedrec.privacy.plan import PartPlan, PrivacyPlan

MakeLedger = Callable[..., PrivacyLedger]
COST: dict[str, Any] = {"plan_hash": "p", "run": "r", "most_steps": 100, "part": "head", "sampling_prob": 1.0}
COST |= {"noise_multiplier": 2.0, "steps": 1}
PARTS = (PartPlan("prior", 1.0, 1.0, 1.0, 1), PartPlan("head", 1.0, 1.0, 2.0, 100))
PLAN = PrivacyPlan("user", "inspect", 1e-5, PARTS, quorum=1)
HEAD = {**COST, "plan_hash": PLAN.hash, "run": "films/1"}
PRIOR = {**HEAD, "part": "prior", "noise_multiplier": 1.0, "most_steps": 1}


def test_it_says_what_the_ledger_says(tmp_path: Path, make_ledger: MakeLedger) -> None:
    ledger = make_ledger(tmp_path / "ledger.sqlite")
    view = LedgerView(ledger.path)
    assert (view.budget().epsilon_spent, view.budget().epsilon_total, view.budget().records) == (0.0, 10.0, 2)
    for number in range(3):
        ledger.reserve(f"e{number}", **COST)
        found = view.budget()
        assert (found.epsilon_spent, found.delta) == ledger.spent()
        assert found.epsilon_remaining == ledger.remaining()
    ledger.set_budget(0.5, 1e-5)
    assert view.budget().epsilon_remaining == 0.0


def test_it_waits_for_nobody_and_nobody_waits_for_it(tmp_path: Path, make_ledger: MakeLedger) -> None:
    ledger = make_ledger(tmp_path / "ledger.sqlite")
    view, inside, done = LedgerView(ledger.path), threading.Event(), threading.Event()

    def hold() -> None:
        with ledger._turn():
            inside.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(10)
    started = time.monotonic()
    assert view.budget().epsilon_spent == 0.0
    assert time.monotonic() - started < 1.0
    done.set()
    holder.join()


def test_it_writes_nothing(tmp_path: Path, make_ledger: MakeLedger) -> None:
    ledger = make_ledger(tmp_path / "ledger.sqlite")
    ledger.reserve("e", **COST)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm")}
    LedgerView(ledger.path).budget()
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name in before}
    assert after == before


def test_an_unchanged_ledger_is_added_up_once(
    tmp_path: Path, make_ledger: MakeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make_ledger(tmp_path / "ledger.sqlite")
    view, calls = LedgerView(ledger.path), list[str]()
    real = ledger_view._view
    monkeypatch.setattr(ledger_view, "_view", lambda chain: calls.append("") or real(chain))
    for _ in range(3):
        view.budget()
    ledger.reserve("e", **COST)
    view.budget()
    assert len(calls) == 2


def test_the_next_step_costs_what_the_ledger_would_take_for_it(
    tmp_path: Path, make_ledger: MakeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make_ledger(tmp_path / "ledger.sqlite")
    view = LedgerView(ledger.path)
    for number, cost in enumerate((PRIOR, HEAD, HEAD)):  # the dearest part comes no more once its step is taken
        told, before = view.price_of_next(PLAN, "films"), ledger.spent()[0]
        ledger.reserve(f"e{number}", **cost)
        assert ledger.spent()[0] - before == pytest.approx(told), number
    told = view.price_of_next(PLAN, "films")
    monkeypatch.setattr(Chain, "spent", lambda *_: pytest.fail("what has not changed was added up again"))
    assert view.price_of_next(PLAN, "films") == told


@pytest.mark.parametrize(
    "other",
    [
        {**COST, "plan_hash": "q", "run": "fairness-0", "part": "fairness", "noise_multiplier": 4.0},
        {**COST, "plan_hash": "q", "run": "stars/1"},
        {**COST, "plan_hash": PLAN.hash, "run": "songs/1", "part": "head"},
    ],
    ids=["fairness", "another plan", "the same plan elsewhere"],
)
def test_what_else_is_charged_ends_no_training(tmp_path: Path, make_ledger: MakeLedger, other: dict[str, Any]) -> None:
    """The dear part is done; a figure or a round of another federation does not bring it back."""
    ledger = make_ledger(tmp_path / "ledger.sqlite")
    for number, cost in enumerate((PRIOR, HEAD, other)):
        ledger.reserve(f"e{number}", **cost)
    told, before = LedgerView(ledger.path).price_of_next(PLAN, "films"), ledger.spent()[0]
    ledger.reserve("next", **HEAD)
    assert ledger.spent()[0] - before == pytest.approx(told)


def test_another_training_of_a_plan_begins_with_all_its_parts(tmp_path: Path, make_ledger: MakeLedger) -> None:
    ledger = make_ledger(tmp_path / "ledger.sqlite")
    for number, cost in enumerate((PRIOR, HEAD, {**HEAD, "run": "films/2"})):
        ledger.reserve(f"e{number}", **cost)
    told, before = LedgerView(ledger.path).price_of_next(PLAN, "films"), ledger.spent()[0]
    ledger.reserve("next", **{**PRIOR, "run": "films/2"})
    assert ledger.spent()[0] - before == pytest.approx(told)


@pytest.mark.parametrize("statement", ["UPDATE records SET note = 'x' WHERE seq = 1", "DELETE FROM records"])
def test_a_ledger_that_was_changed_is_no_ledger(tmp_path: Path, make_ledger: MakeLedger, statement: str) -> None:
    ledger = make_ledger(tmp_path / "ledger.sqlite")
    with closing(sqlite3.connect(ledger.path)) as db:
        db.execute(statement)
        db.commit()
    with pytest.raises(LedgerError):
        LedgerView(ledger.path).budget()


def test_no_ledger_and_a_foreign_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(LedgerError):
        LedgerView(tmp_path / "ledger.sqlite").budget()
    (tmp_path / "ledger.sqlite").write_bytes(b"nothing of ours " * 100)
    with pytest.raises(LedgerError):
        LedgerView(tmp_path / "ledger.sqlite").budget()
