"""Whole runs on made data: what is written, what a crash costs, what a failing partner costs, what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedrec.config import load_config
from fedrec.data.catalog import ItemCatalog, write_catalog
from fedrec.data.interactions import Interaction, InteractionTable, write_interactions
from fedrec.data.splits import CUT_BY_ALL
from fedrec.errors import FedrecError, LedgerError, QuorumError, RunError
from fedrec.model.recommender import read_state
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.ledger_chain import Budget
from fedrec.registry.registry import Registry
from fedrec_client.worker import PartnerData
from fedrec_sim.federation import private_schedule
from fedrec_sim.ladder import run_ladder
from fedrec_sim.leaderboard import leaderboard
from fedrec_sim.rows import RowContext, Stopped
from fedrec_sim.run import hold_run, read_json, read_run, resume_run, start_run
from fedrec_sim.world import load_world

Events = list[dict[str, Any]]


def run(
    config_file: Path,
    root: Path,
    *overrides: str,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    before_answer: Callable[[int], None] = lambda _: None,
) -> tuple[dict[str, Any], Events]:
    """Run a configuration to its end in this process."""
    config = load_config(config_file, overrides)
    events: Events = []
    with hold_run(root, config.name, resume=resume) as place:
        held = resume_run(place) if resume else start_run(place, config, "fedrec test")
        summary = run_ladder(held, load_world(held.config), events.append, stop, before_answer)
    return summary, events


def final_hash(root: Path, row: str = "federated_dp") -> str:
    head = Registry(root / "tiny/registry" / f"{row}-1").head()
    assert head is not None
    return head.adapter_hash


@pytest.fixture(scope="module")
def finished(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs with one uninterrupted run."""
    root = tmp_path_factory.mktemp("runs")
    run(config_file, root)
    return root


def test_a_run_leaves_all_that_the_readme_names(finished: Path) -> None:
    folder = finished / "tiny"
    summary = read_json(folder / "summary.json")
    assert {"popularity", "federated_dp"} == set(summary["rows"])
    assert summary["protocol"] == "B"
    assert 7.5 < summary["privacy"]["epsilon"] <= 8.0
    privacy = summary["privacy"]
    assert privacy["epsilon"] < privacy["other_partner_epsilon"] <= privacy["partner_alone_epsilon"]
    assert summary["privacy"]["mode"] == "secagg"
    assert summary["privacy"]["masked"]
    assert summary["rows"]["federated_dp"]["exact_sums"] == 6  # every round of the one seed
    assert 0 <= summary["rows"]["federated_dp"]["ndcg@10"] <= 1
    assert f"| {privacy['epsilon']:.2f} |" in (folder / "adapter/PRIVACY.md").read_text(encoding="utf-8")
    assert {p.name for p in (folder / "adapter").iterdir()} == {
        "PRIVACY.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "fedrec.json",
        "privacy.json",
    }
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert Registry(folder / "registry/federated_dp-1").verify() == 7


def test_what_tells_of_users_is_the_owners_alone(config_file: Path, finished: Path, tmp_path: Path) -> None:
    folder = finished / "tiny"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("summary.json", "report.html", "rows/federated_dp-1.json"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name
    start_run(tmp_path / "tiny", load_config(config_file), "x").noise_root()
    assert (tmp_path / "tiny/noise.key").stat().st_mode & 0o777 == 0o600


def test_every_partner_paid_what_the_statement_says(finished: Path) -> None:
    epsilon = read_json(finished / "tiny/summary.json")["privacy"]["epsilon"]
    ledgers = sorted((finished / "tiny/ledger/federated_dp-1").glob("*.sqlite"))
    assert len(ledgers) == 3
    for path in ledgers:
        assert path.stat().st_mode & 0o777 == 0o600
        report = PrivacyLedger(path).verify()
        assert (report.partner, report.budget) == (path.stem, Budget(8.0, 1e-4))
        assert report.dataset.endswith("/federated_dp-1")
        assert report.spent == pytest.approx(epsilon, abs=1e-6)
        assert not report.unreleased


def test_the_same_seed_gives_the_same_adapter(config_file: Path, finished: Path, tmp_path: Path) -> None:
    run(config_file, tmp_path)
    assert final_hash(tmp_path) == final_hash(finished)
    run(config_file, tmp_path, "private.noise_source=secret")
    assert final_hash(tmp_path) != final_hash(finished)


def in_a_process(code: str, config_file: Path, folder: Path) -> dict[str, Any]:
    """What to start so that `code` runs with this file's `run`, the configuration and `folder/runs` as arguments."""
    # The tests are no package, so the other process imports a copy of this file.
    (folder / "tests_run.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "main.py").write_text(code, encoding="utf-8")
    arguments = [sys.executable, str(folder / "main.py"), str(config_file), str(folder / "runs")]
    return {"args": arguments, "env": {**os.environ, "PYTHONPATH": str(folder)}}


def test_sigkill_in_the_middle_of_a_round_costs_nothing(config_file: Path, finished: Path, tmp_path: Path) -> None:
    """A process of its own is killed while a partner trains; the resumed run ends in the same bits."""
    code = (
        "import sys, os, signal, pathlib\n"
        "from tests_run import run\n"
        "calls = []\n"
        "def die(node):\n"
        "    calls.append(node)\n"
        "    if len(calls) == 38: os.kill(os.getpid(), signal.SIGKILL)\n"
        "run(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), before_answer=die)\n"
    )
    killed = subprocess.run(**in_a_process(code, config_file, tmp_path), capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    head = Registry(tmp_path / "runs/tiny/registry/federated_dp-1").head_round()
    assert head == 2
    run(config_file, tmp_path / "runs", resume=True)
    assert final_hash(tmp_path / "runs") == final_hash(finished)


def test_ctrl_c_keeps_what_is_committed(config_file: Path, finished: Path, tmp_path: Path) -> None:
    answers: list[int] = []
    with pytest.raises(Stopped):
        run(config_file, tmp_path, before_answer=answers.append, stop=lambda: len(answers) >= 7)
    assert not (tmp_path / "tiny/summary.json").exists()
    run(config_file, tmp_path, resume=True)
    assert final_hash(tmp_path) == final_hash(finished)


def test_a_failing_partner_loses_its_turn_and_is_named(config_file: Path, tmp_path: Path) -> None:
    def fail(node: int) -> None:
        if node == 3:
            raise RuntimeError("a private detail")

    summary, events = run(config_file, tmp_path, "partners=4", before_answer=fail)
    refused = [event for event in events if event["event"] == "partner_refused"]
    assert {event["partner"] for event in refused} == {"partner-2"}
    assert "a private detail" not in json.dumps(events)
    assert summary["lost_turns"]["partner_refused"] == len(refused) == 6
    assert summary["rows"]["federated_dp"]["ndcg@10"] >= 0


def test_too_few_partners_end_the_run_by_name(config_file: Path, tmp_path: Path) -> None:
    def fail(node: int) -> None:
        if node != 2:
            raise RuntimeError

    with pytest.raises(QuorumError, match="partner-3"):
        run(config_file, tmp_path, before_answer=fail)


def test_rows_without_privacy_run_and_resume(config_file: Path, tmp_path: Path) -> None:
    rows = 'rows=["item_knn", "ease", "local_only", "federated", "centralised"]'
    summary, _ = run(config_file, tmp_path, rows)
    assert summary["privacy"]["mode"] == "none"
    assert all(0 <= row["hr@10"] <= 1 for row in summary["rows"].values())
    first = final_hash(tmp_path, "federated")
    (tmp_path / "tiny/rows/federated-1.json").unlink()
    run(config_file, tmp_path, rows, resume=True)
    assert final_hash(tmp_path, "federated") == first


def test_test_items_are_ranked_once_with_the_epoch_that_validation_chose(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[tuple[str, str]] = []
    rank = RowContext.sums

    def watched(self: RowContext, scorer: Any, which: str, users: Any = None) -> Any:
        looks.append((which, read_state(scorer._model).hash))
        return rank(self, scorer, which, users)

    monkeypatch.setattr(RowContext, "sums", watched)
    settings = ("plain.head_epochs=0", "plain.central_epochs=6", "plain.central_learning_rate=0.1")
    run(config_file, tmp_path, 'rows=["centralised"]', *settings)
    chosen = read_json(tmp_path / "tiny/rows/centralised-1.json")["chosen_on_validation"]["epoch"]
    assert chosen != 6, "the last epoch would be right by chance"
    assert [which for which, _ in looks] == ["validation"] * 2 + ["test"]
    assert looks[-1][1] == looks[(4, 6).index(chosen)][1]


def test_a_new_run_never_overwrites_an_old_one(config_file: Path, tmp_path: Path) -> None:
    for _ in range(2):
        run(config_file, tmp_path, 'rows=["popularity"]')
    assert (tmp_path / "tiny.1/summary.json").is_file()
    assert (tmp_path / "tiny/summary.json").is_file()


def test_a_second_process_on_the_same_run_is_refused(config_file: Path, tmp_path: Path) -> None:
    with hold_run(tmp_path, "tiny", resume=False) as place:
        start_run(place, load_config(config_file), "one")
        started = time.monotonic()
        with pytest.raises(RunError, match="in use"), hold_run(tmp_path, "tiny", resume=True):
            pass
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("content", "reason"),
    [('{"format": 0}', "has format 0"), ("{", "damaged"), ("[]", "damaged"), ('{"format": 1}', "lacks config")],
)
def test_older_and_damaged_runs_are_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/run.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=reason):
        resume_run(tmp_path / "old")
    with pytest.raises(FedrecError, match="no run there"), hold_run(tmp_path / "runs", "none", resume=True):
        pass
    assert not (tmp_path / "runs").exists()


def test_a_change_of_code_within_a_run_stands_beside_its_figures(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedrec_sim.run.commit_of_checkout", lambda: "aaa")
    started = start_run(tmp_path / "tiny", load_config(config_file), "x")
    assert resume_run(started.folder).commit == "aaa"
    monkeypatch.setattr("fedrec_sim.run.commit_of_checkout", lambda: "bbb")
    assert resume_run(started.folder).commit == resume_run(started.folder).commit == "aaa, then bbb"
    assert read_run(started.folder).commit == "aaa, then bbb"


def test_a_ledger_that_is_gone_is_not_made_anew(config_file: Path, tmp_path: Path) -> None:
    answers: list[int] = []
    with pytest.raises(Stopped):
        run(config_file, tmp_path, before_answer=answers.append, stop=lambda: len(answers) >= 7)
    (tmp_path / "tiny/ledger/federated_dp-1/partner-2.sqlite").unlink()
    with pytest.raises(LedgerError, match="ledger of a run that has begun is missing"):
        run(config_file, tmp_path, resume=True)


def test_time_before_a_stop_is_counted(config_file: Path, tmp_path: Path) -> None:
    answers: list[int] = []
    with pytest.raises(Stopped):
        run(config_file, tmp_path, before_answer=answers.append, stop=lambda: len(answers) >= 7)
    before = read_run(tmp_path / "tiny").seconds("federated_dp-1")
    summary, _ = run(config_file, tmp_path, resume=True)
    assert before > 0
    assert summary["rows"]["federated_dp"]["seconds"] > before
    assert summary["seconds"] > summary["rows"]["federated_dp"]["seconds"]


def test_a_run_ends_though_somebody_has_seen_nearly_everything(
    catalog: ItemCatalog, config_file: Path, tmp_path: Path
) -> None:
    """Example users are offered what is left, and nobody watched may have a validation item."""
    counts = (len(catalog), len(catalog) - 2, 2, 2)
    rows = [
        Interaction(f"u{user}", catalog.ids[item], None, float(item), line=0)
        for user, count in enumerate(counts)
        for item in range(count)
    ]
    write_catalog(catalog, tmp_path / "shop/catalog.parquet")
    write_interactions(InteractionTable.from_rows(rows, catalog), tmp_path / "shop/interactions.parquet")
    small = (
        "partners=2",
        "rounds.masks=false",
        f"data.source={tmp_path / 'shop'}",
        "evaluation.watch_users=1",
        "seeds=[1, 2, 3]",
    )
    summary, events = run(config_file, tmp_path / "runs", *small)
    assert all(len(person["recommended"]) in (1, 3, 5) for person in summary["recommendations"])
    looks = [event["validation"] for event in events if event["event"] == "round_committed"]
    assert None in looks
    assert summary["rows"]["federated_dp"]["users"] == [2, 2, 2]
    assert summary["rows"]["federated_dp"]["skipped_users"] == [2, 2, 2]


EVERY_ROW = 'rows=["popularity", "item_knn", "ease", "local_only", "federated", "federated_dp", "centralised"]'


@pytest.mark.parametrize("protocol", ["A", "D", "split721", "global-time"])
def test_every_row_runs_under_every_protocol(
    protocol: str, young_shop: Path, config_file: Path, tmp_path: Path
) -> None:
    rows = EVERY_ROW if protocol == "global-time" else 'rows=["ease", "federated_dp", "centralised"]'
    settings = (f"evaluation.protocol={protocol}", f"data.source={young_shop}", "seeds=[5]")
    summary, _ = run(config_file, tmp_path, rows, *settings)
    assert summary["protocol"] == protocol
    for name, row in summary["rows"].items():
        assert 0 < row["users"][0] <= 40, name
        assert (row["cold_users"][0] > 0) == (protocol == "global-time"), name
        assert row["users"][0] + row["skipped_users"][0] == 40
    for path in (tmp_path / "tiny/ledger/federated_dp-5").glob("*.sqlite"):
        assert PrivacyLedger(path).verify().spent == pytest.approx(summary["privacy"]["epsilon"], abs=1e-6)
    handed_on = "federated" in summary["rows"] or protocol not in CUT_BY_ALL
    assert (tmp_path / "tiny/adapter/privacy.json").is_file() == ("recommendations" in summary) == handed_on
    assert ("which no epsilon covers" in leaderboard(summary)) == (protocol in CUT_BY_ALL)
    if protocol == "global-time":
        assert read_json(tmp_path / "tiny/adapter/privacy.json")["epsilon"] is None
        assert "were cold" in leaderboard(summary)


def test_who_came_after_training_is_trained_on_by_nobody(
    young_shop: Path, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []
    bind = PartnerData.of
    monkeypatch.setattr(PartnerData, "of", lambda histories: trained.extend(histories) or bind(histories))
    steps: list[int] = []
    monkeypatch.setattr(
        "fedrec_sim.federation.private_schedule", lambda config, n: steps.append(n) or private_schedule(config, n)
    )
    settings = ('rows=["federated_dp"]', "evaluation.protocol=global-time", f"data.source={young_shop}")
    run(config_file, tmp_path, *settings)
    corpus = load_world(load_config(config_file, settings)).corpus(seed=1)
    assert min(map(len, trained)) > 0
    assert len(trained) == corpus.n_trained < len(corpus.histories) == 40
    assert steps == [corpus.n_trained]  # the size of a step is made for those who can be sampled


def test_rows_side_by_side_give_what_they_give_one_after_the_other(
    config_file: Path, finished: Path, tmp_path: Path
) -> None:
    summary, events = run(config_file, tmp_path, "jobs=2")
    assert final_hash(tmp_path) == final_hash(finished)
    alone = read_json(finished / "tiny/summary.json")["rows"]
    assert {row: figures["ndcg@10"] for row, figures in summary["rows"].items()} == {
        row: figures["ndcg@10"] for row, figures in alone.items()
    }
    assert sum(event["event"] == "round_committed" for event in events) == 6


def test_rows_side_by_side_stop_and_fail_as_one(config_file: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(config_file, tmp_path, "jobs=2", stop=lambda: True)
    assert not (tmp_path / "tiny/rows/federated_dp-1.json").exists()
    run(config_file, tmp_path, "jobs=2", resume=True)
    (tmp_path / "tiny/rows/federated_dp-1.json").unlink()
    (tmp_path / "tiny/rows/popularity-1.json").unlink()
    (tmp_path / "tiny/ledger/federated_dp-1/partner-1.sqlite").unlink()
    with pytest.raises(LedgerError, match="ledger"):
        run(config_file, tmp_path, resume=True)


def test_rows_side_by_side_die_with_the_run(config_file: Path, finished: Path, tmp_path: Path) -> None:
    """After SIGKILL nothing goes on unseen: a resumed run would meet it. What was committed is gone on with."""
    code = (
        "import sys, pathlib\n"
        "from tests_run import run\n"
        "if __name__ == '__main__':\n"
        "    run(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), 'jobs=2')\n"
    )
    registry = Registry(tmp_path / "runs/tiny/registry/federated_dp-1")
    deadline = time.monotonic() + 120
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(**in_a_process(code, config_file, tmp_path), **quiet) as parent:
        try:
            while (head := registry.head()) is None or head.round < 2:
                assert parent.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        finally:
            parent.kill()
    assert children
    while any(is_alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not (tmp_path / "runs/tiny/rows/federated_dp-1.json").exists(), "trained on after the run was killed"
    run(config_file, tmp_path / "runs", resume=True)
    assert final_hash(tmp_path / "runs") == final_hash(finished)


def is_alive(process: str) -> bool:
    """Neither gone nor a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
