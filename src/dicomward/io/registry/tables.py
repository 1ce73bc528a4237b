"""The tables of the registry database. A change here needs a migration; a test compares both."""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, kept as UTC: SQLite has no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn into UTC, for SQLite without saying so."""
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn back into an aware time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


METADATA: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# One row: the revision, which every change raises, and which changes lock.
REGISTRY: Final = Table(
    "registry",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

DEVICES: Final = Table(
    "devices",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("role", String(64), nullable=False),
    Column("site", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("host", String(253)),
    Column("port", Integer),
    Column("plain", Boolean, nullable=False),
    Column("reverse", Boolean, nullable=False, server_default=false()),
    Column("legacy_zone", String(64), nullable=False, server_default=text("''")),
    Column("legacy_always", Boolean, nullable=False, server_default=false()),
    Column("observe_until", UtcDateTime),
)

CERTIFICATES: Final = Table(
    "certificates",
    METADATA,
    # A certificate belongs to one device: who copies a key copies an identity.
    Column("sha256", String(64), primary_key=True),
    Column("device", ForeignKey("devices.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("not_before", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime, nullable=False),
    Column("status", String(16), nullable=False),
    Column("serial", String(64), nullable=False),
)

ARCHIVES: Final = Table(
    "archives",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("ae_title", String(16), nullable=False),
    Column("host", String(253), nullable=False),
    Column("port", Integer, nullable=False),
    Column("tls", Boolean, nullable=False),
    Column("dedicated_link", Boolean, nullable=False),
    Column("certificate_sha256", String(64)),
    Column("site", String(64), nullable=False),
    Column("sends_move_originator", Boolean),
    Column("replica_of", String(64), nullable=False, server_default=text("''")),
)


def _list_table(name: str, owner: str, length: int) -> Table:
    """Return a table for an ordered list of texts that belongs to a row of `owner`."""
    return Table(
        name,
        METADATA,
        Column("owner", ForeignKey(f"{owner}.name", ondelete="CASCADE"), primary_key=True),
        Column("position", Integer, primary_key=True, autoincrement=False),
        Column("value", String(length), nullable=False),
    )


DEVICE_AE_TITLES: Final = _list_table("device_ae_titles", "devices", 16)
DEVICE_NETWORKS: Final = _list_table("device_networks", "devices", 64)
ARCHIVE_CALLED_AE_TITLES: Final = _list_table("archive_called_ae_titles", "archives", 16)
ARCHIVE_CALLING_AE_TITLES: Final = _list_table("archive_calling_ae_titles", "archives", 16)
ARCHIVE_NETWORKS: Final = _list_table("archive_networks", "archives", 64)

# Every change, who made it, and if the audit log has it yet: written together with the change itself.
CHANGES: Final = Table(
    "changes",
    METADATA,
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("operator", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("device", String(64)),
    Column("archive", String(64)),
    Column("detail", Text, nullable=False),
    Column("audited", Boolean, nullable=False),
    # The device as it was before, as JSON; and for a rollback the revision whose device came back.
    Column("before", Text),
    Column("back_to", Integer),
)

# What the CA has issued. No foreign keys: a device's row is replaced whenever it changes, and this is for ever.
ISSUED: Final = Table(
    "issued_certificates",
    METADATA,
    # 128 random bits, hexadecimal: unique over all issuing CAs that share the database.
    Column("serial", String(40), primary_key=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("issuer_sha256", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("parent", Integer),
    Column("key_sha256", String(64), nullable=False, index=True),
    Column("not_before", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime, nullable=False, index=True),
    Column("issued_at", UtcDateTime, nullable=False),
    # DER, in base64.
    Column("certificate", Text, nullable=False),
    Column("revoked_at", UtcDateTime),
    # The name of a CRLReason.
    Column("revocation_reason", String(32), nullable=False),
    UniqueConstraint("device", "generation", name="uq_issued_certificates_generation"),
)

# The renewal of a device; without a row it is open, with the life and keys of the settings.
RENEWALS: Final = Table(
    "renewals",
    METADATA,
    Column("device", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("life_seconds", Integer, nullable=False),
    Column("key_kinds", String(32), nullable=False),
    Column("held_at", UtcDateTime),
    # Which generation was renewed twice, and with which key.
    Column("held_detail", Text, nullable=False),
)

# One-time invitations; the newest of a device is the one that counts.
INVITATIONS: Final = Table(
    "invitations",
    METADATA,
    # The selector of the code.
    Column("id", String(8), primary_key=True),
    Column("device", String(64), nullable=False, index=True),
    # JSON: what was granted.
    Column("granted", Text, nullable=False),
    Column("code_hash", String(64), nullable=False),
    # Encrypted, in base64; gone when the invitation is over.
    Column("cmp_secret", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
    Column("wrong_guesses", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("closed_at", UtcDateTime),
    # The operator who revoked it, or the address that used it or guessed.
    Column("closed_by", String(64), nullable=False),
    # SHA-256 of the SubjectPublicKeyInfo that it was used for.
    Column("used_key", String(64)),
)

# Requests without a code, which wait for an operator.
WAITING_REQUESTS: Final = Table(
    "waiting_requests",
    METADATA,
    Column("id", String(8), primary_key=True),
    # SHA-256 of the SubjectPublicKeyInfo: who asks again is known by it.
    Column("key_sha256", String(64), nullable=False, unique=True),
    Column("common_name", String(64), nullable=False),
    Column("address", String(64), nullable=False, index=True),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("status", String(16), nullable=False),
    # JSON: what the operator grants, with the approval.
    Column("granted", Text),
    Column("decided_by", String(64), nullable=False),
    Column("decided_at", UtcDateTime),
)
