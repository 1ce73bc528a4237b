"""The first tables: devices, certificates, archives, changes."""

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def _list_table(name: str, owner: str, length: int) -> None:
    op.create_table(
        name,
        sa.Column(
            "owner",
            sa.String(64),
            sa.ForeignKey(f"{owner}.name", name=f"fk_{name}_owner", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("position", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("value", sa.String(length), nullable=False),
        sa.PrimaryKeyConstraint("owner", "position", name=f"pk_{name}"),
    )


def upgrade() -> None:
    """Make the tables, and the row that holds revision 0."""
    registry = op.create_table(
        "registry",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_registry"),
        sa.CheckConstraint("id = 1", name="ck_registry_one_row"),
    )
    op.bulk_insert(registry, [{"id": 1, "revision": 0}])
    op.create_table(
        "devices",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("host", sa.String(253)),
        sa.Column("port", sa.Integer),
        sa.Column("plain", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_devices"),
    )
    op.create_table(
        "certificates",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column(
            "device",
            sa.String(64),
            sa.ForeignKey("devices.name", name="fk_certificates_device", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("serial", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_certificates"),
    )
    op.create_index("ix_certificates_device", "certificates", ["device"])
    op.create_table(
        "archives",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("ae_title", sa.String(16), nullable=False),
        sa.Column("host", sa.String(253), nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("tls", sa.Boolean, nullable=False),
        sa.Column("dedicated_link", sa.Boolean, nullable=False),
        sa.Column("certificate_sha256", sa.String(64)),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("sends_move_originator", sa.Boolean),
        sa.PrimaryKeyConstraint("name", name="pk_archives"),
    )
    _list_table("device_ae_titles", "devices", 16)
    _list_table("device_networks", "devices", 64)
    _list_table("archive_called_ae_titles", "archives", 16)
    _list_table("archive_calling_ae_titles", "archives", 16)
    _list_table("archive_networks", "archives", 64)
    op.create_table(
        "changes",
        sa.Column("revision", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("operator", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("device", sa.String(64)),
        sa.Column("archive", sa.String(64)),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("audited", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_changes"),
    )


def downgrade() -> None:
    """Remove everything."""
    for table in (
        "changes",
        "archive_networks",
        "archive_calling_ae_titles",
        "archive_called_ae_titles",
        "device_networks",
        "device_ae_titles",
        "archives",
        "certificates",
        "devices",
        "registry",
    ):
        op.drop_table(table)
