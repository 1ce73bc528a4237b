"""CMP transactions: which IDs were seen, and what waits for a confirmation or an approval. Kept in memory."""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dicomward.enrolment.cmp_message import Kind
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.request import CertificationRequest
from dicomward.vocab.reason import ReasonCode

LIFE: Final = timedelta(minutes=30)
MOST_TRANSACTIONS: Final = 4096
# More than may wait for approval; strangers push out each other, and nobody else.
MOST_OF_STRANGERS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who has begun a transaction: a secret of CMP, or the certificate (DER) that has signed; neither is a stranger."""

    device: str
    secret: str = field(default="", repr=False)
    certificate: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A certificate (DER) that waits for its certConf, which has to answer `nonce`."""

    owner: Owner
    certificate: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """A request that waits for approval: `kind` it was, `number` in its message, `nonce` that a pollReq answers."""

    owner: Owner
    kind: Kind
    number: int
    request: CertificationRequest
    nonce: bytes
    is_implicit: bool


class Transactions:
    """Not thread-safe: its owner holds a lock. The oldest are forgotten when there are too many."""

    def __init__(self) -> None:
        self._strangers: OrderedDict[bytes, None] = OrderedDict()
        self._seen: OrderedDict[bytes, tuple[datetime, Pending | Polling | None]] = OrderedDict()

    def begin(self, identifier: bytes, now: datetime, *, is_stranger: bool = False) -> None:
        """Note a new transaction. Raises EnrolmentRefusedError if it is none."""
        self._forget(now)
        if identifier in self._seen:
            raise EnrolmentRefusedError(ReasonCode.CMP_REPLAYED, f"the transaction {identifier.hex()} was seen before")
        if is_stranger:
            if len(self._strangers) >= MOST_OF_STRANGERS:
                del self._seen[self._strangers.popitem(last=False)[0]]
            self._strangers[identifier] = None
        if len(self._seen) >= MOST_TRANSACTIONS:
            self._drop_oldest()
        self._seen[identifier] = (now, None)

    def wait(self, identifier: bytes, pending: Pending | Polling, now: datetime) -> None:
        """Let a certificate wait for its confirmation, or a request for its approval."""
        self._keep(identifier, pending, now)

    def pending(self, identifier: bytes, now: datetime) -> Pending:
        """Return the certificate that waits. Raises EnrolmentRefusedError if none does."""
        found = self._found(identifier, now)
        if not isinstance(found, Pending):
            raise EnrolmentRefusedError(
                ReasonCode.CMP_CERTIFICATE_WRONG, f"nothing waits for a confirmation in {identifier.hex()}"
            )
        return found

    def polling(self, identifier: bytes, now: datetime) -> Polling:
        """Return the request that waits for approval. Raises EnrolmentRefusedError if none does."""
        found = self._found(identifier, now)
        if not isinstance(found, Polling):
            raise EnrolmentRefusedError(
                ReasonCode.CMP_CERTIFICATE_WRONG, f"nothing waits for an approval in {identifier.hex()}"
            )
        return found

    def _found(self, identifier: bytes, now: datetime) -> Pending | Polling | None:
        self._forget(now)
        return self._seen.get(identifier, (now, None))[1]

    def close(self, identifier: bytes, now: datetime) -> None:
        """Let nothing wait any more; the ID stays known."""
        self._keep(identifier, None, now)

    def _keep(self, identifier: bytes, kept: Pending | Polling | None, now: datetime) -> None:
        self._seen[identifier] = (now, kept)
        self._seen.move_to_end(identifier)
        if identifier in self._strangers:
            self._strangers.move_to_end(identifier)

    def _forget(self, now: datetime) -> None:
        while self._seen and next(iter(self._seen.values()))[0] + LIFE <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        identifier, _kept = self._seen.popitem(last=False)
        self._strangers.pop(identifier, None)
