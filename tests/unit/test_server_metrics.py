"""A coordinator's metrics and readiness, from folders that are whole and folders that are not."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.config import ModelConfig, ShapeConfig
from fedrec.errors import ConfigError
from fedrec.model.adapter import AdapterState
from fedrec.processes import only_one
from fedrec.terms import FORMAT, FederationTerms, ModelTerms, WorkTerms
from fedrec_server.admin import readiness as readiness_module
from fedrec_server.admin.metrics import exposition
from fedrec_server.admin.readiness import Readiness, readiness
from fedrec_server.rounds.federation import Federation
from fedrec_server.rounds.heartbeat import BeatingStop, is_driver_there, last_beat
from fedrec_server.rounds.schedule import RoundSpec
from fedrec_server.settings import Coordinator, make_coordinator
from fedrec_server.state.partner_book import PartnerBook
from fedrec_server.state.round_book import RoundBook
from fedrec_server.state.store import PAUSED, Office
from fedrec_server.supervisor import Supervisor

STATEMENT = {"epsilon": 4.0, "delta": 1e-5, "partner_alone_epsilon": 4.5, "other_partner_epsilon": None}
NOTHING = "0" * 64


def small_federation() -> Federation:
    initial = AdapterState({"w": np.zeros(3, np.float32)})
    hashes = {"backbone_hash": NOTHING, "catalog_hash": NOTHING, "feature_hash": NOTHING}
    model = ModelTerms(config=ModelConfig(), shape=ShapeConfig(), **hashes)
    work = WorkTerms(max_history=5, weight_decay=0.0, batch_users=8)
    terms = FederationTerms(
        format=FORMAT,
        name="films",
        mode="none",
        privacy_plan=None,
        model=model,
        work=work,
        parts={"head": {"w": (3,)}},
        initial_hash=initial.hash,
        seed=1,
    )
    spec = RoundSpec("head", 1, 1, 1.0, ServerOptimizer("sgd", 1.0))
    return Federation(terms, (spec,) * 7, STATEMENT, initial, b"PAR1")


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    ports = {"GATEWAY_PORT": 9001, "SUPERLINK_PORT": 9002, "ADMIN_PORT": 9003}
    made = make_coordinator(tmp_path / "place", name="films", hosts=("localhost",), ports=ports)
    made = Coordinator(made.folder)
    made.use(small_federation())
    yield made
    made.database.close()


def enrol(coordinator: Coordinator, name: str, status: Any, *, seen: bool = False, reason: str = "") -> None:
    book = PartnerBook(coordinator.database)
    secret = book.invite(name, valid_for=timedelta(hours=1), is_approved=False)
    book.enrol(name, secret, node_key=f"key of {name}", signing_key=f"signing key of {name}")
    book.set_status(name, status, who="test")
    if seen:
        book.see(name)
    book.see(name, reason)


def commit(coordinator: Coordinator, *numbers: int) -> None:
    for number in numbers:
        head = coordinator.registry.head()
        coordinator.registry.commit(
            AdapterState({"w": np.full(3, number, np.float32)}),
            round=number,
            parent=head.adapter_hash if head else "",
            mode="none",
            statement={},
            server_state={"step": np.zeros(1)},
        )


def scraped(coordinator: Coordinator) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, label values) -> value."""
    text = exposition(coordinator)[0].decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(s.name.removeprefix("fedrec_server_"), tuple(s.labels.values())): s.value for s in samples}


def test_a_coordinator_in_figures(coordinator: Coordinator) -> None:
    enrol(coordinator, "anna", "approved", seen=True)
    enrol(coordinator, "bert", "suspended", reason="no answer before the deadline")
    enrol(coordinator, "carl", "removed")
    book = RoundBook(coordinator.database)
    for attempt in (1, 2, 3):
        book.begin("films/1", 1, attempt, "head")
    book.end("films/1", 1, 1, status="failed", reasons={"anna": "late"})
    book.end("films/1", 1, 2, status="committed", seconds=2.5, bytes_up=10, bytes_down=20)
    commit(coordinator, 0, 1)
    Office(coordinator.database).set_setting(PAUSED, "yes", who="test")
    found = scraped(coordinator)
    expected = {
        ("paused", ()): 1,
        ("generation", ()): 1,
        ("rounds_committed", ()): 1,
        ("rounds_planned", ()): 7,
        ("attempts_total", ("committed",)): 1,
        ("attempts_total", ("failed",)): 1,
        ("attempts_unfinished", ()): 1,
        ("last_round_duration_seconds", ()): 2.5,
        ("last_round_bytes", ("up",)): 10,
        ("transferred_bytes_total", ("down",)): 20,
        ("partners", ("approved",)): 1,
        ("partners", ("removed",)): 1,
        ("partners", ("pending",)): 0,
        ("partner_info", ("anna", "approved")): 1,
        ("partner_turn_lost", ("anna",)): 0,
        ("partner_turn_lost", ("bert",)): 1,
        ("statement_epsilon", ("adapter",)): 4.0,
        ("statement_epsilon", ("one_answer",)): 4.5,
        ("statement_delta", ()): 1e-5,
        ("federation_info", ("films", "none")): 1,
        ("source_readable", ("database",)): 1,
        ("source_readable", ("registry",)): 1,
        ("driver_up", ()): 0,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert abs(found["partner_last_seen_timestamp_seconds", ("anna",)] - time.time()) < 60
    assert abs(found["last_commit_timestamp_seconds", ()] - time.time()) < 60
    days_left = (found["certificate_expiry_timestamp_seconds", ()] - time.time()) / 86400
    assert 820 < days_left < 826
    assert found["database_bytes", ()] > 10_000
    assert found["registry_bytes", ()] > 1_000
    assert 0 < found["disk_free_bytes", ()] <= found["disk_bytes", ()]
    absent = {"partner_last_seen_timestamp_seconds": ("bert",), "partner_turn_lost": ("carl",)}
    assert not [key for key in absent.items() if key in found]
    assert ("statement_epsilon", ("other_partner",)) not in found


def test_the_gateway_is_found_among_the_processes_of_start(coordinator: Coordinator, tmp_path: Path) -> None:
    assert not [name for name, _ in scraped(coordinator) if "process" in name]
    (tmp_path / "fedrec_server").write_text("read line\n")
    stand_ins = []
    with only_one(coordinator.folder / "state" / "running.lock", ""):
        try:
            for kind in ("drive", "gateway"):  # a shell that waits, called as python would be
                words = ["python", "-m", "fedrec_server", kind]
                stand_ins.append(subprocess.Popen(words, executable="/bin/sh", cwd=tmp_path, stdin=subprocess.PIPE))
            while not Path(f"/proc/{stand_ins[-1].pid}/cmdline").read_bytes():  # the kernel fills it in after exec
                time.sleep(0.01)
            found = scraped(coordinator)
            assert found["gateway_process_resident_memory_bytes", ()] > 0
            assert found["gateway_process_open_fds", ()] > 0
        finally:
            for process in stand_ins:
                process.communicate()


def test_a_defence_that_does_not_fit_the_federation_is_refused_by_start(coordinator: Coordinator) -> None:
    path = coordinator.folder / "server.toml"
    fitting = path.read_text(encoding="utf-8")
    assert coordinator.aggregator().least_answers == 1
    path.write_text(fitting.replace('aggregator = "mean"', 'aggregator = "multi-krum"'), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"rounds.hostile must say how many(.|\n)*= 3 answers, the quorum is 2"):
        Supervisor(Coordinator(coordinator.folder)).run()


def test_before_the_first_day_is_over_little_is_known_and_nothing_fails(coordinator: Coordinator) -> None:
    found = scraped(coordinator)
    assert found["rounds_committed", ()] == 0
    names = {name for name, _ in found}
    assert not names & {"last_commit_timestamp_seconds", "last_round_bytes", "driver_beat_timestamp_seconds"}


def test_what_cannot_be_read_is_left_out_and_said(coordinator: Coordinator) -> None:
    commit(coordinator, 0, 1)
    (coordinator.registry.folder / "HEAD").write_text("{")
    (coordinator.keys / "server.pem").write_text("none")
    (coordinator.folder / "federation" / "terms.json").write_text("[]")
    found = scraped(coordinator)
    said = {labels[0]: value for (name, labels), value in found.items() if name == "source_readable"}
    assert said == {"database": 1, "federation": 0, "registry": 0, "certificate": 0}
    assert not {"rounds_committed", "rounds_planned"} & {name for name, _ in found}


def test_a_scrape_asks_a_bounded_number_of_questions(coordinator: Coordinator) -> None:
    for number in range(40):
        enrol(coordinator, f"partner-{number}", "approved", seen=True)
    asked: list[str] = []
    event.listen(coordinator.database._engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    exposition(coordinator)
    assert len(asked) <= 5


def good(found: Readiness) -> dict[str, bool]:
    return {check.name: check.is_good for check in found.checks}


def test_a_folder_where_nothing_runs_is_not_ready(coordinator: Coordinator) -> None:
    found = readiness(coordinator)
    assert not found.is_ready
    assert good(found) == {"database": True, "registry": True, "superlink": False, "driver": False, "disk": True}
    assert Office(coordinator.database).setting("readiness") == ""
    assert [check["name"] for check in found.to_dict()["checks"]] == list(good(found))


def test_damage_and_a_full_disk_are_told(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(coordinator, 0)
    assert "not signed" in readiness(coordinator).checks[1].detail
    (coordinator.registry.folder / "HEAD").write_text("{")
    monkeypatch.setattr(readiness_module, "LEAST_FREE_BYTES", 1 << 60)
    found = good(readiness(coordinator))
    assert not found["registry"]
    assert not found["disk"]


def test_a_database_that_may_only_be_read_is_not_ready(coordinator: Coordinator) -> None:
    @event.listens_for(coordinator.database._engine, "connect")
    def forbid(connection: Any, _: object) -> None:
        connection.execute("PRAGMA query_only=ON")

    coordinator.database.close()
    found = readiness(coordinator)
    assert not good(found)["database"]
    assert "OperationalError" in found.checks[0].detail


def test_the_driver_is_alive_while_its_main_loop_comes_round(coordinator: Coordinator) -> None:
    stop = BeatingStop(coordinator.folder)
    with only_one(coordinator.folder / "state" / "running.lock", ""):
        assert not good(readiness(coordinator))["driver"]
        assert not stop.is_set()
        assert good(readiness(coordinator))["driver"]
        assert scraped(coordinator)["driver_up", ()] == 1
        an_hour_ago = time.time() - 3600
        os.utime(coordinator.folder / "state" / "driver.beat", (an_hour_ago, an_hour_ago))
        found = readiness(coordinator)
        assert not good(found)["driver"]
        assert "3600 s ago" in found.checks[3].detail
    assert "does not run" in readiness(coordinator).checks[3].detail


def test_other_threads_of_the_driver_do_not_count(coordinator: Coordinator) -> None:
    stop = BeatingStop(coordinator.folder)
    registrar = threading.Thread(target=lambda: stop.wait(0.01))
    registrar.start()
    registrar.join()
    assert last_beat(coordinator.folder) is None
    assert not is_driver_there(coordinator.folder)
    stop.set()
    assert stop.wait(0.0)
    assert last_beat(coordinator.folder) is not None


def test_a_driver_that_died_is_not_there(coordinator: Coordinator) -> None:
    BeatingStop(coordinator.folder).is_set()
    assert is_driver_there(coordinator.folder)
    (coordinator.folder / "state" / "driver.beat").write_text(str(2**22 + 1))  # beyond Linux's largest
    assert not is_driver_there(coordinator.folder)
