"""Moving over from plaintext: legacy zones, observing, and what a rollback needs."""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the columns; nobody is in a legacy zone or observed."""
    with op.batch_alter_table("devices") as devices:
        devices.add_column(sa.Column("legacy_zone", sa.String(64), nullable=False, server_default=sa.text("''")))
        devices.add_column(sa.Column("legacy_always", sa.Boolean, nullable=False, server_default=sa.false()))
        devices.add_column(sa.Column("observe_until", sa.DateTime(timezone=True)))
    with op.batch_alter_table("changes") as changes:
        changes.add_column(sa.Column("before", sa.Text))
        changes.add_column(sa.Column("back_to", sa.Integer))


def downgrade() -> None:
    """Remove the columns."""
    with op.batch_alter_table("changes") as changes:
        changes.drop_column("back_to")
        changes.drop_column("before")
    with op.batch_alter_table("devices") as devices:
        devices.drop_column("observe_until")
        devices.drop_column("legacy_always")
        devices.drop_column("legacy_zone")
