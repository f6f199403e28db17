"""Empty databases of every kind that our state may lie in: SQLite always, PostgreSQL where installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from fedrec_client.serving.store.store import ServingStore, TenantStore
from fedrec_client.serving.store.writer import Writer

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of our own, on a socket, gone afterwards."""
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(f"/tmp/fedrec-postgres-{os.getpid()}")
    folder.mkdir()
    try:
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses to run as root
        if as_user:
            shutil.chown(folder, "postgres")
        data, log = folder / "data", folder / "log"

        def run(*words: str) -> None:
            subprocess.run([*as_user, *words], check=True, capture_output=True, cwd="/")

        run(str(BINARIES[-1] / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run(str(BINARIES[-1] / "pg_ctl"), "-D", str(data), "-l", str(log), "-o", options, "-w", "start")
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            run(str(BINARIES[-1] / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where an empty database is to be had."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'state.sqlite'}"
        return
    found = request.getfixturevalue("postgres")
    yield found
    engine = create_engine(found)
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
