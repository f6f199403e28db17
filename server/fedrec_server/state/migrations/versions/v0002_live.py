"""What the pages show: when a partner last answered, how far a round moved the adapter, how good versions are."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Rows that are there say that it is not known."""
    with op.batch_alter_table("partners") as partners:
        partners.add_column(sa.Column("answered_at", sa.String(32), nullable=False, server_default=""))
    with op.batch_alter_table("rounds") as rounds:
        rounds.add_column(sa.Column("step_norm", sa.Float, nullable=True))
    op.create_table(
        "quality",
        sa.Column("adapter_hash", sa.String(64), primary_key=True),
        sa.Column("data", sa.String(100), primary_key=True),
        sa.Column("protocol", sa.String(100), nullable=False),
        sa.Column("users", sa.Integer, nullable=False),
        sa.Column("hit_ratio", sa.Float, nullable=False),
        sa.Column("ndcg", sa.Float, nullable=False),
        sa.Column("measured_at", sa.String(32), nullable=False),
    )


def downgrade() -> None:
    """Forget it."""
    op.drop_table("quality")
    with op.batch_alter_table("rounds") as rounds:
        rounds.drop_column("step_norm")
    with op.batch_alter_table("partners") as partners:
        partners.drop_column("answered_at")
