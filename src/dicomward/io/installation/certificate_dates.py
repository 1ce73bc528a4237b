"""When certificates and CRLs in files end, without a library that would slow the gateway's start (RFC 5280 §4.1)."""

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_INTEGER: Final = 0x02
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18


def ends_of(path: Path) -> tuple[datetime, ...]:
    """Return when each certificate of a PEM file ends. Raises OSError, ValueError."""
    ends = tuple(_end_of(ssl.PEM_cert_to_DER_cert(pem)) for pem in _PEM.findall(path.read_text("ascii")))
    if not ends:
        raise ValueError(f"{path} holds no certificate")
    return ends


def crl_end_of(path: Path) -> datetime:
    """Return when the next CRL must be there, of a CRL in DER (RFC 5280 §5.1). Raises OSError, ValueError."""
    crl = _content(path.read_bytes(), _SEQUENCE)[0]
    rest = _content(crl, _SEQUENCE)[0]
    if rest[:1] == bytes([_INTEGER]):
        rest = _skip(rest)
    # Signature algorithm, issuer, this update.
    for _ in range(3):
        rest = _skip(rest)
    return _time_of(rest)


def _end_of(der: bytes) -> datetime:
    certificate = _content(der, _SEQUENCE)[0]
    rest = _content(certificate, _SEQUENCE)[0]
    if rest[:1] == bytes([_VERSION]):
        rest = _skip(rest)
    # Serial number, signature algorithm, issuer; then the validity.
    for _ in range(3):
        rest = _skip(rest)
    return _time_of(_skip(_content(rest, _SEQUENCE)[0]))


def _time_of(data: bytes) -> datetime:
    tag = data[0] if data else 0
    text = _content(data, tag)[0].decode("ascii")
    if tag == _UTC_TIME:
        # RFC 5280 §4.1.2.5.1: 50 to 99 are of the last century.
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"{tag:02X}H is no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _content(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return the content of the first element, and what comes after it. Raises ValueError."""
    if len(data) < 2 or data[0] != tag:
        raise ValueError("this is not a certificate")
    length, start = data[1], 2
    if length & 0x80:
        octets = length & 0x7F
        start += octets
        length = int.from_bytes(data[2:start])
    if start + length > len(data):
        raise ValueError("the certificate breaks off")
    return data[start : start + length], data[start + length :]


def _skip(data: bytes) -> bytes:
    if not data:
        raise ValueError("the certificate breaks off")
    return _content(data, data[0])[1]
