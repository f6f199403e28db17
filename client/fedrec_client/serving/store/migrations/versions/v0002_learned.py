"""What a learned final ranking needs: features of items as they were when they were shown, and the weights."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make them. Lists that were shown before have none, and teach nothing."""
    op.add_column("shown", sa.Column("features", WORD, nullable=False, server_default="{}"))
    op.create_table(
        "learned",
        *(sa.Column(name, WORD, nullable=False) for name in ("tenant", "arm", "weights")),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "arm", name="pk_learned"),
    )


def downgrade() -> None:
    """Unmake them."""
    op.drop_table("learned")
    op.drop_column("shown", "features")
