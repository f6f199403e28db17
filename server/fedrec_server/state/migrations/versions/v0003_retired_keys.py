"""Keys that never count again, and invitations that put new ones in their place."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and the column; invitations that are out enrol new partners, as they did."""
    op.create_table(
        "retired_keys",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("partner", sa.String(64), nullable=False),
        sa.Column("node_key", sa.String(400), nullable=False),
        sa.Column("signing_key", sa.String(64), nullable=False),
        sa.Column("node_id", sa.String(20), nullable=False),
        sa.Column("retired_at", sa.String(32), nullable=False),
        sa.UniqueConstraint("node_key", name="uq_retired_keys_node_key"),
        sa.UniqueConstraint("signing_key", name="uq_retired_keys_signing_key"),
    )
    op.add_column("invites", sa.Column("replaces_keys", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Unmake them."""
    op.drop_column("invites", "replaces_keys")
    op.drop_table("retired_keys")
