"""What the CA has issued, and which renewals are held."""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make the tables; nothing has been issued."""
    op.create_table(
        "issued_certificates",
        sa.Column("serial", sa.String(40), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("issuer_sha256", sa.String(64), nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("parent", sa.Integer),
        sa.Column("key_sha256", sa.String(64), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("certificate", sa.Text, nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.Column("revocation_reason", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("serial", name="pk_issued_certificates"),
        sa.UniqueConstraint("sha256", name="uq_issued_certificates_sha256"),
        sa.UniqueConstraint("device", "generation", name="uq_issued_certificates_generation"),
    )
    op.create_index("ix_issued_certificates_key_sha256", "issued_certificates", ["key_sha256"])
    op.create_index("ix_issued_certificates_not_after", "issued_certificates", ["not_after"])
    op.create_table(
        "renewals",
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("life_seconds", sa.Integer, nullable=False),
        sa.Column("key_kinds", sa.String(32), nullable=False),
        sa.Column("held_at", sa.DateTime(timezone=True)),
        sa.Column("held_detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("device", name="pk_renewals"),
    )


def downgrade() -> None:
    """Remove the tables: what was issued stays bound to its devices."""
    op.drop_table("renewals")
    op.drop_table("issued_certificates")
