"""The serving store's tables. Rows belong to a tenant, and its name stands first in every key and index.

Two tables have a key of their own beside that: events are numbered as they come, over all tenants, and an API key is
found by its secret before anybody knows whose it is.
"""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy import UniqueConstraint as Unique

# Named, so that a later migration can drop them on every database.
METADATA = MetaData(
    naming_convention={
        "uq": "uq_%(table_name)s_%(column_1_name)s",
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_1_name)s",
    }
)
# Bytes in their order, as SQLite and Python compare them: PostgreSQL would otherwise sort by its machine's language.
WORD = Text().with_variant(Text(collation="C"), "postgresql")
NUMBER = BigInteger().with_variant(Integer, "sqlite")  # the only type that SQLite numbers by itself
GRAPH_PREFIX = "item_graph"  # of tables that are none of the migrations': see graph_book.py


def _word(name: str, *, primary_key: bool = False) -> Column[str]:
    return Column(name, WORD, primary_key=primary_key, nullable=False)


ITEMS = Table(
    "items",
    METADATA,
    _word("tenant", primary_key=True),
    _word("id", primary_key=True),
    _word("title"),
    _word("text"),
    _word("categories"),  # JSON, as all that is nested
    Column("timestamp", Float(53), nullable=False),
    Column("is_hidden", Boolean, nullable=False),
    _word("fields"),
    _word("searched"),  # id, title and text in small letters: SQLite knows only those of ASCII
)

USERS = Table(
    "users",
    METADATA,
    _word("tenant", primary_key=True),
    _word("id", primary_key=True),
    _word("labels"),
    _word("comment"),
    _word("subscribe"),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("seq", NUMBER, primary_key=True, autoincrement=True),  # never used again
    _word("tenant"),
    _word("id"),
    _word("type"),
    _word("user"),  # empty: a session without a name
    _word("item"),
    _word("session"),
    Column("value", Float(53), nullable=False),
    Column("timestamp", Float(53), nullable=False),  # when it happened
    Column("updated", Float(53), nullable=False),  # when it came
    _word("ranking"),
    _word("labels"),
    _word("comment"),
    Unique("tenant", "id"),
    Index(None, "tenant", "seq"),
    Index(None, "tenant", "user", "timestamp"),
    Index(None, "tenant", "session", "timestamp"),
    Index(None, "tenant", "item", "user", "type", "timestamp"),  # has all that counting takes
    Index(None, "tenant", "ranking"),
    sqlite_autoincrement=True,
)

SHOWN = Table(
    "shown",
    METADATA,
    _word("tenant", primary_key=True),
    _word("id", primary_key=True),
    _word("user"),
    _word("session"),
    Column("at", Float(53), nullable=False),
    _word("arm"),
    _word("adapter"),
    _word("items"),
    _word("sources"),
    _word("features"),  # of the final ranking where it learns; else empty
    Index(None, "tenant", "at"),
    Index(None, "tenant", "user"),
    Index(None, "tenant", "session"),
)

RULES = Table(
    "rules",
    METADATA,
    _word("tenant", primary_key=True),
    _word("name", primary_key=True),
    _word("rule"),
)

RULE_VERSIONS = Table(
    "rule_versions",
    METADATA,
    _word("tenant", primary_key=True),
    Column("version", BigInteger, nullable=False),
)

LEARNED = Table(
    "learned",
    METADATA,
    _word("tenant", primary_key=True),
    _word("arm", primary_key=True),
    _word("weights"),
    Column("at", Float(53), nullable=False),
)

BLOCKS = Table(
    "blocks",
    METADATA,
    _word("tenant", primary_key=True),
    _word("user", primary_key=True),
    _word("kind", primary_key=True),  # item, category
    _word("value", primary_key=True),
)

OPINIONS = Table(
    "opinions",
    METADATA,
    _word("tenant", primary_key=True),
    _word("user", primary_key=True),
    _word("ranking", primary_key=True),
    _word("item", primary_key=True),
    Column("is_helpful", Boolean, nullable=False),
    _word("comment"),
    Column("at", Float(53), nullable=False),
    Index(None, "tenant", "at"),
    Index(None, "tenant", "ranking"),
)

READINGS = Table(
    "readings",
    METADATA,
    _word("tenant", primary_key=True),
    _word("user", primary_key=True),
    Column("digest", LargeBinary, nullable=False),  # of the history that was read
    _word("reading_hash"),  # of what read it
    Column("content", LargeBinary, nullable=False),
)

VECTORS = Table(
    "vectors",
    METADATA,
    _word("tenant", primary_key=True),
    Column("key", LargeBinary, primary_key=True, nullable=False),  # of a text and of what read it
    Column("content", LargeBinary, nullable=False),
)

REVIEWS = Table(
    "reviews",
    METADATA,
    _word("tenant", primary_key=True),
    Column("id", BigInteger, primary_key=True, nullable=False, autoincrement=False),  # 1, 2, 3: none ever goes
    _word("kind"),  # item, rule
    _word("subject"),
    _word("digest"),  # of the content: a decision is on these words and no others
    _word("state"),  # waiting, approved, edited, rejected, superseded
    _word("flags"),
    _word("content"),
    _word("asked_by"),
    Column("at", Float(53), nullable=False),
    _word("decided_by"),
    Column("decided_at", Float(53), nullable=False),  # 0: not yet
    _word("note"),
    Index(None, "tenant", "state", "id"),
    Index(None, "tenant", "kind", "subject", "id"),
)

AUDIT = Table(
    "audit",
    METADATA,
    _word("tenant", primary_key=True),
    Column("seq", BigInteger, primary_key=True, nullable=False, autoincrement=False),  # 1, 2, 3: none is missing
    Column("at", Float(53), nullable=False),
    _word("who"),
    _word("what"),
    _word("kind"),
    _word("subject"),
    _word("before"),
    _word("after"),
    _word("note"),
    _word("hash"),  # of this line and the hash before it
)

SUPPORT_ANSWERS = Table(
    "support_answers",
    METADATA,
    _word("tenant", primary_key=True),
    _word("id", primary_key=True),
    _word("question"),
    _word("answer"),
)

HANDOVERS = Table(
    "handovers",
    METADATA,
    _word("tenant", primary_key=True),
    _word("id", primary_key=True),
    _word("user"),
    _word("request"),
    _word("matches"),  # ids and scores of what was not good enough
    Column("at", Float(53), nullable=False),
    _word("answer"),  # empty until a person has answered
    Column("answered_at", Float(53), nullable=False),
    Index(None, "tenant", "at"),
    Index(None, "tenant", "user"),
)

KEYS = Table(
    "keys",
    METADATA,
    _word("name", primary_key=True),
    _word("tenant"),
    _word("secret_hash"),  # SHA-256: whoever reads this table can call nothing
    _word("scopes"),
    Column("created_at", Float(53), nullable=False),
    Unique("secret_hash", name="uq_keys_secret_hash"),
)


def is_migrated(name: str | None, kind: str, _parents: object) -> bool:
    """Alembic's `include_name`: whether the migrations answer for it."""
    return kind != "table" or not (name or "").startswith(GRAPH_PREFIX)
