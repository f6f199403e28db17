"""The ledger: paid before data are read, never overspent, and tampering shows."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedrec.errors import BudgetError, LedgerError, PrivacyError, RunError, StorageError
from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.ledger_chain import Budget
from fedrec.privacy.plan import calibrate

MakeLedger = Callable[..., PrivacyLedger]
COST: dict[str, Any] = {
    "plan_hash": "p",
    "run": "r",
    "most_steps": 10_000,
    "part": "head",
    "sampling_prob": 1.0,
    "noise_multiplier": 2.0,
    "steps": 1,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "partner.sqlite"


@pytest.fixture
def ledger(path: Path, make_ledger: MakeLedger) -> PrivacyLedger:
    return make_ledger(path)


def reopen(path: Path) -> PrivacyLedger:
    return PrivacyLedger.open(path, partner="shop", dataset="sales")


def cost_of(events: int) -> float:
    return epsilon_pld([("head", 1.0, 2.0, events)], 1e-5)


def tamper(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def test_spent_is_the_composition_of_everything_reserved(ledger: PrivacyLedger, path: Path) -> None:
    assert ledger.spent() == (0.0, 1e-5)
    for number in range(3):
        ledger.reserve(f"e{number}", **COST)
    ledger.release("e0", "h")
    assert ledger.spent() == (cost_of(3), 1e-5)
    assert reopen(path).spent() == ledger.spent()


def test_the_same_event_again_costs_nothing(ledger: PrivacyLedger) -> None:
    for note in ("round 1", "round 1, attempt 2"):
        ledger.reserve("e", **COST, note=note)
    assert ledger.spent()[0] == cost_of(1)


@pytest.mark.parametrize(
    "other",
    [{"plan_hash": "q"}, {"part": "lora"}, {"sampling_prob": 0.5}, {"noise_multiplier": 9.0}, {"steps": 2}],
)
def test_the_same_event_at_another_cost_is_refused(ledger: PrivacyLedger, other: dict[str, Any]) -> None:
    ledger.reserve("e", **COST)
    with pytest.raises(PrivacyError, match="another cost"):
        ledger.reserve("e", **{**COST, **other})
    assert ledger.spent()[0] == cost_of(1)


def test_a_release_needs_its_reserve_and_keeps_its_hash(ledger: PrivacyLedger) -> None:
    with pytest.raises(PrivacyError, match="never reserved"):
        ledger.release("e", "h")
    ledger.reserve("e", **COST)
    for _ in range(2):
        ledger.release("e", "h")
    with pytest.raises(PrivacyError, match="another hash"):
        ledger.release("e", "other")


def test_budget_is_refused_with_figures_and_nothing_is_written(path: Path, make_ledger: MakeLedger) -> None:
    ledger = make_ledger(path, cost_of(2))
    ledger.reserve("e0", **COST)
    ledger.reserve("e1", **COST)  # to the last bit of the budget
    with pytest.raises(BudgetError) as caught:
        ledger.reserve("e2", **COST)
    for figure in (f"budget epsilon {cost_of(2):g}", f"spent {cost_of(2):.4f}", "remaining 0.0000"):
        assert figure in caught.value.problem
    ledger.reserve("e1", **COST)
    assert ledger.spent()[0] == cost_of(2)


def test_a_training_has_no_more_steps_than_its_plan(ledger: PrivacyLedger) -> None:
    """Whatever the budget; another training under the same plan begins anew, and pays."""
    cost = {**COST, "most_steps": 3}
    ledger.reserve("e0", **{**cost, "steps": 2})
    with pytest.raises(PrivacyError, match="3 steps, 2 are paid for; 2 more"):
        ledger.reserve("e1", **{**cost, "steps": 2})
    ledger.reserve("e2", **cost)
    ledger.reserve("e2", **cost)  # the same question again is no step
    ledger.reserve("e3", **{**cost, "part": "lora"})
    ledger.reserve("e4", **{**cost, "run": "another"})
    with pytest.raises(PrivacyError, match="not in it"):
        ledger.reserve("e5", **{**cost, "steps": 2**62})


def test_a_calibrated_plan_fits_its_budget_in_any_order(path: Path, make_ledger: MakeLedger) -> None:
    plan = calibrate([("prior", 1, 1.0, 1.0, 0.4), ("lora", 4, 0.5, 0.1, 0.6)], 3.0, 1e-5, "inspect", 1)
    ledger = make_ledger(path, 3.0)
    for number, name in enumerate(["lora", "prior", "lora", "lora", "lora"]):
        part = next(p for p in plan.parts if p.part == name)
        ledger.reserve(
            f"e{number}",
            plan_hash=plan.hash,
            run="r",
            most_steps=part.total_steps,
            part=name,
            sampling_prob=part.sampling_prob,
            noise_multiplier=part.noise_multiplier,
            steps=1,
        )
    assert ledger.spent()[0] == epsilon_pld(plan.events(), 1e-5)


def test_whose_it_is_and_every_budget_stand_in_the_chain(ledger: PrivacyLedger, path: Path) -> None:
    ledger.reserve("e", **COST, note="round 1")
    ledger.set_budget(20.0, 1e-6)
    chain = reopen(path).chain()
    assert [record.kind for record in chain.records] == ["genesis", "budget", "reserve", "budget"]
    assert [record.seq for record in chain.records] == [1, 2, 3, 4]
    assert (chain.partner, chain.dataset, chain.records[2].note) == ("shop", "sales", "round 1")
    assert ledger.budget == Budget(20.0, 1e-6)
    assert ledger.spent() == (epsilon_pld([("head", 1.0, 2.0, 1)], 1e-6), 1e-6)
    assert ledger.remaining() == 20.0 - ledger.spent()[0]


def test_a_raised_budget_pays_on_and_a_lowered_one_pays_nothing(path: Path, make_ledger: MakeLedger) -> None:
    ledger = make_ledger(path, cost_of(1))
    ledger.reserve("e0", **COST)
    with pytest.raises(BudgetError):
        ledger.reserve("e1", **COST)
    ledger.set_budget(cost_of(2), 1e-5)
    ledger.reserve("e1", **COST)
    ledger.set_budget(cost_of(1), 1e-5)
    assert ledger.remaining() == 0.0
    with pytest.raises(BudgetError, match=r"remaining 0\.0000"):
        ledger.reserve("e2", **COST)
    ledger.reserve("e1", **COST)  # paid already
    ledger.release("e1", "h")


@pytest.mark.parametrize(
    ("partner", "dataset", "words"),
    [("bakery", "sales", "'shop', not 'bakery'"), ("shop", "returns", "'sales', not 'returns'")],
)
def test_somebody_elses_ledger_is_refused(ledger: PrivacyLedger, partner: str, dataset: str, words: str) -> None:
    with pytest.raises(LedgerError, match=words):
        PrivacyLedger.open(ledger.path, partner=partner, dataset=dataset)
    with pytest.raises(LedgerError, match=words):
        PrivacyLedger(ledger.path, partner=partner, dataset=dataset).reserve("e", **COST)
    assert ledger.spent()[0] == 0.0


def test_a_ledger_is_made_once(ledger: PrivacyLedger, path: Path, make_ledger: MakeLedger) -> None:
    with pytest.raises(LedgerError, match="there already"):
        make_ledger(path)
    ledger.reserve("e", **COST)
    path.unlink()  # its anchor stays, so that what it knew is not forgotten unseen
    with pytest.raises(LedgerError, match="anchor: is there already"):
        make_ledger(path)
    assert not list(path.parent.glob(".*.new*"))


def test_a_creation_that_a_crash_cut_short_begins_anew(
    path: Path, make_ledger: MakeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The anchor is there before the ledger, so that a ledger is never without one."""
    with monkeypatch.context() as patched:
        patched.setattr(Path, "hardlink_to", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_ledger(path)
    assert [file.name for file in path.parent.iterdir()] == ["partner.sqlite.anchor"]
    make_ledger(path).reserve("e", **COST)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_file_that_comes_in_between_is_not_replaced(
    path: Path, make_ledger: MakeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedrec.privacy.ledger.write_new", lambda *_: path.write_text("somebody was quicker"))
    with pytest.raises(LedgerError, match="there already"):
        make_ledger(path)
    assert path.read_text() == "somebody was quicker"


def test_only_the_owner_may_read_it(ledger: PrivacyLedger, path: Path) -> None:
    ledger.reserve("e", **COST)
    assert {file.name for file in path.parent.iterdir()} == {"partner.sqlite", "partner.sqlite.anchor"}
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in path.parent.iterdir())


def test_commits_reach_the_disk(ledger: PrivacyLedger) -> None:
    with ledger._turn() as turn:
        assert turn.db.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
        assert turn.db.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"


def test_an_exception_undoes_a_turn(ledger: PrivacyLedger) -> None:
    ledger.reserve("e", **COST)

    def interrupted() -> None:
        with ledger._turn() as turn:
            turn.append("release", "h", "e")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ledger.verify().unreleased == ("e",)
    assert ledger.verify().records == 3


def test_concurrent_connections_cannot_overspend(path: Path, make_ledger: MakeLedger) -> None:
    """Six at once for the last two places."""
    make_ledger(path, cost_of(3)).reserve("before", **COST)
    start, outcomes = threading.Barrier(6), list[str]()

    def spend(number: int) -> None:
        start.wait()
        try:
            reopen(path).reserve(f"e{number}", **COST)
            outcomes.append("reserved")
        except BudgetError:
            outcomes.append("refused")

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 4 + ["reserved"] * 2
    assert reopen(path).spent()[0] == cost_of(3)


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE records SET content = replace(content, '10.0', '99.0') WHERE seq = 2", 2),
        ("UPDATE records SET content = replace(content, '2.0', '99.0') WHERE seq = 4", 4),
        ("UPDATE records SET note = 'x' WHERE seq = 5", 5),
        ("UPDATE records SET time_utc_s = time_utc_s + 1 WHERE seq = 3", 3),
        ("UPDATE records SET time_utc_s = 9e999 WHERE seq = 3", 3),
        ("UPDATE records SET event_id = 'other' WHERE seq = 6", 6),
        ("UPDATE records SET content = CAST('x' AS BLOB) WHERE seq = 6", 6),
        ("UPDATE records SET hash = 'x' WHERE seq = 6", 6),
        ("UPDATE records SET seq = 9 WHERE seq = 6", 6),
        ("DELETE FROM records WHERE seq = 4", 4),
        ("DELETE FROM records WHERE seq > 1", 2),
        ("DELETE FROM records", 1),
    ],
)
def test_tampering_names_the_first_broken_row(ledger: PrivacyLedger, statement: str, row: int) -> None:
    for number in range(4):
        ledger.reserve(f"e{number}", **COST)
    ledger.verify()
    tamper(ledger.path, statement)
    with pytest.raises(LedgerError, match=f"row {row} "):
        ledger.verify()


def test_a_broken_ledger_spends_nothing_more(ledger: PrivacyLedger, path: Path) -> None:
    ledger.reserve("e", **COST)
    tamper(path, "UPDATE records SET event_id = 'f' WHERE seq = 3")
    for use in (
        lambda: ledger.reserve("g", **COST),
        lambda: ledger.release("f", "h"),
        ledger.spent,
        lambda: ledger.set_budget(99.0, 1e-5),
        lambda: ledger.adopt(lost_rounds=0, reason="it is broken"),
        lambda: reopen(path),
    ):
        with pytest.raises(LedgerError, match="row 3 "):
            use()


@pytest.mark.parametrize("field", ["sampling_prob", "noise_multiplier", "steps"])
def test_wrong_figures_are_refused(ledger: PrivacyLedger, field: str) -> None:
    with pytest.raises(PrivacyError, match=field):
        ledger.reserve("e", **{**COST, field: float("nan")})
    with pytest.raises(PrivacyError, match="event_id"):
        ledger.reserve("", **COST)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 1e-5), (float("nan"), 1e-5), (float("inf"), 1e-5), (1.0, 0.0)])
def test_a_budget_out_of_range_is_refused(
    ledger: PrivacyLedger, make_ledger: MakeLedger, epsilon: float, delta: float
) -> None:
    with pytest.raises(PrivacyError, match="budget"):
        make_ledger(ledger.path.with_name("new.sqlite"), epsilon, delta)
    with pytest.raises(PrivacyError, match="budget"):
        ledger.set_budget(epsilon, delta)
    assert ledger.verify().records == 2


def test_other_files_and_formats_are_named_errors(ledger: PrivacyLedger, tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("no database, but long enough to be taken for one" * 100)
    foreign, empty, first = (tmp_path / f"{name}.sqlite" for name in ("foreign", "empty", "first"))
    tamper(foreign, "CREATE TABLE songs (title TEXT)")
    empty.touch()
    tamper(first, "CREATE TABLE records (seq INTEGER PRIMARY KEY AUTOINCREMENT)", "PRAGMA user_version=1")
    tamper(ledger.path, "PRAGMA user_version=3")
    before = foreign.read_bytes()
    for path, words in {
        text: "no privacy ledger",
        foreign: "no privacy ledger",
        empty: "no privacy ledger",
        first: "format 1, this fedrec reads 2",
        ledger.path: "format 3, this fedrec reads 2",
        tmp_path / "gone.sqlite": "no ledger there",
    }.items():
        with pytest.raises(LedgerError, match=words):
            reopen(path)
    assert foreign.read_bytes() == before
    assert not (tmp_path / "gone.sqlite").exists()


def test_a_folder_that_is_missing_is_a_named_error(tmp_path: Path, make_ledger: MakeLedger) -> None:
    with pytest.raises(StorageError, match="missing"):
        make_ledger(tmp_path / "missing" / "x.sqlite")


def test_an_anchor_that_cannot_be_written_is_a_named_error(
    ledger: PrivacyLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reserve stays, and is paid once when it is asked again."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fedrec.privacy.ledger_anchor.replace_file", full)
        with pytest.raises(StorageError, match="no space left"):
            ledger.reserve("e", **COST)
    ledger.reserve("e", **COST)
    assert ledger.spent()[0] == cost_of(1)


def test_a_ledger_in_use_is_a_named_error(ledger: PrivacyLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedrec.privacy.ledger_store.WAIT_S", 0.05)
    with ledger._turn(), pytest.raises(RunError, match="in use"):
        ledger.reserve("e", **COST)
