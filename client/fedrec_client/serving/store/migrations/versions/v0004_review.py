"""What waits for a person to decide, and who decided what."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "reviews",
        *_words("tenant"),
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        *_words("kind", "subject", "digest", "state", "flags", "content", "asked_by"),
        sa.Column("at", sa.Float(53), nullable=False),
        *_words("decided_by"),
        sa.Column("decided_at", sa.Float(53), nullable=False),
        *_words("note"),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_reviews"),
    )
    op.create_index("ix_reviews_state", "reviews", ["tenant", "state", "id"])
    op.create_index("ix_reviews_kind", "reviews", ["tenant", "kind", "subject", "id"])
    op.create_table(
        "audit",
        *_words("tenant"),
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        *_words("who", "what", "kind", "subject", "before", "after", "note", "hash"),
        sa.PrimaryKeyConstraint("tenant", "seq", name="pk_audit"),
    )


def downgrade() -> None:
    """Unmake them."""
    op.drop_table("audit")
    op.drop_table("reviews")


def _words(*names: str) -> "list[sa.Column[str]]":
    return [sa.Column(name, WORD, nullable=False) for name in names]
