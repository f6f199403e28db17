"""A service that ends while a graph is made in PostgreSQL: it is given up, soon, and nobody else is disturbed."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from sqlalchemy import Connection, text

from fedrec.errors import StorageError
from fedrec_client.serving.graphs import Graphs
from fedrec_client.serving.store import graph_book
from fedrec_client.serving.store.graph_book import GraphBook
from fedrec_client.serving.store.postgres_graph import PostgresGraph
from fedrec_client.serving.store.store import ServingStore

ROWS = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)


@pytest.fixture
def opened(pgvector: str) -> Iterator[ServingStore]:
    store = ServingStore.open(pgvector)
    assert store.graphs_available() == "ready"
    yield store
    store.close()


@pytest.fixture
def book(opened: ServingStore) -> GraphBook:
    return opened.graphs("shop")


def has_tables(store: ServingStore) -> bool:
    with store._database.begin() as connection:
        found = "SELECT count(*) FROM pg_class WHERE relname LIKE 'item\\_graph\\_%' AND relkind = 'r'"
        return bool(connection.scalar(text(found)))


def test_a_service_that_ends_gives_up_what_it_makes(book: GraphBook, opened: ServingStore) -> None:
    book.stop()
    with pytest.raises(StorageError, match="given up"):
        PostgresGraph.of(book, ROWS)
    assert not has_tables(opened)


def test_what_a_service_makes_ends_with_it_though_a_cancel_comes_between_two_statements(
    book: GraphBook, opened: ServingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun = threading.Event()

    def fill(connection: Connection, *_: object) -> None:
        has_begun.set()
        time.sleep(0.5)
        connection.execute(text("SELECT pg_sleep(30)"))

    monkeypatch.setattr(book, "_fill", fill)
    with ThreadPoolExecutor(1) as threads:
        making = threads.submit(PostgresGraph.of, book, ROWS)
        assert has_begun.wait(30)
        began = time.monotonic()
        book.stop()
        with pytest.raises(StorageError, match="QueryCanceled"):
            making.result()
    assert time.monotonic() - began < 15
    assert not has_tables(opened)


class Hanging:
    """A connection whose database does not answer a cancel, or answers with an error."""

    def __init__(self, let_go: threading.Event | None = None) -> None:
        self.let_go, self.is_asked, self.n_asked = let_go, threading.Event(), 0

    def cancel_safe(self, *, timeout: float) -> None:
        self.n_asked += 1
        self.is_asked.set()
        if self.let_go is not None:
            self.let_go.wait(timeout)
        raise OSError


def stand_in(driver: Hanging) -> Connection:
    return cast(Connection, SimpleNamespace(connection=SimpleNamespace(driver_connection=driver)))


def test_stopping_ends_though_no_cancel_gets_through(book: GraphBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_book, "_STOPPING_S", 0.3)
    hanging = Hanging()
    with book._cancellable(stand_in(hanging)):
        book.stop()
    assert hanging.n_asked > 1
    book.stop()
    before = hanging.n_asked
    with pytest.raises(StorageError, match="given up"), book._cancellable(stand_in(hanging)):
        pass
    assert hanging.n_asked == before


def test_no_cancel_is_under_way_when_a_connection_goes_to_others(book: GraphBook) -> None:
    hanging = Hanging(threading.Event())
    with ThreadPoolExecutor(1) as threads:
        with book._cancellable(stand_in(hanging)):
            stopping = threads.submit(book.stop)
            assert hanging.is_asked.wait(30)
            began = time.monotonic()
        assert 0.5 < time.monotonic() - began < 15  # until the cancel was given up
        stopping.result()
    assert hanging.n_asked == 1


def test_graphs_are_made_one_after_the_other_and_none_after_the_end(opened: ServingStore, tmp_path: Path) -> None:
    graphs = Graphs.choose("auto", opened, tmp_path)
    hanging, has_begun = Hanging(), threading.Event()

    def make(book: GraphBook) -> None:
        with book._cancellable(stand_in(hanging)):
            has_begun.set()
            assert hanging.is_asked.wait(30)

    books = [graphs.of(name, 4).args[0] for name in ("shop", "music")]  # type: ignore[attr-defined]
    first, second = (graphs.builder.submit(make, book) for book in books)
    assert has_begun.wait(30)
    graphs.close()
    first.result(30)
    assert second.cancelled()
