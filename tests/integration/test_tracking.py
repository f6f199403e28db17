"""Experiment trackers on a real run: what each keeps, that nothing is called, and that none of them can stop it."""

import importlib.util
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from fedrec.config import TrackerName, load_config
from fedrec.errors import ConfigError
from fedrec.tracking.trackers import Trackers, refuse_missing
from fedrec_sim.ladder import run_ladder
from fedrec_sim.run import hold_run, start_run
from fedrec_sim.tracked import tracked as tracked_rows
from fedrec_sim.world import load_world

EXTRAS: tuple[TrackerName, ...] = ("mlflow", "tensorboard", "wandb")
INSTALLED = [name for name in EXTRAS if importlib.util.find_spec(name)]

# While it holds, every address that is called or looked up is an error. W&B's helper is another process, to which only
# a socket of the file system leads.
GUARDED: list[bool] = []


def guard(event: str, arguments: tuple[Any, ...]) -> None:
    looks_up = event in ("socket.getaddrinfo", "socket.gethostbyname")
    calls = event == "socket.connect" and not isinstance(arguments[1], str | bytes)
    if GUARDED and (looks_up or calls):
        raise AssertionError(f"{event} {arguments[-1]}")


@pytest.fixture(scope="module")
def tracked(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a run that all installed trackers were told of, and their warnings."""
    if not INSTALLED:
        pytest.skip("no tracker is installed")
    warnings = list[str]()
    config = load_config(
        config_file,
        ("private.ledger=pooled", "rounds.masks=false", "private.shape.public_dim=0", "model.public_data=none"),
    )
    sys.addaudithook(guard)
    with (
        pytest.MonkeyPatch.context() as patch,
        hold_run(tmp_path_factory.mktemp("tracked"), "tiny", resume=False) as at,
    ):
        patch.setenv("WANDB_MODE", "online")  # what a user's own environment may say
        patch.setenv("MLFLOW_TRACKING_URI", "http://192.0.2.1")
        GUARDED.append(True)
        try:
            run = start_run(at, config, "fedrec test")
            with tracked_rows(run, INSTALLED, warnings.append) as rows:
                run_ladder(run, load_world(config), rows.update, lambda: False)
        finally:
            GUARDED.clear()
    return at, warnings


def events(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "round_committed"]


def test_no_tracker_fails_though_every_call_of_the_network_would(tracked: tuple[Path, list[str]]) -> None:
    assert tracked[1] == []


def test_the_guard_can_fail() -> None:
    sys.addaudithook(guard)
    GUARDED.append(True)
    try:
        with pytest.raises(AssertionError), socket.socket() as one:
            one.connect(("127.0.0.1", 9))
    finally:
        GUARDED.clear()


def test_mlflow_keeps_what_the_report_shows(tracked: tuple[Path, list[str]]) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    folder, _ = tracked
    client: Any = MlflowClient(tracking_uri=f"sqlite:///{folder / 'tracking/mlflow.sqlite'}")
    experiment = client.get_experiment_by_name("tiny")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"popularity-1", "federated_dp-1"}
    private, told = runs["federated_dp-1"], events(folder)
    assert private.info.status == "FINISHED"
    assert private.data.params["private.parts.head.rounds"] == "3"
    history = client.get_metric_history(private.info.run_id, "epsilon")
    assert [(one.step, one.value) for one in history] == [(event["round"], event["epsilon"]) for event in told]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for row in runs:
        found = runs[row].data.metrics["test/ndcg_at_10"]
        assert found == pytest.approx(summary["rows"][row.removesuffix("-1")]["ndcg@10"])
    assert [one.path for one in client.list_artifacts(private.info.run_id)] == ["federated_dp-1.privacy.json"]


def test_tensorboard_keeps_what_the_report_shows(tracked: tuple[Path, list[str]]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = tracked
    row: Any = EventAccumulator(str(folder / "tracking/tensorboard/federated_dp-1"))
    row.Reload()
    told = [(one.step, pytest.approx(one.value)) for one in row.Scalars("epsilon")]
    assert told == [(event["round"], event["epsilon"]) for event in events(folder)]
    assert row.Tags()["scalars"].count("test/ndcg@10") == 1
    assert (folder / "tracking/tensorboard/federated_dp-1/federated_dp-1.privacy.json").is_file()


def test_wandb_stays_offline_and_keeps_nothing_of_the_machine(tracked: tuple[Path, list[str]]) -> None:
    pytest.importorskip("wandb")
    folder = tracked[0] / "tracking/wandb"
    runs = sorted(folder.glob("offline-run-*"))
    assert len(runs) == 2
    for run in runs:
        (store,) = run.glob("*.wandb")
        text = store.read_bytes()
        assert b"test/ndcg@10" in text
        assert (b"validation/ndcg@10" in text) == bool(list(run.glob("files/*.privacy.json")))
        assert not (run / "files/wandb-metadata.json").exists()
        assert b"u07" not in text  # a user


class Failing:
    """A tracker whose disk is full."""

    def begin(self, facts: object) -> None:
        self.told = 0

    def log(self, step: int, metrics: object) -> None:
        self.told += 1
        raise OSError("no space left\nsecond line")

    def artifact(self, path: Path) -> None:
        raise AssertionError("told again")

    end = artifact


def test_a_tracker_that_fails_is_told_no_more_and_warns_once() -> None:
    failing, warnings = Failing(), list[str]()
    broken: set[str] = set()
    trackers = Trackers(["mlflow"], lambda _: failing, broken, warnings.append)
    trackers.begin(None)  # type: ignore[arg-type]
    trackers.log(1, {"epsilon": float("nan")})  # nothing that is finite
    assert failing.told == 0
    for step in (1, 2):
        trackers.log(step, {"epsilon": 1.0})
    trackers.end("finished")
    assert (failing.told, broken) == (1, {"mlflow"})
    assert warnings == ["mlflow failed and is told no more, the run goes on: OSError: no space left"]


def test_a_missing_package_is_refused_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        refuse_missing(["mlflow", "wandb"])
    assert "pip install 'fedrec[mlflow,wandb]'" in str(error.value)
    refuse_missing([])
