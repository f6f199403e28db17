"""What the pages show live: when a partner last answered, how far a round moved the adapter."""

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


def downgrade() -> None:
    """Forget both."""
    with op.batch_alter_table("rounds") as rounds:
        rounds.drop_column("step_norm")
    with op.batch_alter_table("partners") as partners:
        partners.drop_column("answered_at")
