"""Devices that are reached over connections which they have opened themselves."""

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column: none of the devices so far is one of them."""
    op.add_column("devices", sa.Column("reverse", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Remove the column: they can't be called any more."""
    op.drop_column("devices", "reverse")
