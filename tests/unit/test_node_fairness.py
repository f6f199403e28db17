"""`flower-client fairness`: charged by a real ledger before a list is read, refused where it does not reach, right."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedrec.errors import BudgetError, ConfigError, LedgerError
from fedrec.invitation import Invitation
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.recommend.shelf import Item
from fedrec_client import fairness
from fedrec_client.cli import app
from fedrec_client.serving.records import Event, Shown, User
from fedrec_client.serving.settings import read_serving
from fedrec_client.serving.store.shown_book import confirm_shown
from fedrec_client.serving.store.store import ServingStore, TenantStore, store_url
from fedrec_client.settings import Node, make_node

HASH = "0" * 64
OLD_S, PEOPLE = 3 * 3600.0, 120


def ledger_of(node: Node, epsilon: float) -> PrivacyLedger:
    settings = {"budget_epsilon": epsilon, "budget_delta": 1e-5}
    return PrivacyLedger.create(node.ledger, partner="shop", dataset="data", **settings)


def fill(books: TenantStore) -> None:
    """Made people: women, every second, are shown "b" and click nothing; men are shown "a" and click it."""
    now = time.time()
    brands = {"a": "north", "b": "south"}
    books.items.put([Item(name, name, categories=(name.upper(),), fields={"brand": of}) for name, of in brands.items()])
    lists, events = [], []
    for at in range(PEOPLE):
        user, item = f"u{at}", "ba"[at % 2]
        books.users.put([User(user, {"gender": "fm"[at % 2]})])
        lists.append(Shown(f"old {at}", user, "", now - 2 * OLD_S, "default", "round-1", ("gone",)))
        lists.append(Shown(f"new {at}", user, "", now - OLD_S, "default", "round-1", (item,)))
        lists.append(Shown(f"late {at}", user, "", now, "default", "round-1", ("b" if item == "a" else "a",)))
        events.append(Event("like", item, user, timestamp=now - OLD_S + 1, ranking=f"new {at}") if at % 2 else None)
    lists.append(Shown("nobody's", "", "session", now - OLD_S, "default", "round-1", ("a",)))
    books.shown.add(lists)
    books.events.add([one for one in events if one])
    books.events.add([Event("dislike", "b", "u0", timestamp=now - OLD_S + 1, ranking="new 0")])


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node that has served."""
    made = make_node(tmp_path / "node", Invitation("localhost:8443", "shop", "s" * 20, HASH, HASH), b"PEM", 9094)
    store = ServingStore.open(store_url(made.serving, read_serving(made.serving).store.database))
    fill(store.of("default"))
    store.close()
    return made


def run(node: Node, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["fairness", *arguments, "--dir", str(node.folder)])


def test_what_is_told_is_right_and_paid_once_for_each_time(node: Node) -> None:
    ledger = ledger_of(node, 100.0)
    asked = ("--epsilon", "40", "--people", "gender=f,m", "--items", "category", "--items", "brand")
    told = json.loads(run(node, *asked, "--json").stdout)
    assert (told["epsilon"], told["delta"], told["unit"], told["metric"]) == (40.0, 1e-5, "user", "click@10")
    assert "Gaussian" in told["mechanism"]
    assert told["noise_std"] > 0.1
    assert told["sensitivity"] == pytest.approx((2 * 0.25 + 0.35**2 + 1) ** 0.5)
    groups = told["quality_by_group"]["gender"]["groups"]
    assert groups["f"]["mean"] == pytest.approx(0.0, abs=0.1)  # a dislike is no click
    assert groups["m"]["mean"] == pytest.approx(1.0, abs=0.1)
    assert groups["m"]["people"] == pytest.approx(PEOPLE / 2, abs=12)
    assert groups["other"] == {"is_shown": False}
    for name, first in (("category", "A"), ("brand", "north")):
        assert told["exposure"][name]["groups"][first]["share"] == pytest.approx(0.5, abs=0.1)
    spent = ledger.spent()[0]
    assert spent == pytest.approx(40.0, abs=0.1)
    assert told["epsilon_left"] == pytest.approx(100.0 - spent, abs=0.01)
    again = run(node, *asked)
    assert ledger.spent()[0] > spent + 10
    assert all(word in again.stdout for word in ("quality by gender", "exposure by brand", "too few people", "paid"))
    (first, second) = ledger.chain().released.values()
    assert first.content != second.content, "each time with noise of its own"


def test_somebody_else_moves_nobodys_row(node: Node) -> None:
    store = ServingStore.open(store_url(node.serving, read_serving(node.serving).store.database))
    books, at, writer = store.of("default"), time.time() - OLD_S, store.writer()
    books.shown.add([Shown("hers", "mallory", "m", at, "default", "round-1", ("b",))])
    likes = [Event("like", "b", "mallory", "m", timestamp=at + 1, ranking=f"new {n}") for n in range(0, 10, 2)]
    books.events.add(likes)
    taken = [
        Shown(f"new {n}", "mallory", "m", at + 2, "given", "none", ("gone", "b"), ("given",) * 2) for n in range(5)
    ]
    writer.submit(lambda connection: confirm_shown(connection, "default", taken)).result()
    books.shown.add(taken)
    both = [replace(taken[0], id="u0's", user="u0", at=at + 3), replace(taken[0], id="u0's", items=("b", "a"))]
    writer.submit(lambda connection: confirm_shown(connection, "default", both)).result()
    books.shown.add([replace(both[0], id="u1's", user="u1"), replace(both[1], id="u1's")])

    def rows() -> dict[str, tuple[Shown, frozenset[str]]]:
        found = books.clicks.newest_of_each(0.0, at + 60, lambda kind, _: kind == "like")
        return {user: row for user, row in found.items() if user != "mallory"}

    before = rows()
    assert [before[f"u{n}"][0].items for n in range(3)] == [("gone", "b"), ("gone", "b"), ("b",)]
    assert [bool(before[f"u{n}"][1]) for n in range(2, 10)] == [False, True] * 4
    books.users.remove("mallory")
    assert rows() == before
    writer.close()
    store.close()


def test_a_nameless_event_answers_a_list_of_its_session_alone(node: Node) -> None:
    store = ServingStore.open(store_url(node.serving, read_serving(node.serving).store.database))
    books, at = store.of("default"), time.time() - OLD_S
    books.shown.add([Shown(name, name, f"of {name}", at, "default", "round-1", ("b",)) for name in ("v", "w")])
    books.events.add([Event("like", "b", "", "of v", timestamp=at + 7200, ranking=name) for name in ("v", "w")])
    found = books.clicks.newest_of_each(0.0, at + 60, lambda kind, _: kind == "like")
    assert (found["v"][1], found["w"][1]) == ({"b"}, frozenset())
    store.close()


def test_where_the_budget_does_not_reach_nothing_is_read_or_told(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ledger_of(node, 1.0)
    monkeypatch.setattr(fairness, "_read", lambda *_: pytest.fail("read"))
    result = run(node, "--epsilon", "1.5", "--json")
    assert isinstance(result.exception, BudgetError)
    assert result.stdout == ""
    assert ledger.chain().reserved == {}


def test_to_ask_what_it_costs_costs_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ledger_of(node, 1.0)
    monkeypatch.setattr(fairness, "_read", lambda *_: pytest.fail("read"))
    told = json.loads(run(node, "--epsilon", "2", "--cost", "--json").stdout)
    assert (told["is_paid"], told["epsilon_left"], ledger.spent()[0]) == (False, 1.0, 0.0)
    assert "exposure" not in told
    assert "nothing was paid, and nothing of people read" in run(node, "--epsilon", "2", "--cost").stdout
    assert ledger.chain().reserved == {}
    help_of = CliRunner().invoke(app, ["fairness", "--help"], env={"COLUMNS": "200"}).stdout
    assert "read nothing of people" in help_of


def test_a_process_that_dies_once_it_may_read_has_paid(node: Node) -> None:
    ledger = ledger_of(node, 2.5)  # two of 2 come to 2.8 together
    dying = (
        "import os, sys; from fedrec_client import fairness; fairness._read = lambda *_: os._exit(9); "
        "from fedrec_client.cli import app; app(sys.argv[1:])"
    )
    command = [sys.executable, "-c", dying, "fairness", "--epsilon", "2", "--dir", str(node.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (9, "")
    chain = ledger.chain()
    assert (len(chain.reserved), len(chain.released)) == (1, 0)
    assert ledger.spent()[0] == pytest.approx(2.0, abs=0.02)
    assert isinstance(run(node, "--epsilon", "2").exception, BudgetError)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--people", "gender"], "no label with values"),
        (["--people", "gender=f,f"], "no label with values"),
        (["--people", "gender=f", "--people", "gender=m"], "no label with values"),
        (["--items", "price"], "no item has this field"),
        (["--tenant", "elsewhere"], "no tenant"),
        (["--days", "nan"], "--days nan"),
        (["--epsilon", "nan"], "--epsilon nan"),
    ],
)
def test_a_wrong_question_costs_nothing(node: Node, arguments: list[str], words: str) -> None:
    ledger = ledger_of(node, 1.0)
    result = run(node, "--epsilon", "0.5", *arguments)
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)
    assert ledger.chain().reserved == {}


def test_without_a_ledger_or_a_service_there_are_no_figures(node: Node) -> None:
    assert isinstance(run(node, "--epsilon", "1").exception, LedgerError)
    ledger_of(node, 1.0)
    (node.serving / "serving.sqlite").unlink()
    result = run(node, "--epsilon", "0.5")
    assert "no service has run here" in str(result.exception)
