"""The driver's loop where rounds wait for wishes, with a real state database; what a round is, others test."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedrec.data.catalog import ItemCatalog, write_catalog
from fedrec_server.rounds import driver as under_test
from fedrec_server.rounds.driver import Driver
from fedrec_server.settings import Coordinator, make_coordinator
from fedrec_server.state.partner_book import PartnerBook
from fedrec_server.state.round_book import RoundBook
from fedrec_sim.rehearsal.federations import sums_federation

PORTS = {"GATEWAY_PORT": 8443, "SUPERLINK_PORT": 9191, "ADMIN_PORT": 8444}
NAMES = ("anna", "bert")
_LATER_S = 0.005  # moments are told in milliseconds


class Rounds:
    """A driver that runs, and rounds that are committed as soon as they begin, or as `attempts` says."""

    def __init__(self, folder: Path) -> None:
        catalog = ItemCatalog(("1",), ("Heat",), ("Heat",), ((),), (1995,))
        write_catalog(catalog, folder / "catalog.parquet")
        made = make_coordinator(folder / "server", name="films", hosts=("localhost",), ports=PORTS)
        path = made.folder / "server.toml"
        path.write_text(path.read_text().replace("on_wish = false", "on_wish = true"))
        self.coordinator = Coordinator(made.folder)
        self.coordinator.use(sums_federation(folder / "catalog.parquet", rounds=9, quorum=2))
        self.partners, self.book = PartnerBook(self.coordinator.database), RoundBook(self.coordinator.database)
        for number, name in enumerate(NAMES):
            secret = self.partners.invite(name, valid_for=timedelta(hours=1), is_approved=True)
            self.partners.enrol(name, secret, node_key=name, signing_key=f"{number:064x}")
            self.partners.set_status(name, "approved", who="test")
            assert self.partners.give_node(name, str(number + 1))
        self.attempts: list[Callable[[], None]] = [lambda: None]
        self.driver = Driver(self.coordinator, self.coordinator.database)

    def one_round(self) -> None:
        run, number = self.driver._run_name(), len(self.book.committed()) + 1
        for attempt, meanwhile in enumerate(self.attempts, start=1):
            self.book.begin(run, number, attempt, "head")
            time.sleep(_LATER_S)
            meanwhile()
            is_last = attempt == len(self.attempts)
            self.book.end(run, number, attempt, status="committed" if is_last else "failed")
        self.attempts = [lambda: None]

    def wish(self, name: str) -> None:
        time.sleep(_LATER_S)
        self.partners.wish(name)

    def settle(self, expected: int) -> None:
        """Wait for so many rounds, and see that no more follow."""
        deadline = time.monotonic() + 20
        while len(self.book.committed()) < expected and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.1)  # ten looks
        assert len(self.book.committed()) == expected


@pytest.fixture
def rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rounds]:
    found: Any = Rounds(tmp_path)
    monkeypatch.setattr(under_test, "_LOOK_S", 0.01)
    monkeypatch.setattr(under_test.Registrar, "run", lambda *_: None)
    for name in ("wait_until_up", "_grid"):
        monkeypatch.setattr(found.driver._control if name == "wait_until_up" else found.driver, name, lambda: None)
    monkeypatch.setattr(found.driver, "_one_round", found.one_round)
    thread = threading.Thread(target=found.driver.run)
    thread.start()
    yield found
    found.driver.stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_nothing_begins_without_a_wish_and_each_wish_brings_one_round(rounds: Rounds) -> None:
    rounds.settle(0)
    rounds.wish("anna")
    rounds.settle(1)
    rounds.wish("bert")
    rounds.settle(2)


def test_a_wish_of_somebody_who_takes_no_part_is_none(rounds: Rounds) -> None:
    rounds.partners.set_status("bert", "suspended", who="test")
    rounds.wish("bert")
    rounds.settle(0)


@pytest.mark.parametrize("when", [0, 1])
def test_a_wish_during_a_round_brings_another_one(rounds: Rounds, when: int) -> None:
    """Partners have read their data for the first attempt: what came before a later one is in none of them."""
    rounds.attempts = [lambda: None, lambda: None]
    rounds.attempts[when] = lambda: rounds.wish("bert")
    rounds.wish("anna")
    rounds.settle(2)
