"""A node's metrics: what its people need, nothing that tells how many users there are, and never in a round's way."""

import asyncio
import socket
import threading
import time
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedrec.errors import BudgetError, ConfigError, ProtocolError
from fedrec.files import json_bytes
from fedrec.invitation import Invitation
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.terms import FederationTerms
from fedrec_client.adapters import Adapters
from fedrec_client.desk import NodeDesk
from fedrec_client.figures import NodeWatch
from fedrec_client.metrics import exposition
from fedrec_client.metrics_server import metrics_app, serve_metrics
from fedrec_client.settings import Node, make_node
from fedrec_client.socket_link import SocketDesk

HASH = "0" * 64
STATUS = {"answered": 3, "lost": {"BudgetError": 0, "PrivacyError": 2, "ProtocolError": 0}}
TERMS = cast(FederationTerms, type("Terms", (), {"name": "films", "mode": "inspect"}))
HELD = {"format": 1, "generation": 1, "round": 4, "adapter_hash": HASH, "statement": {}}


class FakeWorker:
    """A worker's status, or none."""

    def __init__(self, told: dict[str, Any] | None) -> None:
        self.told, self.hangs = told, threading.Event()
        self.hangs.set()

    def status(self) -> dict[str, Any]:
        self.hangs.wait(20)
        if self.told is None:
            raise ProtocolError("the partner's worker does not listen")
        return self.told


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = make_node(tmp_path / "node", Invitation("localhost:8443", "shop", "s" * 20, HASH, HASH), b"PEM", 9094, 9095)
    PrivacyLedger.create(made.ledger, partner="shop", dataset="data", budget_epsilon=8.0, budget_delta=1e-5)
    return made


def watch_of(node: Node, worker: FakeWorker, **changed: Any) -> NodeWatch:
    adapters = Adapters(node.folder / "adapter", b"", "films", cast(Any, None))
    values = {"is_supernode_up": lambda: True, "heard_at": time.time, **changed}
    watch = NodeWatch(node, TERMS, adapters, **values)
    watch._desk = cast(SocketDesk, worker)
    return watch


def settled(watch: NodeWatch) -> NodeWatch:
    watch.start()
    deadline = time.monotonic() + 10
    while watch._answer[0] == 0.0 and time.monotonic() < deadline:
        time.sleep(0.01)
    watch.stop()
    return watch


def page_of(watch: NodeWatch, path: str) -> httpx.Response:
    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(metrics_app(watch))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return asyncio.run(get())


def scraped(watch: NodeWatch) -> dict[tuple[str, tuple[str, ...]], float]:
    text = exposition(watch.figures())[0].decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(s.name.removeprefix("fedrec_client_"), tuple(s.labels.values())): s.value for s in samples}


def test_a_node_in_figures(node: Node) -> None:
    ledger = PrivacyLedger.open(node.ledger, partner="shop", dataset="data")
    ledger.reserve(
        "e", plan_hash="p", run="r", part="head", sampling_prob=1.0, noise_multiplier=5.0, steps=1, most_steps=1
    )
    (node.state / "rounds.json").write_bytes(json_bytes({"format": 1, "generation": 2, "round": 5, "attempt": 3}))
    (node.state / "paused").touch()
    (node.folder / "adapter" / "current").mkdir(parents=True)
    (node.folder / "adapter" / "current" / "held.json").write_bytes(json_bytes(HELD))
    found = scraped(settled(watch_of(node, FakeWorker(STATUS))))
    expected = {
        ("info", ("films", "inspect", "shop")): 1,
        ("worker_up", ()): 1,
        ("supernode_up", ()): 1,
        ("paused", ()): 1,
        ("asked_generation", ()): 2,
        ("asked_round", ()): 5,
        ("asked_attempt", ()): 3,
        ("adapter_round", ()): 4,
        ("answered_rounds_total", ()): 3,
        ("lost_rounds_total", ("PrivacyError",)): 2,
        ("lost_rounds_total", ("BudgetError",)): 0,
        ("budget_epsilon", ()): 8.0,
        ("budget_spent_epsilon", ()): ledger.spent()[0],
        ("budget_remaining_epsilon", ()): ledger.remaining(),
        ("budget_delta", ()): 1e-5,
        ("ledger_records", ()): 3,
    }
    assert {key: found.get(key) for key in expected} == expected
    for name in ("adapter_fetched_timestamp_seconds", "coordinator_heard_timestamp_seconds"):
        assert abs(found[name, ()] - time.time()) < 60
    assert found["disk_free_bytes", ()] > 0


def test_nothing_counts_users_or_rows_or_shows_what_the_worker_computes(node: Node) -> None:
    names = {name for name, _ in scraped(settled(watch_of(node, FakeWorker(STATUS))))}
    assert not [n for n in names if any(word in n for word in ("user", "row", "item", "cpu", "memory", "duration"))]


def test_a_new_node_knows_little_and_is_not_ready(node: Node) -> None:
    node.ledger.unlink()
    watch = settled(watch_of(node, FakeWorker(None), is_supernode_up=lambda: False, heard_at=lambda: None))
    found = scraped(watch)
    assert found["worker_up", ()] == found["supernode_up", ()] == found["asked_round", ()] == 0
    assert not {"answered_rounds_total", "budget_epsilon", "adapter_round"} & {name for name, _ in found}
    page = page_of(watch, "/ready")
    assert page.status_code == 503
    assert page.json()["checks"] == dict.fromkeys(("worker", "supernode", "coordinator", "ledger"), False)


def test_a_worker_that_hangs_counts_as_down_and_keeps_nobody_waiting(node: Node) -> None:
    worker = FakeWorker(STATUS)
    watch = settled(watch_of(node, worker, silent_s=0.2))
    assert scraped(watch)["worker_up", ()] == 1
    worker.hangs.clear()
    watch._stop.clear()
    watch.start()
    time.sleep(0.3)
    started = time.monotonic()
    assert scraped(watch)["worker_up", ()] == 0
    assert time.monotonic() - started < 5.0
    watch.stop()
    worker.hangs.set()


def test_a_coordinator_that_was_not_heard_for_long_makes_it_not_ready(node: Node) -> None:
    watch = settled(watch_of(node, FakeWorker(STATUS), heard_at=lambda: time.time() - 400))
    page = page_of(watch, "/ready").json()
    assert page == {
        "is_ready": False,
        "checks": {"worker": True, "supernode": True, "coordinator": False, "ledger": True},
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_it_is_served_on_the_loopback_while_the_node_runs(node: Node) -> None:
    port = free_port()
    with serve_metrics(watch_of(node, FakeWorker(STATUS)), port), httpx.Client(trust_env=False) as client:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while client.get(f"{address}/ready").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert client.get(f"{address}/health").json() == {"status": "ok"}
        page = client.get(f"{address}/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert b"fedrec_client_worker_up 1.0" in page.content
        assert client.get(f"{address}/metrics", headers={"host": "evil.example"}).status_code == 400
        assert client.post(f"{address}/metrics").status_code == 405
        with pytest.raises(ConfigError, match="metrics_port"), serve_metrics(watch_of(node, FakeWorker(None)), port):
            pass
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)


def test_the_port_of_init_stands_in_the_file_and_is_off_by_default(node: Node, tmp_path: Path) -> None:
    assert node.settings.local.metrics_port == 9095
    other = make_node(tmp_path / "other", Invitation("localhost:1", "b", "s" * 20, HASH, HASH), b"PEM", 9094)
    assert other.settings.local.metrics_port == 0


def test_rounds_that_are_lost_are_counted_by_class() -> None:
    desk = NodeDesk("shop", b"", cast(Any, None), TERMS, cast(Any, None), cast(Any, None), cast(Any, None), bool)
    for error in (BudgetError("spent"), BudgetError("spent"), KeyError("private")):
        desk._lose(error)
    assert desk.lost == {"BudgetError": 2, "PrivacyError": 0, "ProtocolError": 0, "KeyError": 1}
