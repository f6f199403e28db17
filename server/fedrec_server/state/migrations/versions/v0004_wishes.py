"""When a partner last wished for a round."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody has wished yet."""
    with op.batch_alter_table("partners") as partners:
        partners.add_column(sa.Column("wished_at", sa.String(32), nullable=False, server_default=""))


def downgrade() -> None:
    """Forget wishes."""
    with op.batch_alter_table("partners") as partners:
        partners.drop_column("wished_at")
