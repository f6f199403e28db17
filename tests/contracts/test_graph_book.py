"""Graphs in PostgreSQL: refused in words where they cannot be, whole or not there, dropped once nobody needs them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from fedrec.errors import ConfigError, StorageError
from fedrec.recommend.index import EqualLengths, GraphIndex
from fedrec.recommend.live_model import Floats
from fedrec_client.serving.graphs import Graphs
from fedrec_client.serving.store import graph_book
from fedrec_client.serving.store.graph_book import GraphBook, GraphGoneError
from fedrec_client.serving.store.postgres_graph import PostgresGraph
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.store.tables import METADATA, is_migrated
from tests.postgres import Cluster

RNG = np.random.default_rng(1)
ROWS = RNG.normal(size=(50, 4)).astype(np.float32)


def unlike(n: int) -> Floats:
    return ROWS + np.float32(n)


@pytest.fixture
def opened(pgvector: str) -> Iterator[ServingStore]:
    store = ServingStore.open(pgvector)
    yield store
    store.close()


@pytest.fixture
def book(opened: ServingStore) -> GraphBook:
    assert opened.graphs_available() == "ready"
    return opened.graphs("shop")


def tables(store: ServingStore) -> set[str]:
    with store._database.begin() as connection:
        found = "SELECT relname FROM pg_class WHERE relname LIKE 'item\\_graph\\_%' AND relkind = 'r'"
        return {name for (name,) in connection.execute(text(found))}


def names(store: ServingStore) -> set[str]:
    with store._database.begin() as connection:
        return {name for (name,) in connection.execute(text("SELECT name FROM item_graphs"))}


def made(store: ServingStore) -> list[object]:
    with store._database.begin() as connection:
        return list(connection.execute(text("SELECT made_at FROM item_graphs")).scalars().all())


def unused(store: ServingStore) -> None:
    with store._database.write() as connection:
        connection.execute(text("UPDATE item_graphs SET used_at = used_at - interval '11 minutes'"))


def test_a_store_in_a_file_has_none(tmp_path: Path) -> None:
    store = ServingStore.open(store_url(tmp_path, "sqlite"))
    with pytest.raises(ConfigError, match=r"model\.index = \"pgvector\", but the store is not in Post[^\n]*\n.*auto"):
        Graphs.choose("pgvector", store, tmp_path)
    for index in ("auto", "usearch"):
        graphs = Graphs.choose(index, store, tmp_path)  # type: ignore[arg-type]
        assert isinstance(graphs.of("shop", 4)(ROWS), GraphIndex)
        graphs.close()
    store.close()


def test_a_server_without_pgvector_is_told(empty_postgres: str, tmp_path: Path) -> None:
    store = ServingStore.open(empty_postgres)
    with pytest.raises(ConfigError, match=r"does not have pgvector\n.*install pgvector 0\.8"):
        Graphs.choose("pgvector", store, tmp_path)
    assert Graphs.choose("auto", store, tmp_path).index == "usearch"
    store.close()


def test_a_user_who_may_not_install_it_is_told_and_one_who_finds_it_there_needs_no_more(
    pgvector: str, pgvector_cluster: Cluster, tmp_path: Path
) -> None:
    database = pgvector.partition("@/")[2].partition("?")[0]
    user = f"user_{database}"
    pgvector_cluster.sql(f"CREATE ROLE {user} LOGIN")
    try:
        pgvector_cluster.sql(f"GRANT ALL ON SCHEMA public TO {user}", database=database)
        store = ServingStore.open(pgvector.replace("postgres@", f"{user}@"))
        with pytest.raises(ConfigError, match="CREATE EXTENSION vector"):
            Graphs.choose("pgvector", store, tmp_path)
        assert Graphs.choose("auto", store, tmp_path).index == "usearch"
        pgvector_cluster.sql("CREATE EXTENSION vector", database=database)
        graph = Graphs.choose("auto", store, tmp_path).of("shop", 4)(ROWS)
        assert graph is not None
        assert graph.candidates(ROWS[0], 1, 50)[0] == np.argmax(ROWS @ ROWS[0])
        store.close()
    finally:
        pgvector_cluster.sql(f"DROP OWNED BY {user} CASCADE", database=database)
        pgvector_cluster.sql(f"DROP ROLE {user}")


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'", "older than 0.8"),
        ("ALTER EXTENSION vector SET SCHEMA aside", "search_path"),
    ],
)
def test_an_extension_that_cannot_be_used_is_told(opened: ServingStore, tmp_path: Path, sql: str, problem: str) -> None:
    assert opened.graphs_available() == "ready"
    with opened._database.write() as connection:
        connection.execute(text("CREATE SCHEMA aside"))
        connection.execute(text(sql))
    with pytest.raises(ConfigError, match=problem):
        Graphs.choose("pgvector", opened, tmp_path)


def test_wide_items_are_held_in_half_precision_and_wider_ones_refused(opened: ServingStore, tmp_path: Path) -> None:
    graphs = Graphs.choose("pgvector", opened, tmp_path)
    wide = RNG.normal(size=(30, 3999)).astype(np.float32)
    for width in (1999, 2000, 3999):
        graph = graphs.of("shop", width)(wide[:, :width])
        assert isinstance(graph, PostgresGraph)
        for row in wide[:5, :width]:
            assert graph.candidates(row, 1, 50)[0] == np.argmax(wide[:, :width] @ row)
    with pytest.raises(ConfigError, match=r"4000 numbers wide\n.*3999"):
        graphs.of("shop", 4000)
    assert isinstance(Graphs.choose("auto", opened, tmp_path).of("shop", 4000)(ROWS), GraphIndex)


def stops(*_: object) -> None:
    raise StorageError("given up")


def is_killed(connection: Connection, *_: object) -> None:
    connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


@pytest.mark.parametrize("happens", [stops, is_killed])
def test_of_a_graph_that_was_not_finished_nothing_is_left(
    book: GraphBook, opened: ServingStore, monkeypatch: pytest.MonkeyPatch, happens: Callable[..., None]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(graph_book, "_copy", happens)
        with pytest.raises(StorageError):
            PostgresGraph.of(book, ROWS)
    assert names(opened) == set()
    assert tables(opened) == set()
    assert PostgresGraph.of(book, ROWS) is not None
    assert len(names(opened)) == len(tables(opened)) == 1


def test_what_the_database_refuses_to_copy_is_a_storage_error(book: GraphBook, opened: ServingStore) -> None:
    rows = ROWS.copy()
    rows[0, 0] = np.nan
    with pytest.raises(StorageError, match="cannot be copied: DataException"):
        PostgresGraph.of(book, rows)
    assert tables(opened) == set()


def test_while_another_process_makes_it_nobody_waits(book: GraphBook, opened: ServingStore) -> None:
    assert PostgresGraph.of(book, unlike(1)) is not None
    (name,) = names(opened)
    with opened._database.write() as connection:
        connection.execute(text("DELETE FROM item_graphs"))
        connection.execute(text(f"DROP TABLE item_graph_{name}"))
    with opened._database.write() as connection:
        lock = "SELECT pg_advisory_xact_lock(:space, hashtext(:table))"
        connection.execute(text(lock), {"space": graph_book._LOCKS, "table": f"item_graph_{name}"})
        assert PostgresGraph.of(book, unlike(1)) is None
        assert PostgresGraph.of(book, unlike(2)) is not None
    assert PostgresGraph.of(book, unlike(1)) is not None


@pytest.mark.parametrize(
    "broken",
    [
        "DROP TABLE {table}",
        "DROP INDEX {index}",
        "ALTER TABLE {table} DROP COLUMN v",
        "ALTER TABLE {table} RENAME COLUMN v TO w",
        "TRUNCATE {table}",
        "DROP EXTENSION vector CASCADE; CREATE EXTENSION vector",
        "DELETE FROM item_graphs",
        "DROP TABLE item_graphs",
    ],
)
def test_one_that_is_listed_and_broken_is_made_anew_once(book: GraphBook, opened: ServingStore, broken: str) -> None:
    assert PostgresGraph.of(book, ROWS) is not None
    (table,) = tables(opened)
    with opened._database.write() as connection:
        for sql in broken.format(table=table, index=f"{table}_v_idx").split(";"):
            connection.execute(text(sql))
    for _ in range(2):
        graph = PostgresGraph.of(book, ROWS)
        assert graph is not None
        assert graph.candidates(ROWS[0], 1, 50)[0] == np.argmax(ROWS @ ROWS[0])
        assert (tables(opened), len(names(opened))) == ({table}, 1)


@pytest.mark.parametrize(
    "broken", ["DROP TABLE {table}", "ALTER TABLE {table} DROP COLUMN v", "DROP INDEX {table}_v_idx"]
)
def test_a_search_in_one_that_broke_says_so_and_does_not_keep_it(
    book: GraphBook, opened: ServingStore, broken: str
) -> None:
    graph = PostgresGraph.of(book, ROWS)
    assert graph is not None
    (name,) = names(opened)
    with opened._database.write() as connection:
        connection.execute(text(broken.format(table=f"item_graph_{name}")))
    graph._touched -= 61.0
    with pytest.raises(GraphGoneError):
        graph.candidates(ROWS[0], 1, 1)
    assert book.made_at(name) is None


def test_an_emptied_one_is_no_answer(book: GraphBook, opened: ServingStore) -> None:
    graph = PostgresGraph.of(book, ROWS)
    assert graph is not None
    (table,) = tables(opened)
    with opened._database.write() as connection:
        connection.execute(text(f"TRUNCATE {table}"))
    with pytest.raises(GraphGoneError):
        graph.candidates(ROWS[0], 1, 1)


@pytest.mark.parametrize("away", ["pg_sleep(30)", "1 / 0"])
def test_a_search_that_says_nothing_of_the_graph_leaves_it(
    book: GraphBook, opened: ServingStore, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    assert PostgresGraph.of(book, ROWS) is not None
    before = made(opened)
    with monkeypatch.context() as patch:
        sql = f"SELECT CAST(:vector AS text), CAST(:k AS int), {away}"
        patch.setattr(graph_book, "search_sql", lambda *_: sql)
        with pytest.raises(StorageError):
            PostgresGraph.of(book, ROWS)
    assert PostgresGraph.of(book, ROWS) is not None
    assert made(opened) == before


def test_one_that_was_made_meanwhile_is_not_taken_for_the_broken_one(book: GraphBook, opened: ServingStore) -> None:
    assert PostgresGraph.of(book, ROWS) is not None
    (name,) = names(opened)
    broken, rows = book.made_at(name), EqualLengths.of(ROWS).augmented(ROWS)
    assert book.make(name, rows, broken)
    again = made(opened)
    assert book.made_at(name) != broken
    assert book.make(name, rows, broken)
    assert made(opened) == again


def test_the_newest_two_stay_and_an_older_one_while_it_is_used(book: GraphBook, opened: ServingStore) -> None:
    graphs = []
    for n in range(2):
        graphs.append(PostgresGraph.of(book, unlike(n)))
        unused(opened)
    first, second = sorted(names(opened), key=lambda name: name != graphs[0]._name)  # type: ignore[union-attr]
    third = PostgresGraph.of(book, unlike(2))
    assert third is not None
    assert names(opened) == {second, third._name}
    assert tables(opened) == {f"item_graph_{name}" for name in names(opened)}
    graphs[1].candidates(ROWS[0], 1, 1)  # type: ignore[union-attr]
    assert PostgresGraph.of(book, unlike(3)) is not None
    assert second not in names(opened)  # nobody said that it was used
    with pytest.raises(GraphGoneError):
        graphs[1].candidates(ROWS[0], 1, 1)  # type: ignore[union-attr]
    unused(opened)
    third._touched -= 61.0
    third.candidates(ROWS[0], 1, 1)
    assert PostgresGraph.of(book, unlike(4)) is not None
    assert third._name in names(opened)
    assert first not in names(opened)


def test_rows_lie_there_equally_long(book: GraphBook, opened: ServingStore) -> None:
    """Without that the graph misses far more, which a few made rows do not show."""
    assert PostgresGraph.of(book, ROWS * RNG.exponential(size=(50, 1)).astype(np.float32)) is not None
    (name,) = names(opened)
    with opened._database.begin() as connection:
        lengths = connection.execute(text(f"SELECT vector_norm(v) FROM item_graph_{name}")).scalars().all()
    np.testing.assert_allclose(lengths, max(lengths), rtol=1e-5)


@pytest.mark.parametrize("kind", graph_book.KINDS)
def test_a_search_goes_by_the_graph_and_looks_at_no_row(
    book: GraphBook, opened: ServingStore, kind: graph_book.Kind
) -> None:
    rows = RNG.normal(size=(30, kind.widest - 1)).astype(np.float32)
    assert PostgresGraph.of(book, rows) is not None
    (name,) = names(opened)
    asked = {"vector": str(np.zeros(kind.widest).tolist()), "k": 5}
    with opened._database.begin() as connection:
        connection.execute(graph_book.SEARCHING, {"effort": "100"})
        sql = graph_book.search_sql(graph_book.table_of(name), kind)
        plan = connection.execute(text(f"EXPLAIN (COSTS OFF, VERBOSE OFF) {sql}"), asked).scalars().all()
    assert plan[1].strip().startswith("->  Index Scan using item_graph_")


def test_tenants_have_graphs_of_their_own(opened: ServingStore, book: GraphBook) -> None:
    other = opened.graphs("music")
    one, two = PostgresGraph.of(book, ROWS), PostgresGraph.of(other, ROWS)
    assert one is not None
    assert two is not None
    unused(opened)
    for n in range(1, 4):
        PostgresGraph.of(other, unlike(n))
    assert one.candidates(ROWS[0], 1, 50)[0] == np.argmax(ROWS @ ROWS[0])


def test_the_migrations_do_not_answer_for_them(opened: ServingStore, book: GraphBook) -> None:
    PostgresGraph.of(book, ROWS)
    with opened._database.begin() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": is_migrated})
        assert compare_metadata(context, METADATA) == []
    again = ServingStore.open(str(opened._database._engine.url))
    assert again.graphs("shop").made_at(next(iter(names(opened)))) is not None
    again.close()
