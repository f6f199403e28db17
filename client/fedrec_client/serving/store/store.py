"""What serving remembers, in SQLite by default, in PostgreSQL by one line."""

from dataclasses import dataclass
from pathlib import Path

from fedrec.database import Database, Schema
from fedrec_client.serving.store.audit_book import AuditBook
from fedrec_client.serving.store.block_book import BlockBook
from fedrec_client.serving.store.click_book import ClickBook
from fedrec_client.serving.store.event_book import EventBook
from fedrec_client.serving.store.event_log import EventLog
from fedrec_client.serving.store.graph_book import Availability, GraphBook, availability
from fedrec_client.serving.store.item_book import ItemBook
from fedrec_client.serving.store.key_book import KeyBook
from fedrec_client.serving.store.learned_book import LearnedBook
from fedrec_client.serving.store.opinion_book import OpinionBook
from fedrec_client.serving.store.reading_book import ReadingBook
from fedrec_client.serving.store.review_book import ReviewBook
from fedrec_client.serving.store.rule_book import RuleBook
from fedrec_client.serving.store.shown_book import ShownBook
from fedrec_client.serving.store.support_book import SupportBook
from fedrec_client.serving.store.user_book import UserBook
from fedrec_client.serving.store.vector_book import VectorBook
from fedrec_client.serving.store.writer import Writer

SCHEMA = Schema(
    "fedrec_client.serving.store:migrations",
    whose="the serving store's",
    key="store.database",
    file="serving.toml",
    is_whole=True,
    secure_delete=True,
)


@dataclass(frozen=True, repr=False)
class TenantStore:
    """The books of one tenant; none of them reads or changes a row of another."""

    items: ItemBook
    users: UserBook
    events: EventBook
    log: EventLog
    shown: ShownBook
    clicks: ClickBook
    rules: RuleBook
    blocks: BlockBook
    opinions: OpinionBook
    readings: ReadingBook
    vectors: VectorBook
    learned: LearnedBook
    reviews: ReviewBook
    audit: AuditBook
    support: SupportBook


class ServingStore:
    """All tenants' books; several threads and processes may use one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.keys = KeyBook(database)

    @classmethod
    def open(cls, url: str) -> "ServingStore":
        """Connect and bring the tables to this version.

        Args:
            url: SQLAlchemy's, `sqlite:///…` or `postgresql+psycopg://…`; see `store_url`.
        Raises: ConfigError: no such database, no driver for it, or tables of a newer fedrec. StorageError.
        """
        return cls(Database.connect(url, SCHEMA))

    def of(self, tenant: str) -> TenantStore:
        """The books of one tenant, which need not have been there before."""
        d = self._database
        return TenantStore(
            items=ItemBook(d, tenant),
            users=UserBook(d, tenant),
            events=EventBook(d, tenant),
            log=EventLog(d, tenant),
            shown=ShownBook(d, tenant),
            clicks=ClickBook(d, tenant),
            rules=RuleBook(d, tenant),
            blocks=BlockBook(d, tenant),
            opinions=OpinionBook(d, tenant),
            readings=ReadingBook(d, tenant),
            vectors=VectorBook(d, tenant),
            learned=LearnedBook(d, tenant),
            reviews=ReviewBook(d, tenant),
            audit=AuditBook(d, tenant),
            support=SupportBook(d, tenant),
        )

    def graphs_available(self) -> Availability:
        """Whether `graphs` can be used here. Raises StorageError."""
        return availability(self._database)

    def graphs(self, tenant: str) -> GraphBook:
        """Graphs of a tenant's items, where they are available."""
        return GraphBook(self._database, tenant)

    def writer(self, waiting: int = 4096) -> Writer:
        """A thread that commits together what comes at once; close it before the store."""
        return Writer(self._database, waiting)

    def close(self) -> None:
        """Let go of the connections."""
        self._database.close()


def store_url(folder: Path, configured: str) -> str:
    """`sqlite` means a file of the service's folder; anything else is an address."""
    return f"sqlite:///{(folder / 'serving.sqlite').resolve()}" if configured == "sqlite" else configured
