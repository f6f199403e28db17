"""Empty databases of every kind that our state may lie in: SQLite always, PostgreSQL where installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from fedrec_client.serving.store.store import ServingStore, TenantStore
from fedrec_client.serving.store.writer import Writer
from tests.postgres import cluster, installed


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of the machine's own."""
    with cluster(installed()) as running:
        yield running.url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty database is to be had."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.sqlite'}"
    found: str = request.getfixturevalue("empty_postgres")
    return found


@pytest.fixture
def empty_postgres(postgres: str) -> Iterator[str]:
    """The same, for one test."""
    yield postgres
    engine = create_engine(postgres)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[ServingStore]:
    opened = ServingStore.open(url)
    yield opened
    opened.close()


@pytest.fixture
def shop(store: ServingStore) -> TenantStore:
    return store.of("shop")


@pytest.fixture
def writer(store: ServingStore) -> Iterator[Writer]:
    opened = store.writer()
    yield opened
    opened.close()
