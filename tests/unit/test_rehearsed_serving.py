"""What the rehearsal of serving partners finds out must be able to come out badly."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from fedrec.data.catalog import ItemCatalog, write_catalog
from fedrec.errors import ConfigError, RunError
from fedrec.files import replace_file
from fedrec.wire import RoundPlan
from fedrec_client.payments import event_of, question_of
from fedrec_client.serving.records import Event
from fedrec_client.serving.settings import read_serving
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.training_rows import note_learnt, training_histories
from fedrec_client.settings import Node
from fedrec_client.worker import PartnerData
from fedrec_sim.cli_rehearse import rehearse
from fedrec_sim.rehearsal import learnt
from fedrec_sim.rehearsal.endings import _code_of
from fedrec_sim.rehearsal.learnt import PaidRows, rows_paid_for, seq_of
from fedrec_sim.rehearsal.shops import Shop, Visitors
from fedrec_sim.rehearsal.stage import Actor, Stage

PLAN = RoundPlan("films/1", 1, 1, "head", 1, 1, 0.5, "s" * 64, "p" * 64, "inspect", 1, 60.0, 1)
KEY = b"k" * 32


class World:
    """A partner that has paid for a round on its store's rows."""

    def __init__(self, folder: Path, catalog: ItemCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node, self.paid = Node(folder), set[str]()
        write_catalog(catalog, folder / "catalog.parquet")
        agreed = SimpleNamespace(catalog=(folder / "catalog.parquet").read_bytes())
        monkeypatch.setattr(learnt.Agreement, "read", lambda _: agreed)
        monkeypatch.setattr(learnt, "_plan", lambda *_: PLAN)
        monkeypatch.setattr(
            learnt, "open_ledger", lambda _: SimpleNamespace(chain=lambda: SimpleNamespace(reserved=self.paid))
        )
        read_serving(self.node.serving)  # writes the defaults
        path = self.node.serving / "serving.toml"
        path.write_text(path.read_text().replace("rounds = false", "rounds = true"))
        self.settings, self.catalog = read_serving(self.node.serving), catalog
        self.node.keys.mkdir()
        replace_file(self.node.keys / "noise.key", KEY)
        self.store = ServingStore.open(store_url(self.node.serving, "sqlite"))

    def add(self, user: str, *codes: int) -> None:
        books = self.store.of("default")
        places = range(books.log.last_seq() + 1, books.log.last_seq() + 1 + len(codes))
        ids = self.catalog.ids
        books.events.add(
            [
                Event("like", ids[c], user=user, timestamp=float(p), id=f"e{p}")
                for p, c in zip(places, codes, strict=True)
            ]
        )

    def pay(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """As a round does, while more may come."""
        data = PartnerData.of(training_histories(self.store, self.settings, self.catalog))
        meanwhile()
        note_learnt(self.node.serving, self.store, self.settings, (1, 1))
        self.paid.add(event_of(KEY, question_of(PLAN, PLAN.parent_hash, data.fingerprint, "shop", (50, 0))))

    def found(self) -> PaidRows | None:
        terms = SimpleNamespace(work=SimpleNamespace(max_history=50))
        federation = SimpleNamespace(federation=lambda: SimpleNamespace(terms=terms))
        stage = SimpleNamespace(node=lambda _: self.node, coordinator=federation)
        return rows_paid_for(cast(Stage, stage), "shop", 1)


@pytest.fixture
def world(tmp_path: Path, catalog: ItemCatalog, monkeypatch: pytest.MonkeyPatch) -> Any:
    found = World(tmp_path, catalog, monkeypatch)
    yield found
    found.store.close()


def test_rows_are_found_though_more_came_since(world: World) -> None:
    world.add("anna", 3, 1)
    world.pay(lambda: world.add("carl", 7))
    world.add("bert", 2, 4)
    found = world.found()
    assert found is not None
    assert (found.noted, found.seq, found.holds([3, 1]), found.holds([7]), found.holds([2, 4])) == (
        3,
        2,
        True,
        *2 * [False],
    )
    assert (seq_of(world.node, "e5"), seq_of(world.node, "never told")) == (5, 0)


def test_other_rows_than_those_that_were_paid_for_are_not_found(world: World) -> None:
    world.add("anna", 3, 1)
    world.add("bert", 2)
    world.pay()
    world.store.of("default").users.remove("bert")
    assert world.found() is None


class Answers(httpx.MockTransport):
    """One status for everything; 0: nobody answers."""

    def __init__(self, status: int) -> None:
        super().__init__(self._answer)
        self.status = status

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if not self.status:
            raise httpx.ConnectError("refused")
        told = {"items": [{"id": "1"}], "ranking": "r"}
        return httpx.Response(self.status, json=told)


@pytest.mark.parametrize(
    ("status", "is_down", "is_fault"), [(200, False, False), (503, False, True), (0, False, True), (0, True, False)]
)
def test_visitors_note_what_nobody_should_see(tmp_path: Path, status: int, is_down: bool, is_fault: bool) -> None:
    shop = Shop(cast(Node, SimpleNamespace(settings=SimpleNamespace(name="shop"))), "http://shop", "k", "a")
    shop._client = httpx.Client(base_url="http://shop", transport=Answers(status))
    visitors = Visitors({"shop": shop}, {"shop": ["anna"]})
    visitors.down |= {"shop"} if is_down else set()
    with visitors:
        deadline = time.monotonic() + 20
        while not visitors.statuses and time.monotonic() < deadline:
            time.sleep(0.01)
    shop.close()
    assert visitors.statuses
    assert bool(visitors.faults) == is_fault


def test_a_process_that_outlives_the_first_one_is_seen(tmp_path: Path) -> None:
    child = "import time; time.sleep(60)"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    actor = Actor("shop", tmp_path / "shop", [sys.executable, "-c", parent])
    actor.start()
    try:
        deadline = time.monotonic() + 20
        while actor.left_over() < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        actor.kill_first()
        assert actor.left_over() == 1
    finally:
        actor.kill()


def test_serving_is_rehearsed_alone() -> None:
    with pytest.raises(ConfigError, match="rehearsal of its own"):
        rehearse(serve=True, pages=True)


def test_a_shop_that_gets_no_list_says_who_and_where_to_look(tmp_path: Path) -> None:
    shop = Shop(cast(Node, SimpleNamespace(settings=SimpleNamespace(name="shop"))), "http://shop", "k", "a")
    shop._client = httpx.Client(base_url="http://shop", transport=Answers(500))
    with pytest.raises(RunError, match="shop: GET answers 500"):
        shop.told("GET", "/v1/recommend/anna")
    shop.close()


def test_a_process_that_has_just_ended_has_its_code() -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    assert _code_of(cast(Actor, SimpleNamespace(process=process))) == 3
    with subprocess.Popen(["sleep", "60"]) as running:
        assert _code_of(cast(Actor, SimpleNamespace(process=running))) is None
        running.kill()
