"""Where tenants' graphs of items lie: a file of this machine (usearch), or the store's PostgreSQL (pgvector)."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fedrec.errors import ConfigError
from fedrec.recommend.index import GraphIndex, ItemGraph
from fedrec.recommend.live_model import Floats
from fedrec_client.serving.settings import IndexName
from fedrec_client.serving.store.graph_book import KINDS, Availability, GraphBook, kind_of
from fedrec_client.serving.store.postgres_graph import PostgresGraph
from fedrec_client.serving.store.store import ServingStore

_log = logging.getLogger(__name__)
# Of the rows of a tenant's items; None: not now, since another process makes the same.
Build = Callable[[Floats], ItemGraph | None]
# Searches at a time that wait for the database; a database that hangs holds these threads and no others.
_SEARCHES = 4
_WORDS: dict[Availability, tuple[str, str]] = {
    "not PostgreSQL": (
        "the store is not in PostgreSQL, or another driver than psycopg reads it",
        'set store.database = "postgresql+psycopg://…", or model.index = "auto"',
    ),
    "not on the server": ("its server does not have pgvector", "install pgvector 0.8 or newer beside PostgreSQL"),
    "not allowed": ("this user may not install it", "let an owner of the database run CREATE EXTENSION vector there"),
    "too old": ("pgvector is older than 0.8", "install a newer one, then run ALTER EXTENSION vector UPDATE"),
    "out of sight": ("its schema is not on the user's search_path", "ALTER ROLE … SET search_path to one that has it"),
}


@dataclass
class Graphs:
    """How a service's tenants get theirs.

    Args:
        folder: of usearch's files, a folder for each tenant.
    Attributes:
        threads: in which graphs that wait are searched.
        builder: a thread of its own, in which they are made one after the other: all tenants' at once would take every
            core and, in a pool that others use, every thread for minutes.
    """

    index: IndexName
    store: ServingStore = field(repr=False)
    folder: Path
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_SEARCHES, "fedrec-graph"), repr=False
    )
    builder: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "fedrec-graph-builder"), repr=False
    )
    _books: list[GraphBook] = field(default_factory=list, repr=False)

    @classmethod
    def choose(cls, index: IndexName, store: ServingStore, folder: Path) -> "Graphs":
        """Settle what "auto" means here. Raises ConfigError: pgvector is asked for and not to be had. StorageError."""
        if index == "usearch":
            return cls(index, store, folder)
        found = store.graphs_available()
        if found == "ready":
            return cls(index, store, folder)
        problem, remedy = _WORDS[found]
        if index == "pgvector":
            raise ConfigError(f'serving.toml: model.index = "pgvector", but {problem}', remedy)
        _log.info("items are indexed by usearch: %s", problem, extra={"event": "index_chosen"})
        return cls("usearch", store, folder)

    def of(self, tenant: str, width: int) -> Build:
        """What makes a tenant's graphs of rows so wide. Raises ConfigError: wider than pgvector takes."""
        if self.index != "usearch" and kind_of(width + 1) is not None:
            book = self.store.graphs(tenant)
            self._books.append(book)
            return partial(PostgresGraph.of, book)
        if self.index == "pgvector":
            raise ConfigError(
                f'serving.toml: model.index = "pgvector", but items are {width} numbers wide',
                f'pgvector takes up to {KINDS[-1].widest - 1}: set model.index = "auto"',
            )
        return partial(GraphIndex, folder=self.folder / tenant)

    def close(self) -> None:
        """Give up what is being made in the database, so that nobody waits minutes for the end."""
        for threads in (self.builder, self.threads):  # first, or the next one would begin
            threads.shutdown(wait=False, cancel_futures=True)
        for book in self._books:
            book.stop()
