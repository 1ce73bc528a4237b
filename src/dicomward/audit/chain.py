"""The hash chain over audit records, and the checkpoints that sign its head.

A record is one line of JSON. `seq` counts from 1 without gaps; `prev` is the hash of the record before (64 zeros for
the first); `hash`, the last member, is the SHA-256 in hex over the canonical JSON of the record without `hash`. So a
line is that JSON with `,"hash":"…"` put in before its last brace.

A checkpoint says "record `seq` has this hash", signed with Ed25519. It is made only for records that are on the disk.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from dicomward.audit.encode_json import MemberValue, RecordError, decode_canonical, encode_canonical

FORMAT_VERSION: Final = 1
# No event can make a longer line: the sum of all fields at their maximum, each character as its longest JSON escape.
MAX_RECORD_BYTES: Final = 262_144
MAX_CHECKPOINT_BYTES: Final = 1024
# Signatures are over this and the checkpoint, so that no signature of another protocol with the same key can pass.
CHECKPOINT_CONTEXT: Final = b"dicomward audit checkpoint 1\n"

_HASH_START: Final = b',"hash":"'
_TAIL_BYTES: Final = len(_HASH_START) + 64 + len(b'"}')
_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}\Z")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")


class ChainError(ValueError):
    """The record isn't the one that follows; the message says why."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest record of a chain: its number and its hash. `GENESIS` stands before the first one."""

    seq: int
    hash: str


GENESIS: Final = Head(0, "0" * 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record as read: the chain's own members, and those of the event (`code` among them)."""

    seq: int
    time: str
    prev: str
    hash: str
    members: Mapping[str, MemberValue] = field(repr=False)

    @property
    def code(self) -> str:
        """The event code."""
        return str(self.members["code"])

    @property
    def head(self) -> Head:
        """The head of a chain that ends here."""
        return Head(self.seq, self.hash)


def seal(head: Head, time: str, members: Mapping[str, MemberValue]) -> tuple[Head, bytes]:
    """Return the new head and the line, with its line feed, of the record that follows `head`."""
    seq = head.seq + 1
    body = encode_canonical({**members, "seq": seq, "prev": head.hash, "time": time, "v": FORMAT_VERSION})
    digest = sha256(body).hexdigest()
    return Head(seq, digest), b'%b%b%b"}\n' % (body[:-1], _HASH_START, digest.encode("ascii"))


def decode_record(line: bytes) -> Record:
    """Read one line (without its line feed) and check its own hash. Raises RecordError."""
    if len(line) > MAX_RECORD_BYTES:
        raise RecordError(f"the line is longer than {MAX_RECORD_BYTES} bytes")
    tail = line[-_TAIL_BYTES:]
    if not tail.startswith(_HASH_START) or not tail.endswith(b'"}'):
        raise RecordError("the line doesn't end in its hash")
    body = line[:-_TAIL_BYTES] + b"}"
    stated = tail[len(_HASH_START) : -2]
    digest = sha256(body).hexdigest()
    if stated != digest.encode("ascii"):
        raise RecordError("the record doesn't match its own hash: it was changed or damaged")
    members = decode_canonical(body)
    if members.pop("v", None) != FORMAT_VERSION:
        raise RecordError("the record has an unknown format version: read it with the release that wrote it")
    seq, time, prev = members.pop("seq", None), members.pop("time", None), members.pop("prev", None)
    if not isinstance(seq, int) or seq < 1:
        raise RecordError("the record has no sequence number")
    if not isinstance(members.get("code"), str):
        raise RecordError("the record has no event code")
    return Record(seq=seq, time=_time(time), prev=_hash(prev), hash=digest, members=members)


def follow(head: Head, record: Record) -> Head:
    """Return the new head, if the record is the one that follows. Raises ChainError."""
    if record.seq != head.seq + 1:
        raise ChainError(f"record {head.seq + 1} should be here, but this is record {record.seq}")
    if record.prev != head.hash:
        raise ChainError(f"record {record.seq} doesn't follow record {head.seq}: one of them was replaced")
    return record.head


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A signed head. `key` is the SHA-256 in hex of the raw public key; `signature` is hex."""

    seq: int
    hash: str
    time: str
    key: str
    signature: str = ""

    @property
    def message(self) -> bytes:
        """The bytes that the signature is over."""
        return CHECKPOINT_CONTEXT + encode_canonical(self._members())

    def _members(self) -> dict[str, MemberValue]:
        return {"seq": self.seq, "hash": self.hash, "time": self.time, "key": self.key, "v": FORMAT_VERSION}


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return the line, with its line feed, of a signed checkpoint."""
    members: dict[str, MemberValue] = {
        "hash": checkpoint.hash,
        "key": checkpoint.key,
        "seq": checkpoint.seq,
        "signature": checkpoint.signature,
        "time": checkpoint.time,
        "v": FORMAT_VERSION,
    }
    return encode_canonical(members) + b"\n"


def decode_checkpoint(line: bytes) -> Checkpoint:
    """Read one checkpoint line (without its line feed); the signature isn't checked here. Raises RecordError."""
    if len(line) > MAX_CHECKPOINT_BYTES:
        raise RecordError(f"the line is longer than {MAX_CHECKPOINT_BYTES} bytes")
    members = decode_canonical(line)
    if members.pop("v", None) != FORMAT_VERSION:
        raise RecordError("the checkpoint has an unknown format version")
    if sorted(members) != ["hash", "key", "seq", "signature", "time"]:
        raise RecordError("a checkpoint has hash, key, seq, signature, time and v, nothing else")
    seq, signature = members["seq"], members["signature"]
    if not isinstance(seq, int) or seq < 0:
        raise RecordError("the checkpoint has no sequence number")
    if not isinstance(signature, str) or not _SIGNATURE.match(signature):
        raise RecordError("the checkpoint has no signature")
    return Checkpoint(
        seq=seq,
        hash=_hash(members["hash"]),
        time=_time(members["time"]),
        key=_hash(members["key"]),
        signature=signature,
    )


def _hash(value: MemberValue | None) -> str:
    """Return a SHA-256 in lower-case hex. Raises RecordError."""
    if not isinstance(value, str) or not _HASH.match(value):
        raise RecordError("a hash is 64 lower-case hexadecimal digits")
    return value


def _time(value: MemberValue | None) -> str:
    """Return a time as the log writes it. Raises RecordError."""
    if not isinstance(value, str) or not _TIME.match(value):
        raise RecordError("a time is UTC as 2026-01-31T23:59:59.123456Z")
    return value
