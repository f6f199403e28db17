"""Copies, older copies, other branches and clocks that were set back show; the owner may adopt, and pays for it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from fedrec.errors import BudgetError, LedgerError, PrivacyError, RunError
from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.ledger_anchor import Anchor, anchor_path, keep_anchor
from fedrec.privacy.ledger_chain import Chain, chained, read_chain
from fedrec.privacy.ledger_report import export_bytes, read_export

MakeLedger = Callable[..., PrivacyLedger]
COST: dict[str, Any] = {"plan_hash": "p", "part": "head", "sampling_prob": 1.0, "noise_multiplier": 2.0, "steps": 1}
COST |= {"run": "r", "most_steps": 10_000}


@pytest.fixture
def ledger(tmp_path: Path, make_ledger: MakeLedger) -> PrivacyLedger:
    """One event is reserved."""
    made = make_ledger(tmp_path / "l.sqlite")
    made.reserve("e0", **COST)
    return made


def cost_of(events: int) -> float:
    return epsilon_pld([("head", 1.0, 2.0, events)], 1e-5)


def copy_of(ledger: PrivacyLedger, folder: Path, *, anchor: bool = True) -> Path:
    """What `cp` makes of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in (ledger.path, *([anchor_path(ledger.path)] if anchor else [])):
        shutil.copyfile(file, folder / file.name)
    return folder / ledger.path.name


def refused(ledger: PrivacyLedger, words: str) -> None:
    """Every use is, and the remedy names the command."""
    for use in (ledger.spent, lambda: ledger.reserve("x", **COST), lambda: ledger.set_budget(1.0, 1e-5)):
        with pytest.raises(LedgerError, match=words) as caught:
            use()
        assert f"fedrec privacy ledger adopt {ledger.path}" in caught.value.remedy


def test_a_copy_elsewhere_is_refused(ledger: PrivacyLedger, tmp_path: Path) -> None:
    refused(PrivacyLedger(copy_of(ledger, tmp_path / "both")), "a copy")
    refused(PrivacyLedger(copy_of(ledger, tmp_path / "alone", anchor=False)), "anchor is missing")
    ledger.reserve("e1", **COST)


def test_a_new_ledger_is_refused_without_its_anchor_as_well(tmp_path: Path, make_ledger: MakeLedger) -> None:
    """Put back over what was spent, in the same file, it would have forgotten all of it."""
    new = make_ledger(tmp_path / "l.sqlite")
    empty = copy_of(new, tmp_path / "backup", anchor=False)
    refused(PrivacyLedger(empty), "anchor is missing")
    new.reserve("e0", **COST)
    shutil.copyfile(empty, new.path)
    anchor_path(new.path).unlink()
    refused(new, "anchor is missing")


def test_an_older_database_in_the_same_place_is_refused(ledger: PrivacyLedger, tmp_path: Path) -> None:
    older = copy_of(ledger, tmp_path / "backup")
    ledger.reserve("e1", **COST)
    inode = ledger.path.stat().st_ino
    shutil.copyfile(older, ledger.path)
    assert ledger.path.stat().st_ino == inode
    refused(ledger, "older copy: it ends with record 3, its anchor knows record 4")


def test_another_branch_is_refused(ledger: PrivacyLedger, tmp_path: Path) -> None:
    """Two copies of one ledger went on: each knows what the other does not."""
    other = PrivacyLedger(copy_of(ledger, tmp_path / "twin"))
    other.adopt(lost_rounds=0, reason="a twin")
    other.reserve("e2", **COST)
    ledger.reserve("e1", **COST)
    shutil.copyfile(other.path, ledger.path)
    refused(ledger, "another branch")


def test_a_ledger_without_its_anchor_is_refused(ledger: PrivacyLedger) -> None:
    anchor_path(ledger.path).unlink()
    refused(ledger, "anchor is missing")


def test_the_anchor_of_another_ledger_is_refused(
    ledger: PrivacyLedger, tmp_path: Path, make_ledger: MakeLedger
) -> None:
    other = make_ledger(tmp_path / "other.sqlite")
    shutil.copyfile(anchor_path(other.path), anchor_path(ledger.path))
    refused(ledger, "anchor belongs to another ledger")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 2}', "\udcff"])
def test_a_damaged_anchor_is_refused(ledger: PrivacyLedger, content: str) -> None:
    anchor_path(ledger.path).write_text(content, errors="surrogateescape")
    refused(ledger, "anchor is damaged")


@pytest.mark.parametrize(("key", "value"), [("seq", 0), ("seq", "3"), ("hash", None), ("inode", 1.5), ("format", 1)])
def test_an_anchor_with_wrong_values_is_refused(ledger: PrivacyLedger, key: str, value: Any) -> None:
    values = json.loads(anchor_path(ledger.path).read_text())
    anchor_path(ledger.path).write_text(json.dumps({**values, key: value}))
    refused(ledger, "anchor is damaged")


def test_a_database_ahead_of_its_anchor_is_healed(ledger: PrivacyLedger, tmp_path: Path) -> None:
    """What a crash between commit and anchor leaves."""
    behind = anchor_path(ledger.path).read_bytes()
    ledger.reserve("e1", **COST)
    newest = anchor_path(ledger.path).read_bytes()
    anchor_path(ledger.path).write_bytes(behind)
    ledger.reserve("e1", **COST)
    assert anchor_path(ledger.path).read_bytes() == newest


def test_the_anchor_does_not_go_back_when_another_wrote_in_between(
    ledger: PrivacyLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between one's commit and one's anchor, another process reserves and anchors."""
    begun: list[str] = []

    def begin(connection: Connection) -> None:
        begun.append("anchor" if begun else "turn")
        if begun == ["turn", "anchor"]:
            ledger.reserve("e2", **COST)
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    monkeypatch.setattr("fedrec.privacy.ledger_store._begin", begin)
    PrivacyLedger(ledger.path).reserve("e1", **COST)
    assert begun == ["turn", "anchor"]
    anchor = json.loads(anchor_path(ledger.path).read_text())  # before another use could heal it
    newest = ledger.chain().records[-1]
    assert (newest.event_id, anchor["seq"]) == ("e2", newest.seq)


def test_nobody_can_write_while_the_anchor_is_written(ledger: PrivacyLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def keep(path: Path, anchor: Anchor) -> None:
        if not tried:
            tried.append("while the anchor is written")
            with pytest.raises(RunError, match="in use"):
                PrivacyLedger(path).reserve("e2", **COST)
        keep_anchor(path, anchor)

    monkeypatch.setattr("fedrec.privacy.ledger_store.WAIT_S", 0.05)
    monkeypatch.setattr("fedrec.privacy.ledger.keep_anchor", keep)
    ledger.reserve("e1", **COST)
    assert tried


def test_a_move_within_the_file_system_keeps_device_and_inode(ledger: PrivacyLedger, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    for file in (ledger.path, anchor_path(ledger.path)):
        file.rename(tmp_path / "new" / file.name)
    PrivacyLedger(tmp_path / "new/l.sqlite").reserve("e1", **COST)


def test_adopting_charges_the_lost_rounds_at_the_costliest_event(ledger: PrivacyLedger, tmp_path: Path) -> None:
    ledger.reserve("cheap", **{**COST, "noise_multiplier": 20.0})
    copy = PrivacyLedger(copy_of(ledger, tmp_path / "backup", anchor=False))
    copy.adopt(lost_rounds=3, reason="disk failed")
    expected = epsilon_pld([("head", 1.0, 2.0, 4), ("head", 1.0, 20.0, 1)], 1e-5)
    assert copy.spent()[0] == expected > ledger.spent()[0]
    copy.reserve("e9", **COST)
    last = copy.chain().records[-2]
    assert (last.kind, last.note) == ("adopt", "disk failed")
    assert copy.chain().ledger_id == ledger.chain().ledger_id


def test_adopting_for_nothing_charges_nothing(ledger: PrivacyLedger) -> None:
    anchor_path(ledger.path).unlink()
    ledger.adopt(lost_rounds=0, reason="the anchor was deleted by mistake")
    assert ledger.spent()[0] == cost_of(1)


def test_adopting_may_cost_more_than_the_budget(ledger: PrivacyLedger) -> None:
    ledger.adopt(lost_rounds=1000, reason="an old backup")
    assert ledger.remaining() == 0.0
    with pytest.raises(BudgetError):
        ledger.reserve("e1", **COST)


@pytest.mark.parametrize(("lost_rounds", "reason"), [(-1, "x"), (1.5, "x"), (True, "x"), (0, " ")])
def test_adopting_needs_rounds_and_a_reason(ledger: PrivacyLedger, lost_rounds: Any, reason: str) -> None:
    with pytest.raises(PrivacyError, match="lost rounds"):
        ledger.adopt(lost_rounds=lost_rounds, reason=reason)


def test_lost_rounds_of_unknown_cost_are_not_guessed(tmp_path: Path, make_ledger: MakeLedger) -> None:
    new = make_ledger(tmp_path / "new.sqlite")
    with pytest.raises(PrivacyError, match="no event"):
        new.adopt(lost_rounds=1, reason="a backup from before the first round")
    new.adopt(lost_rounds=0, reason="a backup from before the first round")


def test_a_clock_that_was_set_back_is_reported(ledger: PrivacyLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    last = ledger.chain().records[-1].time_utc_s
    for number, now in enumerate((last + 100, last + 99.5, last - 3600, last - 3500)):
        monkeypatch.setattr("fedrec.privacy.ledger.time.time", lambda now=now: now)
        ledger.reserve(f"t{number}", **COST)
    assert ledger.verify().clock_jumps == ((6, pytest.approx(3699.5)),)
    assert ledger.spent()[0] == cost_of(5)


def test_the_report_tells_what_was_paid_and_never_released(ledger: PrivacyLedger) -> None:
    ledger.reserve("e1", **COST)
    ledger.release("e1", "h")
    report = ledger.verify()
    assert (report.records, report.partner, report.dataset) == (5, "shop", "sales")
    assert (report.released, report.unreleased, report.clock_jumps) == (1, ("e0",), ())
    assert (report.spent, report.remaining) == (cost_of(2), 10.0 - cost_of(2))
    assert report.head_hash == ledger.chain().records[-1].hash


def test_a_witness_finds_a_disk_that_was_put_back(ledger: PrivacyLedger, tmp_path: Path) -> None:
    """Ledger and anchor go back together, to the same inode: nothing inside can tell."""
    copy_of(ledger, tmp_path / "backup")
    before = ledger.chain()
    ledger.reserve("e1", **COST)
    witness = export_of(ledger, tmp_path).mark
    ledger.verify(before.mark)
    ledger.verify(witness)
    for file in (tmp_path / "backup").iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    ledger.verify(before.mark)
    with pytest.raises(LedgerError, match="went back behind its witness"):
        ledger.verify(witness)
    ledger.reserve("e2", **COST)  # as long as the witness, and another branch
    with pytest.raises(LedgerError, match="went back behind its witness"):
        ledger.verify(witness)


def test_a_witness_of_another_ledger_says_nothing(
    ledger: PrivacyLedger, tmp_path: Path, make_ledger: MakeLedger
) -> None:
    other = make_ledger(tmp_path / "other.sqlite")
    with pytest.raises(LedgerError, match="another ledger"):
        ledger.verify(other.chain().mark)


def export_of(ledger: PrivacyLedger, folder: Path) -> Chain:
    (chain,) = read_export(folder / "export.json", export_bytes([ledger.chain()]))
    return chain


def test_an_export_holds_everything(ledger: PrivacyLedger, tmp_path: Path) -> None:
    assert export_of(ledger, tmp_path) == ledger.chain()
    exported = json.loads(export_bytes([ledger.chain()]))["ledgers"][0]
    assert exported["spent"] == {"epsilon": cost_of(1), "delta": 1e-5}
    assert exported["budget"] == {"epsilon": 10.0, "delta": 1e-5}


def test_an_export_with_one_changed_digit_is_refused(ledger: PrivacyLedger, tmp_path: Path) -> None:
    ledger.release("e0", "0123456789abcdef")
    content = export_bytes([ledger.chain()]).decode()
    for place in [match.start() for match in re.finditer(r"\d", content)]:
        changed = content[:place] + str((int(content[place]) + 1) % 10) + content[place + 1 :]
        with pytest.raises(LedgerError):
            read_export(tmp_path / "export.json", changed.encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"what": "fedrec privacy ledgers", "format": 2}'])
def test_what_is_no_export_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(LedgerError):
        read_export(tmp_path / "export.json", content)


def rechained(ledger: PrivacyLedger, kind: Any, content: Any, event_id: str = "") -> None:
    """A record with the right hash that no ledger writes."""
    records = ledger.chain().records
    read_chain([*records, chained(records[-1], kind, content, 0.0, event_id)], "made up")


@pytest.mark.parametrize(
    ("kind", "content", "event_id"),
    [
        ("reserve", {"plan_hash": "p", "run": "r", "event": ["head", 1.0, 2.0, 1]}, "e0"),
        ("reserve", {"plan_hash": "p", "run": "r", "event": ["head", 1.0, 2.0, -5]}, "e1"),
        ("reserve", {"plan_hash": "p", "run": "r"}, "e1"),
        ("release", "h", "never reserved"),
        ("budget", {"epsilon": -1.0, "delta": 1e-5}, ""),
        ("budget", {"epsilon": 1.0}, ""),
        ("adopt", {"lost_rounds": 3, "event": None}, ""),
        ("adopt", {"lost_rounds": -3, "event": ["head", 1.0, 2.0, 1]}, ""),
        ("genesis", {}, ""),
        ("refund", {}, ""),
    ],
)
def test_hashes_alone_make_no_ledger(ledger: PrivacyLedger, kind: str, content: Any, event_id: str) -> None:
    rechained(ledger, "release", "h", "e0")
    with pytest.raises(LedgerError, match="row 4 "):
        rechained(ledger, kind, content, event_id)
