"""The certificate that a peer has proved the key of, as far as identity needs it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCertificate:
    """What io reads after every handshake, resumed ones too.

    `sha256`: fingerprint of the DER form, lower-case hex; `not_before`, `not_after`: its validity (RFC 5280 §4.1.2.5),
    aware times, both inclusive; `subject`: for the audit record only, nothing is decided by it.
    """

    sha256: str
    not_before: datetime
    not_after: datetime
    subject: str
