"""Moving over from plaintext: legacy zones, observing, and what a rollback needs.

Columns are added one by one: Alembic's batches make the table anew in SQLite, and dropping the old one takes the rows
of other tables with it that belong to its devices.
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the columns; nobody is in a legacy zone or observed."""
    op.add_column("devices", sa.Column("legacy_zone", sa.String(64), nullable=False, server_default=sa.text("''")))
    op.add_column("devices", sa.Column("legacy_always", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("devices", sa.Column("observe_until", sa.DateTime(timezone=True)))
    op.add_column("changes", sa.Column("before", sa.Text))
    op.add_column("changes", sa.Column("back_to", sa.Integer))


def downgrade() -> None:
    """Remove the columns."""
    for table, column in (
        ("changes", "back_to"),
        ("changes", "before"),
        ("devices", "observe_until"),
        ("devices", "legacy_always"),
        ("devices", "legacy_zone"),
    ):
        op.drop_column(table, column)
