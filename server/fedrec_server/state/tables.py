"""The coordinator's state as tables: partners, keys, invitations, rounds, the audit log; never an interaction."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Integer, MetaData, String, Table, UniqueConstraint

# Named, so that a later migration can drop them on every database.
METADATA = MetaData(naming_convention={"uq": "uq_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s"})

PARTNERS = Table(
    "partners",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("node_key", String(400), nullable=False, unique=True),  # PEM of Flower's node authentication, base64
    Column("signing_key", String(64), nullable=False, unique=True),  # Ed25519, hex
    Column("status", String(16), nullable=False),  # pending, approved, suspended, keyless, removed
    Column("node_id", String(20), nullable=False),  # Flower's, 64 bits unsigned; empty before approval
    Column("enrolled_at", String(32), nullable=False),
    Column("last_seen", String(32), nullable=False),  # empty: never
    Column("reason", String(300), nullable=False),  # why the last answer did not count; public
    Column("answered_at", String(32), nullable=False, server_default=""),  # the last answer, good or not; empty: never
    Column("wished_at", String(32), nullable=False, server_default=""),  # the last wish for a round; empty: never
)

INVITES = Table(
    "invites",
    METADATA,
    Column("secret_hash", String(64), primary_key=True),  # SHA-256: whoever reads this table can enrol nobody
    Column("name", String(64), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("expires_at", String(32), nullable=False),
    Column("used_at", String(32), nullable=False),  # empty: not yet
    Column("is_approved", Boolean, nullable=False),  # the partner is approved as soon as it enrols
    Column("replaces_keys", Boolean, nullable=False),  # of a partner that is there, in place of enrolling a new one
)

RETIRED_KEYS = Table(
    "retired_keys",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("partner", String(64), nullable=False),
    Column("node_key", String(400), nullable=False, unique=True),
    Column("signing_key", String(64), nullable=False, unique=True),
    Column("node_id", String(20), nullable=False),  # Flower's, until it is unregistered there
    Column("retired_at", String(32), nullable=False),
)

ROUNDS = Table(
    "rounds",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("run", String(200), nullable=False),
    Column("round", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("part", String(64), nullable=False),
    Column("status", String(16), nullable=False),  # asked, committed, failed
    Column("started_at", String(32), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("partners", JSON, nullable=False),  # who gave a good answer
    Column("reasons", JSON, nullable=False),  # partner -> why its turn was lost
    Column("bytes_up", BigInteger, nullable=False),
    Column("bytes_down", BigInteger, nullable=False),
    Column("adapter_hash", String(64), nullable=False),
    Column("step_norm", Float, nullable=True),  # L2 norm of what the round added to the adapter
    UniqueConstraint("run", "round", "attempt"),
)

QUALITY = Table(
    "quality",
    METADATA,
    Column("adapter_hash", String(64), primary_key=True),
    Column("data", String(100), primary_key=True),  # published rows, never a partner's
    Column("protocol", String(100), nullable=False),
    Column("users", Integer, nullable=False),
    Column("hit_ratio", Float, nullable=False),  # HR@10
    Column("ndcg", Float, nullable=False),  # NDCG@10
    Column("measured_at", String(32), nullable=False),
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("who", String(64), nullable=False),
    Column("what", String(64), nullable=False),
    Column("detail", JSON, nullable=False),
)

SETTINGS = Table(
    "settings",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("value", String(200), nullable=False),
)
