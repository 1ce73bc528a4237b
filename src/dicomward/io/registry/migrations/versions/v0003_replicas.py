"""Archives that stand in for others."""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column; no archive is a replica. Not in a batch: v0002 says why."""
    op.add_column("archives", sa.Column("replica_of", sa.String(64), nullable=False, server_default=sa.text("''")))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("archives", "replica_of")
