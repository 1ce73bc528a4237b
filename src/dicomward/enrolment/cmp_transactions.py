"""CMP transactions: which IDs were seen, and which certificates wait for their confirmation. Kept in memory."""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.vocab.reason import ReasonCode

LIFE: Final = timedelta(minutes=30)
MOST_TRANSACTIONS: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who has begun a transaction: a secret of CMP, or the certificate (DER) that has signed."""

    device: str
    secret: str = field(default="", repr=False)
    certificate: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A certificate (DER) that waits for its certConf, which has to answer `nonce`."""

    owner: Owner
    certificate: bytes
    nonce: bytes


class Transactions:
    """Not thread-safe: its owner holds a lock. The oldest are forgotten when there are too many."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, tuple[datetime, Pending | None]] = OrderedDict()

    def begin(self, identifier: bytes, now: datetime) -> None:
        """Note a new transaction. Raises EnrolmentRefusedError if it is none."""
        self._forget(now)
        if identifier in self._seen:
            raise EnrolmentRefusedError(ReasonCode.CMP_REPLAYED, f"the transaction {identifier.hex()} was seen before")
        if len(self._seen) >= MOST_TRANSACTIONS:
            self._seen.popitem(last=False)
        self._seen[identifier] = (now, None)

    def wait(self, identifier: bytes, pending: Pending, now: datetime) -> None:
        """Let a certificate wait for its confirmation."""
        self._seen[identifier] = (now, pending)
        self._seen.move_to_end(identifier)

    def pending(self, identifier: bytes, now: datetime) -> Pending:
        """Return what waits. Raises EnrolmentRefusedError if nothing does."""
        self._forget(now)
        found = self._seen.get(identifier, (now, None))[1]
        if found is None:
            raise EnrolmentRefusedError(
                ReasonCode.CMP_CERTIFICATE_WRONG, f"nothing waits for a confirmation in {identifier.hex()}"
            )
        return found

    def close(self, identifier: bytes, now: datetime) -> None:
        """Let nothing wait any more; the ID stays known."""
        self._seen[identifier] = (now, None)
        self._seen.move_to_end(identifier)

    def _forget(self, now: datetime) -> None:
        while self._seen and next(iter(self._seen.values()))[0] + LIFE <= now:
            self._seen.popitem(last=False)
