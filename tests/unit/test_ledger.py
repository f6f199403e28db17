"""The ledger: durable before data are read, never overspent, and tampering shows."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedrec.errors import BudgetError, PrivacyError, RunError, StorageError
from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.plan import calibrate

COST: dict[str, Any] = {
    "plan_hash": "p",
    "part": "head",
    "sampling_prob": 1.0,
    "noise_multiplier": 2.0,
    "steps": 1,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "partner.sqlite"


def cost_of(events: int) -> float:
    return epsilon_pld([("head", 1.0, 2.0, events)], 1e-5)


def tamper(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
        db.commit()


def test_spent_is_the_composition_of_everything_reserved(path: Path) -> None:
    ledger = PrivacyLedger(path, 10.0, 1e-5)
    assert ledger.spent() == (0.0, 1e-5)
    for number in range(3):
        ledger.reserve(f"e{number}", **COST)
    ledger.release("e0", "h")
    assert ledger.spent() == (cost_of(3), 1e-5)
    assert PrivacyLedger(path, 10.0, 1e-5).spent() == ledger.spent()


def test_the_same_event_again_costs_nothing(path: Path) -> None:
    ledger = PrivacyLedger(path, 10.0, 1e-5)
    for note in ("round 1", "round 1, attempt 2"):
        ledger.reserve("e", **COST, note=note)
    assert ledger.spent()[0] == cost_of(1)


@pytest.mark.parametrize(
    "other",
    [{"plan_hash": "q"}, {"part": "lora"}, {"sampling_prob": 0.5}, {"noise_multiplier": 9.0}, {"steps": 2}],
)
def test_the_same_event_at_another_cost_is_refused(path: Path, other: dict[str, Any]) -> None:
    ledger = PrivacyLedger(path, 10.0, 1e-5)
    ledger.reserve("e", **COST)
    with pytest.raises(PrivacyError, match="another cost"):
        ledger.reserve("e", **{**COST, **other})
    assert ledger.spent()[0] == cost_of(1)


def test_a_release_needs_its_reserve_and_keeps_its_hash(path: Path) -> None:
    ledger = PrivacyLedger(path, 10.0, 1e-5)
    with pytest.raises(PrivacyError, match="never reserved"):
        ledger.release("e", "h")
    ledger.reserve("e", **COST)
    for _ in range(2):
        ledger.release("e", "h")
    with pytest.raises(PrivacyError, match="another hash"):
        ledger.release("e", "other")


def test_budget_is_refused_with_figures_and_nothing_is_written(path: Path) -> None:
    ledger = PrivacyLedger(path, cost_of(2), 1e-5)
    ledger.reserve("e0", **COST)
    ledger.reserve("e1", **COST)  # to the last bit of the budget
    with pytest.raises(BudgetError) as caught:
        ledger.reserve("e2", **COST)
    for figure in (f"budget epsilon {cost_of(2):g}", f"spent {cost_of(2):.4f}", "remaining 0.0000"):
        assert figure in caught.value.problem
    ledger.reserve("e1", **COST)
    assert ledger.spent()[0] == cost_of(2)


def test_a_calibrated_plan_fits_its_budget_in_any_order(path: Path) -> None:
    plan = calibrate([("prior", 1, 1.0, 1.0, 0.4), ("lora", 4, 0.5, 0.1, 0.6)], 3.0, 1e-5, "inspect", 1)
    ledger = PrivacyLedger(path, 3.0, 1e-5)
    for number, name in enumerate(["lora", "prior", "lora", "lora", "lora"]):
        part = next(p for p in plan.parts if p.part == name)
        ledger.reserve(
            f"e{number}",
            plan_hash=plan.hash,
            part=name,
            sampling_prob=part.sampling_prob,
            noise_multiplier=part.noise_multiplier,
            steps=1,
        )
    assert ledger.spent()[0] == epsilon_pld(plan.events(), 1e-5)


def test_a_killed_process_leaves_its_reserve_spent(path: Path) -> None:
    """SIGKILL right after reserve: as if the power failed while the data were read."""
    code = (
        "import os, signal, sys, pathlib; from fedrec.privacy.ledger import PrivacyLedger\n"
        f"PrivacyLedger(pathlib.Path(sys.argv[1]), 10.0, 1e-5).reserve('e', **{COST!r})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert PrivacyLedger(path, 10.0, 1e-5).spent()[0] == cost_of(1)


def test_commits_reach_the_disk(path: Path) -> None:
    with PrivacyLedger(path, 1.0, 1e-5)._transaction("DEFERRED") as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_exception_undoes_a_transaction(path: Path) -> None:
    ledger = PrivacyLedger(path, 10.0, 1e-5)

    def interrupted() -> None:
        with ledger._transaction("IMMEDIATE") as db:
            ledger._append(db, [], "release", "e", "x", "")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    ledger.verify()
    assert ledger.spent()[0] == 0.0


def test_concurrent_connections_cannot_overspend(path: Path) -> None:
    """Six at once for the last two places."""
    PrivacyLedger(path, cost_of(3), 1e-5).reserve("before", **COST)
    start, outcomes = threading.Barrier(6), list[str]()

    def spend(number: int) -> None:
        start.wait()
        try:
            PrivacyLedger(path, cost_of(3), 1e-5).reserve(f"e{number}", **COST)
            outcomes.append("reserved")
        except BudgetError:
            outcomes.append("refused")

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 4 + ["reserved"] * 2
    assert PrivacyLedger(path, cost_of(3), 1e-5).spent()[0] == cost_of(3)


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE records SET content = replace(content, '2.0', '99.0') WHERE seq = 2", 2),
        ("UPDATE records SET note = 'x' WHERE seq = 3", 3),
        ("UPDATE records SET time_utc_s = time_utc_s + 1 WHERE seq = 1", 1),
        ("UPDATE records SET event_id = 'other' WHERE seq = 4", 4),
        ("UPDATE records SET hash = 'x' WHERE seq = 4", 4),
        ("DELETE FROM records WHERE seq = 2", 2),
        ("DELETE FROM records WHERE seq = 4", 4),
        ("DELETE FROM records", 1),
    ],
)
def test_tampering_names_the_first_broken_row(path: Path, statement: str, row: int) -> None:
    ledger = PrivacyLedger(path, 10.0, 1e-5)
    for number in range(4):
        ledger.reserve(f"e{number}", **COST)
    ledger.verify()
    tamper(path, statement)
    with pytest.raises(PrivacyError, match=f"row {row} "):
        ledger.verify()


def test_a_broken_ledger_spends_nothing_more(path: Path) -> None:
    ledger = PrivacyLedger(path, 10.0, 1e-5)
    ledger.reserve("e", **COST)
    tamper(path, "UPDATE records SET event_id = 'f'")
    for use in (
        lambda: ledger.reserve("g", **COST),
        lambda: ledger.release("f", "h"),
        ledger.spent,
        lambda: PrivacyLedger(path, 10.0, 1e-5),
    ):
        with pytest.raises(PrivacyError, match="row 1 "):
            use()


@pytest.mark.parametrize("field", ["sampling_prob", "noise_multiplier", "steps"])
def test_wrong_figures_are_refused(path: Path, field: str) -> None:
    with pytest.raises(PrivacyError, match=field):
        PrivacyLedger(path, 10.0, 1e-5).reserve("e", **{**COST, field: float("nan")})


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 1e-5), (float("nan"), 1e-5), (float("inf"), 1e-5), (1.0, 0.0)])
def test_a_budget_out_of_range_is_refused(path: Path, epsilon: float, delta: float) -> None:
    with pytest.raises(PrivacyError, match="budget"):
        PrivacyLedger(path, epsilon, delta)


def test_other_files_and_formats_are_named_errors(path: Path, tmp_path: Path) -> None:
    path.write_text("no database, but long enough to be taken for one" * 100)
    with pytest.raises(RunError, match="no privacy ledger"):
        PrivacyLedger(path, 1.0, 1e-5)
    foreign = tmp_path / "foreign.sqlite"
    tamper(foreign, "CREATE TABLE songs (title TEXT)")
    with pytest.raises(RunError, match="format 0"):
        PrivacyLedger(foreign, 1.0, 1e-5)
    newer = tmp_path / "newer.sqlite"
    PrivacyLedger(newer, 1.0, 1e-5)
    tamper(newer, "PRAGMA user_version=2")
    with pytest.raises(RunError, match="format 2"):
        PrivacyLedger(newer, 1.0, 1e-5)
    with pytest.raises(StorageError, match="missing"):
        PrivacyLedger(tmp_path / "missing" / "x.sqlite", 1.0, 1e-5)


def test_a_ledger_in_use_is_a_named_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = PrivacyLedger(path, 1.0, 1e-5)
    monkeypatch.setattr("fedrec.privacy.ledger._WAIT_S", 0.05)
    with ledger._transaction("IMMEDIATE"), pytest.raises(RunError, match="in use"):
        ledger.reserve("e", **COST)
