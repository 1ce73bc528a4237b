"""CMP messages on the wire: the frame around every body (RFC 9810 §5.1), read and written. Nothing is verified here."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

from dicomward.enrolment import der
from dicomward.enrolment.der import DerError, Item, Reader
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.vocab.reason import ReasonCode

CMP_PATH: Final = "/.well-known/cmp"
PKIX_CMP: Final = "application/pkixcmp"
VERSION: Final = 2
_VERSIONS: Final = (2, 3)
_IMPLICIT_CONFIRM: Final = der.encode_oid("1.3.6.1.5.5.7.4.13")
_LEAST_NONCE_BYTES: Final = 16
_MOST_ID_BYTES: Final = 64
# The context tags of header and frame, all explicit.
_BASE: Final = 0xA0


class Kind(IntEnum):
    """The bodies that are taken or sent; the number is the tag."""

    IR = 0
    IP = 1
    CR = 2
    CP = 3
    P10CR = 4
    KUR = 7
    KUP = 8
    RR = 11
    RP = 12
    PKICONF = 19
    GENM = 21
    GENP = 22
    ERROR = 23
    CERTCONF = 24
    POLLREQ = 25
    POLLREP = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class CmpHeader:
    """What a header says. Names and `algorithm` (of the protection) are DER; "" bytes where there is none."""

    version: int = VERSION
    sender: bytes
    recipient: bytes
    algorithm: bytes = b""
    sender_key_id: bytes = b""
    transaction_id: bytes
    sender_nonce: bytes
    recipient_nonce: bytes = b""
    is_implicit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CmpMessage:
    """A message; `protected` are the bytes that its protection is for, `certificates` are DER, the sender's first."""

    header: CmpHeader
    kind: Kind
    body: bytes
    protected: bytes
    protection: bytes = b""
    certificates: tuple[bytes, ...] = ()


def unreadable(error: object) -> EnrolmentRefusedError:
    """Return the refusal of what can't be read."""
    return EnrolmentRefusedError(ReasonCode.CMP_UNREADABLE, f"no CMP message: {error}")


def decode_header(data: bytes) -> CmpHeader | None:
    """Return the header of a message as far as it can be read at all: for the answer to a bad one."""
    try:
        return _header(Reader(data).take(der.SEQUENCE).reader().take(der.SEQUENCE))
    except DerError:
        return None


def decode_message(data: bytes) -> CmpMessage:
    """Read a message. Raises EnrolmentRefusedError."""
    try:
        frame = der.only(data, der.SEQUENCE).reader()
        head, body = frame.take(der.SEQUENCE), frame.item()
        protection, certificates = frame.optional(_BASE), frame.optional(_BASE + 1)
        frame.end()
        header = _header(head)
        bits = b"" if protection is None else der.decode_bits(der.only(protection.content, der.BIT_STRING))
        found = () if certificates is None else tuple(der.only(certificates.content, der.SEQUENCE).reader().items())
    except DerError as error:
        raise unreadable(error) from error
    if header.version not in _VERSIONS:
        raise EnrolmentRefusedError(ReasonCode.CMP_VERSION, f"CMP of the version {header.version}")
    if not (
        _LEAST_NONCE_BYTES <= len(header.sender_nonce) <= _MOST_ID_BYTES
        and _LEAST_NONCE_BYTES <= len(header.transaction_id) <= _MOST_ID_BYTES
    ):
        raise unreadable("the transaction ID and the sender's nonce have to have 16 to 64 bytes")
    try:
        kind = Kind(body.tag - _BASE)
    except ValueError as error:
        raise EnrolmentRefusedError(ReasonCode.CMP_NOT_OFFERED, f"a body with the tag {body.tag:#04x}") from error
    return CmpMessage(
        header=header,
        kind=kind,
        body=body.content,
        protected=der.encode(der.SEQUENCE, head.encoded, body.encoded),
        protection=bits,
        certificates=tuple(each.encoded for each in found),
    )


def _header(item: Item) -> CmpHeader:
    reader = item.reader()
    version, sender, recipient = der.decode_integer(reader.take(der.INTEGER)), reader.item(), reader.item()
    fields: dict[int, bytes] = {}
    for each in reader.items():
        if each.tag in fields or not _BASE <= each.tag <= _BASE + 8:
            raise DerError(f"the header has a field with the tag {each.tag:#04x}, or twice")
        fields[each.tag] = each.content
    return CmpHeader(
        version=version,
        sender=sender.encoded,
        recipient=recipient.encoded,
        algorithm=fields.get(_BASE + 1, b""),
        sender_key_id=_octets(fields.get(_BASE + 2)),
        transaction_id=_octets(fields.get(_BASE + 4)),
        sender_nonce=_octets(fields.get(_BASE + 5)),
        recipient_nonce=_octets(fields.get(_BASE + 6)),
        is_implicit=_is_implicit(fields.get(_BASE + 8)),
    )


def _octets(content: bytes | None) -> bytes:
    return b"" if content is None else der.only(content, der.OCTETS).content


def _is_implicit(content: bytes | None) -> bool:
    if content is None:
        return False
    items = der.only(content, der.SEQUENCE).reader().items()
    return any(each.content.startswith(_IMPLICIT_CONFIRM) for each in items)


def encode_protected(header: CmpHeader, kind: Kind, body: bytes, now: datetime) -> tuple[bytes, bytes]:
    """Return the bytes to be protected, and their two parts as they stand in the message."""
    fields = [
        (0, der.encode(der.TIME, f"{now.astimezone(UTC):%Y%m%d%H%M%SZ}".encode("ascii"))),
        (1, header.algorithm),
        *(
            (number, der.encode(der.OCTETS, value) if value else b"")
            for number, value in (
                (2, header.sender_key_id),
                (4, header.transaction_id),
                (5, header.sender_nonce),
                (6, header.recipient_nonce),
            )
        ),
        (
            8,
            der.encode(der.SEQUENCE, encode_info(_IMPLICIT_CONFIRM, der.encode(der.NULL)))
            if header.is_implicit
            else b"",
        ),
    ]
    head = der.encode(
        der.SEQUENCE,
        der.encode_integer(header.version),
        header.sender,
        header.recipient,
        *(der.encode(_BASE + number, value) for number, value in fields if value),
    )
    parts = head + der.encode(_BASE + kind, body)
    return der.encode(der.SEQUENCE, parts), parts


def encode_info(oid: bytes, value: bytes) -> bytes:
    """Return an InfoTypeAndValue."""
    return der.encode(der.SEQUENCE, oid, value)


def encode_message(parts: bytes, protection: bytes, certificates: tuple[bytes, ...]) -> bytes:
    """Return a message of what was protected."""
    chain = der.encode(der.SEQUENCE, *certificates)
    return der.encode(
        der.SEQUENCE,
        parts,
        der.encode(_BASE, der.encode(der.BIT_STRING, b"\0", protection)),
        der.encode(_BASE + 1, chain),
    )
