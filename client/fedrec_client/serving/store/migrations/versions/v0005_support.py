"""Answers of a partner's support, and requests that were handed over to a person."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make them, empty."""
    op.create_table(
        "support_answers",
        *(sa.Column(name, WORD, nullable=False) for name in ("tenant", "id", "question", "answer")),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_support_answers"),
    )
    op.create_table(
        "handovers",
        *(sa.Column(name, WORD, nullable=False) for name in ("tenant", "id", "user", "request", "matches")),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("answer", WORD, nullable=False),
        sa.Column("answered_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_handovers"),
    )
    op.create_index("ix_handovers_at", "handovers", ["tenant", "at"])
    op.create_index("ix_handovers_user", "handovers", ["tenant", "user"])


def downgrade() -> None:
    """Unmake them."""
    op.drop_table("handovers")
    op.drop_table("support_answers")
