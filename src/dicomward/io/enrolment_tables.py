"""The tables of invitations and of requests that wait for approval. A change here needs a migration."""

from typing import Final

from sqlalchemy import Column, Integer, String, Table, Text

from dicomward.io.registry_tables import METADATA, UtcDateTime

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
