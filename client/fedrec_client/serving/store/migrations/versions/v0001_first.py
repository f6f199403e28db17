"""The first tables."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make them."""
    _make(
        "items", ["tenant", "id"], "title text categories fields searched", timestamp=sa.Float(53), is_hidden=sa.Boolean
    )
    _make("users", ["tenant", "id"], "labels comment subscribe")
    op.create_table(
        "events",
        sa.Column("seq", NUMBER, nullable=False, autoincrement=True),
        *_words(["tenant", "id", "type", "user", "item", "session", "ranking", "labels", "comment"]),
        *_others(value=sa.Float(53), timestamp=sa.Float(53), updated=sa.Float(53)),
        sa.PrimaryKeyConstraint("seq", name="pk_events"),
        sa.UniqueConstraint("tenant", "id", name="uq_events_id"),
        sqlite_autoincrement=True,
    )
    _make("shown", ["tenant", "id"], "user session arm adapter items sources", at=sa.Float(53))
    _make("rules", ["tenant", "name"], "rule")
    _make("rule_versions", ["tenant"], "", version=sa.BigInteger)
    _make("blocks", ["tenant", "user", "kind", "value"], "")
    _make("opinions", ["tenant", "user", "ranking", "item"], "comment", is_helpful=sa.Boolean, at=sa.Float(53))
    _make("readings", ["tenant", "user"], "reading_hash", digest=sa.LargeBinary, content=sa.LargeBinary)
    op.create_table(
        "vectors",
        *_words(["tenant"]),
        *_others(key=sa.LargeBinary, content=sa.LargeBinary),
        sa.PrimaryKeyConstraint("tenant", "key", name="pk_vectors"),
    )
    op.create_table(
        "keys",
        *_words(["name", "tenant", "secret_hash", "scopes"]),
        *_others(created_at=sa.Float(53)),
        sa.PrimaryKeyConstraint("name", name="pk_keys"),
        sa.UniqueConstraint("secret_hash", name="uq_keys_secret_hash"),
    )
    op.create_index("ix_events_seq", "events", ["tenant", "seq"])
    op.create_index("ix_events_user", "events", ["tenant", "user", "timestamp"])
    op.create_index("ix_events_session", "events", ["tenant", "session", "timestamp"])
    op.create_index("ix_events_item", "events", ["tenant", "item", "user", "type"])
    op.create_index("ix_events_ranking", "events", ["tenant", "ranking"])
    op.create_index("ix_shown_at", "shown", ["tenant", "at"])
    op.create_index("ix_shown_user", "shown", ["tenant", "user"])
    op.create_index("ix_shown_session", "shown", ["tenant", "session"])
    op.create_index("ix_opinions_at", "opinions", ["tenant", "at"])
    op.create_index("ix_opinions_ranking", "opinions", ["tenant", "ranking"])


def downgrade() -> None:
    """Unmake them."""
    names = "keys vectors readings opinions blocks rule_versions rules shown events users items"
    for name in names.split():
        op.drop_table(name)


def _make(
    table: str, key: list[str], words: str, **others: type[sa.types.TypeEngine[Any]] | sa.types.TypeEngine[Any]
) -> None:
    primary = sa.PrimaryKeyConstraint(*key, name=f"pk_{table}")
    op.create_table(table, *_words([*key, *words.split()]), *_others(**others), primary)


def _words(names: list[str]) -> list[sa.Column[Any]]:
    return [sa.Column(name, WORD, nullable=False) for name in names]


def _others(**kinds: type[sa.types.TypeEngine[Any]] | sa.types.TypeEngine[Any]) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False) for name, kind in kinds.items()]
