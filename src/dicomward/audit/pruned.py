"""The signed statement that the beginning of a log was pruned, so that the rest can still be proved.

It says "records up to `seq`, the last with this hash, were removed on purpose". Its own context keeps any other
signature of the same key from passing for one.
"""

import re
from dataclasses import dataclass
from typing import Final

from dicomward.audit.chain import FORMAT_VERSION, MAX_CHECKPOINT_BYTES
from dicomward.audit.encode_json import MemberValue, RecordError, decode_canonical, encode_canonical

PRUNED_CONTEXT: Final = b"dicomward audit pruned 1\n"
_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}\Z")
_MEMBERS: Final = ["hash", "key", "seq", "signature", "time", "v"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """One statement. `time` is when the pruning was done; `key` and `signature` as in a checkpoint."""

    seq: int
    hash: str
    time: str
    key: str
    signature: str = ""

    @property
    def message(self) -> bytes:
        """The bytes that the signature is over."""
        members: dict[str, MemberValue] = {
            "seq": self.seq,
            "hash": self.hash,
            "time": self.time,
            "key": self.key,
            "v": FORMAT_VERSION,
        }
        return PRUNED_CONTEXT + encode_canonical(members)


def encode_pruned(pruned: Pruned) -> bytes:
    """Return the line, with its line feed, of a signed statement."""
    return (
        encode_canonical(
            {
                "hash": pruned.hash,
                "key": pruned.key,
                "seq": pruned.seq,
                "signature": pruned.signature,
                "time": pruned.time,
                "v": FORMAT_VERSION,
            }
        )
        + b"\n"
    )


def decode_pruned(line: bytes) -> Pruned:
    """Read one line (without its line feed); the signature isn't checked here. Raises RecordError."""
    if len(line) > MAX_CHECKPOINT_BYTES:
        raise RecordError(f"the line is longer than {MAX_CHECKPOINT_BYTES} bytes")
    members = decode_canonical(line)
    if sorted(members) != _MEMBERS or members["v"] != FORMAT_VERSION:
        raise RecordError("a statement of pruning has hash, key, seq, signature, time and v, nothing else")
    seq, texts = members["seq"], {name: members[name] for name in ("hash", "key", "time", "signature")}
    if not isinstance(seq, int) or seq < 1:
        raise RecordError("the statement has no sequence number")
    hash_, key, time, signature = (str(value) for value in texts.values())
    if not (_HASH.match(hash_) and _HASH.match(key) and _SIGNATURE.match(signature)):
        raise RecordError("a hash of the statement, or its signature, isn't one")
    return Pruned(seq=seq, hash=hash_, time=time, key=key, signature=signature)
