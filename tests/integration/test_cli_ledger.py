"""`fedrec privacy ledger ...` as a ledger's owner uses it."""

import io
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.ledger_anchor import anchor_path
from fedrec_sim import cli

COST: dict[str, Any] = {"plan_hash": "0123456789", "part": "head", "sampling_prob": 0.5, "noise_multiplier": 2.0}
COST |= {"run": "r", "most_steps": 10_000}


@pytest.fixture
def ledger(tmp_path: Path, make_ledger: Callable[..., PrivacyLedger]) -> PrivacyLedger:
    made = make_ledger(tmp_path / "shop.sqlite")
    for event in ("e0", "e1"):
        made.reserve(event, **COST, steps=1, note="round 1")
    made.release("e0", "h")
    return made


@pytest.fixture
def runs(ledger: PrivacyLedger, config_file: Path, make_ledger: Callable[..., PrivacyLedger], tmp_path: Path) -> Path:
    """A run folder with two ledgers, without a run."""
    from fedrec.config import load_config
    from fedrec_sim.run import start_run

    (tmp_path / "runs").mkdir()
    run = start_run(tmp_path / "runs/tiny", load_config(config_file), "fedrec test")
    (run.folder / "ledger/dp-1").mkdir(parents=True)
    for number in (1, 2):
        make_ledger(run.folder / f"ledger/dp-1/partner-{number}.sqlite").reserve("e", **COST, steps=number)
    return tmp_path / "runs"


def call(*arguments: object) -> int:
    """Exit code of `fedrec privacy ledger ...` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fedrec", "privacy", "ledger", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    return int(stopped.value.code or 0)


def flat(text: str) -> str:
    """As if the terminal were wide enough."""
    return " ".join(text.split())


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """What a command prints as JSON."""
    assert call(*arguments, "--json") == 0
    return dict(json.loads(capsys.readouterr().out))


def test_show_tells_what_was_paid_for_what(ledger: PrivacyLedger, capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = told(capsys, "show", ledger.path)["ledgers"]
    assert (shown["partner"], shown["dataset"]) == ("shop", "sales")
    assert shown["budget"] == {"epsilon": 10.0, "delta": 1e-5}
    assert shown["spent"] == ledger.spent()[0]
    assert shown["remaining"] == ledger.remaining()
    assert shown["unreleased"] == ["e1"]
    assert shown["first_time"] <= shown["last_time"]
    (plan,) = shown["plans"]
    assert (plan["plan_hash"], plan["part"], plan["events"]) == ("0123456789", "head", 2)
    assert (plan["sampling_prob"], plan["noise_multiplier"]) == (0.5, 2.0)
    assert plan["epsilon_alone"] == shown["spent"]
    assert call("show", ledger.path) == 0
    text = flat(capsys.readouterr().out)
    assert all(word in text for word in ("01234567", "head", "1 reserved and never released"))


def test_a_run_has_all_its_ledgers(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, "show", "--run", "tiny", "--runs", runs)["ledgers"]
    assert [Path(one["path"]).name for one in shown] == ["partner-1.sqlite", "partner-2.sqlite"]
    assert call("show", "--run", "tiny", "--runs", runs) == 0
    text = flat(capsys.readouterr().out)
    assert text.count("never released") == 2
    assert text.count("unreleased") == 1  # the table of all
    assert len(told(capsys, "verify", "--run", "tiny", "--runs", runs)["ledgers"]) == 2
    out = runs / "witness.json"
    assert told(capsys, "export", "--run", "tiny", "--runs", runs, "--out", out)["ledgers"] == 2
    assert len(told(capsys, "verify", "--run", "tiny", "--runs", runs, "--witness", out)["ledgers"]) == 2
    assert len(told(capsys, "verify", out)["ledgers"]) == 2


def test_an_export_bears_witness(ledger: PrivacyLedger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "disk").mkdir()
    for file in (ledger.path, anchor_path(ledger.path)):
        shutil.copyfile(file, tmp_path / "disk" / file.name)
    ledger.release("e1", "h")
    out = tmp_path / "witness.json"
    assert call("export", ledger.path, "--out", out) == 0
    assert out.stat().st_mode & 0o777 == 0o600
    assert "records: 6" in capsys.readouterr().out
    assert call("verify", ledger.path, "--witness", out) == 0
    for file in (tmp_path / "disk").iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    assert call("verify", ledger.path) == 0
    assert call("verify", ledger.path, "--witness", out) == 12
    assert "went back behind its witness" in flat(capsys.readouterr().err)


def test_verify_names_every_broken_ledger(
    ledger: PrivacyLedger, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(ledger.path)) as db:
        db.execute("UPDATE records SET note = 'x' WHERE seq = 3")
        db.commit()
    copy = tmp_path / "copy.sqlite"
    shutil.copyfile(runs / "tiny/ledger/dp-1/partner-1.sqlite", copy)
    good = runs / "tiny/ledger/dp-1/partner-2.sqlite"
    assert call("verify", ledger.path, copy, good, tmp_path / "gone.sqlite", "--json") == 12
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert [one["path"] for one in answer["ledgers"]] == [str(good)]
    assert len(answer["problems"]) == 3
    assert all(word in flat(captured.err) for word in ("3 problems", "row 3", "anchor is missing", "no ledger there"))


def test_budget_and_adopt_ask_first(
    ledger: PrivacyLedger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody is there to answer
    assert call("budget", ledger.path, "--epsilon", "4", "--delta", "1e-6") == 2
    assert call("adopt", ledger.path, "--lost-rounds", "2", "--reason", "x") == 2
    assert "nothing was changed" in flat(capsys.readouterr().err)
    assert ledger.budget.epsilon == 10.0
    (shown,) = told(capsys, "budget", ledger.path, "--epsilon", "4", "--delta", "1e-6", "--yes")["ledgers"]
    assert shown["budget"] == {"epsilon": 4.0, "delta": 1e-6}
    before = shown["spent"]
    anchor_path(ledger.path).unlink()
    assert call("show", ledger.path) == 12
    assert "--lost-rounds N" in flat(capsys.readouterr().err)
    (shown,) = told(capsys, "adopt", ledger.path, "--lost-rounds", "2", "--reason", "moved", "--yes")["ledgers"]
    assert shown["spent"] > before
    assert call("adopt", ledger.path, "--lost-rounds", "0", "--reason", "moved again", "--yes") == 0
    assert "shop" in capsys.readouterr().out
    assert [record.kind for record in ledger.chain().records[-3:]] == ["budget", "adopt", "adopt"]


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2)])
def test_a_person_may_answer(ledger: PrivacyLedger, answer: str, code: int) -> None:
    command = [sys.executable, "-c", "from fedrec_sim.cli import main; main()", "privacy", "ledger", "budget"]
    command += [str(ledger.path), "--epsilon", "4", "--delta", "1e-6", "--json"]
    asked = subprocess.run(command, input=answer, capture_output=True, text=True, check=False)
    assert asked.returncode == code
    assert "epsilon 4" in asked.stderr
    assert ledger.budget.epsilon == (4.0 if code == 0 else 10.0)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show"], 2, "either ledger files or --run"),
        (["show", "shop.sqlite", "--run", "tiny"], 2, "either ledger files or --run"),
        (["show", "--run", "no-such-run"], 9, "no run there"),
        (["show", "gone.sqlite"], 12, "no ledger there"),
        (["show", "text.json"], 12, "no privacy ledger"),
        (["verify", "text.json"], 12, "no export"),
        (["verify", "shop.sqlite", "--witness", "text.json"], 12, "no export"),
        (["verify", "shop.sqlite", "--witness", "gone.json"], 9, "cannot be read"),
        (["export", "shop.sqlite", "--out", "text.json"], 2, "there already"),
        (["export", "shop.sqlite", "--out", "no/such/folder/x.json"], 10, "cannot be written"),
        (["budget", "shop.sqlite", "--epsilon", "-1", "--delta", "1e-5", "--yes"], 6, "budget must be"),
        (["adopt", "shop.sqlite", "--lost-rounds", "1", "--reason", "", "--yes"], 6, "a reason"),
    ],
)
def test_wrong_input_is_named_with_a_remedy(
    ledger: PrivacyLedger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(ledger.path.parent)
    Path("text.json").write_text('{"songs": []}')
    assert call(*arguments) == code
    error = flat(capsys.readouterr().err)
    assert words in error
    assert "remedy" in error
    assert "Traceback" not in error


def test_help_loads_neither_database_nor_accountant() -> None:
    code = (
        "import sys, fedrec_sim.cli_privacy; print(sorted({'torch', 'sqlalchemy', 'dp_accounting'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
