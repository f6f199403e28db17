"""One suite over every graph that finds candidates, held against looking at every item."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from fedrec.recommend.index import GraphIndex, ItemGraph, best
from fedrec.recommend.live_model import Floats
from fedrec_client.serving.store.postgres_graph import PostgresGraph
from fedrec_client.serving.store.store import ServingStore

RNG = np.random.default_rng(0)
N, WIDTH = 1500, 12
ROWS = (RNG.normal(size=(N, WIDTH)) * np.linspace(1, 0.2, WIDTH)).astype(np.float32)
ROWS[:, -1] = RNG.normal(-8, 2, N)  # as a popularity prior: items are of very different length
USERS = np.concatenate([RNG.normal(size=(40, WIDTH - 1)) * 3, np.ones((40, 1))], 1).astype(np.float32)
FEW = ROWS[:60]


class Place(Protocol):
    """Where graphs are kept."""

    def process(self) -> Callable[[Floats], ItemGraph | None]:
        """What makes or finds graphs, as a process does that has just begun."""

    def kept(self) -> set[object]:
        """The graphs that are kept, each by what is another after it was made anew."""


class Files:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def process(self) -> Callable[[Floats], ItemGraph | None]:
        return partial(GraphIndex, folder=self._folder, threads=1)

    def kept(self) -> set[object]:
        return {(path.name, path.stat().st_ino) for path in self._folder.glob("*.usearch")}


class Tables:
    def __init__(self, url: str, stack: ExitStack) -> None:
        self._url, self._stack = url, stack
        self._store = self._opened()

    def _opened(self) -> ServingStore:
        store = ServingStore.open(self._url)
        self._stack.callback(store.close)
        return store

    def process(self) -> Callable[[Floats], ItemGraph | None]:
        store = self._opened()
        assert store.graphs_available() == "ready"
        return partial(PostgresGraph.of, store.graphs("shop"))

    def kept(self) -> set[object]:
        found = "SELECT relname, oid FROM pg_class WHERE relname LIKE 'item\\_graph\\_%%' AND relkind = 'r'"
        with self._store._database.begin() as connection:
            return {tuple(row) for row in connection.exec_driver_sql(found)}


@pytest.fixture(params=["usearch", "pgvector"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "usearch":
        yield Files(tmp_path)
        return
    with ExitStack() as stack:
        yield Tables(request.getfixturevalue("pgvector"), stack)


def made(place: Place, rows: Floats) -> ItemGraph:
    graph = place.process()(rows)
    assert graph is not None
    return graph


def recall(graph: ItemGraph, rows: Floats) -> float:
    found = 0
    for user in USERS:
        exact = best(rows @ user, np.ones(len(rows), bool), 10)
        found += len(set(exact.tolist()) & set(graph.candidates(user, 100, 200).tolist()))
    return found / (10 * len(USERS))


def test_it_finds_the_largest_inner_products_though_items_differ_in_length(place: Place) -> None:
    graph = made(place, ROWS)
    assert len(graph) == N
    assert recall(graph, ROWS) >= 0.98


def test_candidates_are_few_and_different_and_the_best_come_first(place: Place) -> None:
    graph = made(place, FEW)
    for user in USERS:
        codes = graph.candidates(user, 20, 1)
        assert len(set(codes.tolist())) == len(codes) == 20
        assert codes.dtype == np.int64
        products = FEW[codes] @ user
        assert (np.diff(products) <= 1e-4).all()
        assert codes[0] == np.argmax(FEW @ user)
        assert len(graph.candidates(user, 500, 1)) <= 60


def test_more_may_be_asked_for_than_a_graph_looks_at_by_itself(place: Place) -> None:
    found = made(place, ROWS).candidates(USERS[0], 1200, 1)
    assert len(found) == 1200


def test_items_that_join_are_found_with_the_others(place: Place) -> None:
    graph = made(place, ROWS[:-300])
    for start in range(N - 300, N, 100):
        assert graph.fits(ROWS[start : start + 100])
        graph.add(ROWS[start : start + 100])
    assert len(graph) == N
    assert recall(graph, ROWS) >= 0.98


def test_an_item_that_changes_is_found_by_what_it_is_now(place: Place) -> None:
    graph, rows, user = made(place, FEW), FEW.copy(), USERS[0]
    order = np.argsort(-(FEW @ user))
    top, last = int(order[0]), int(order[-1])
    rows[[top, last]] = rows[[last, top]]
    graph.change([top, last], rows[[top, last]])
    assert graph.candidates(user, 3, 50)[0] == last
    assert top not in graph.candidates(user, 20, 50)
    graph.add(FEW[top : top + 1])
    rows = np.concatenate([rows, FEW[last : last + 1]])
    graph.change([60, last], rows[[60, top]])  # one that joined, and one for the second time
    assert not {60, last, top} & set(graph.candidates(user, 20, 50).tolist())
    assert len(graph) == 61


def test_what_does_not_fit_is_refused_and_changes_nothing(place: Place) -> None:
    graph = made(place, FEW)
    many = np.tile(FEW * 100, (100, 1))
    before = graph.candidates(USERS[0], 10, 50).tolist()
    assert not graph.fits(many)
    with pytest.raises(ValueError, match="than this"):
        graph.add(many)
    with pytest.raises(ValueError, match="than this"):
        graph.change(range(60), np.tile(FEW * 100, (200, 1)))
    assert len(graph) == 60
    assert graph.candidates(USERS[0], 10, 50).tolist() == before


def test_a_restart_finds_it_again(place: Place) -> None:
    made(place, ROWS)
    kept = place.kept()
    again = made(place, ROWS)
    assert place.kept() == kept
    assert recall(again, ROWS) >= 0.98


def test_other_rows_are_another_graph(place: Place) -> None:
    one, kept = made(place, FEW), place.kept()
    other = made(place, -FEW)
    assert not kept & place.kept() or len(place.kept()) == 2
    for user in USERS[:5]:
        assert one.candidates(user, 1, 50)[0] == np.argmax(FEW @ user)
        assert other.candidates(user, 1, 50)[0] == np.argmax(-FEW @ user)


def test_two_processes_that_begin_at_once_end_with_one_graph(place: Place) -> None:
    found: list[ItemGraph] = []

    def begin(make: Callable[[Floats], ItemGraph | None]) -> None:
        while (graph := make(ROWS)) is None:  # the other makes it
            pass
        found.append(graph)

    threads = [threading.Thread(target=begin, args=(place.process(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [recall(graph, ROWS) >= 0.98 for graph in found] == [True, True]
    assert len(place.kept()) == 1


def test_what_joins_in_one_process_is_not_in_the_other(place: Place) -> None:
    one, other = made(place, FEW), made(place, FEW)
    user, products = USERS[0], FEW @ USERS[0]
    one.add(FEW[np.argmax(products)][None])
    other.add(FEW[np.argmin(products)][None])
    assert 60 in one.candidates(user, 2, 50)
    assert 60 not in other.candidates(user, 2, 50)
