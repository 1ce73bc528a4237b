"""UIDs: grammar of PS3.5 §9.1, names of PS3.6 Annex A. A UID is kept as `str`, without its padding."""

import re

from dicomward.vocab._uid_table import SOP_CLASS_KEYWORDS, TRANSFER_SYNTAX_KEYWORDS

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

UID_BYTES = 64
_GRAMMAR = re.compile(r"[0-9]+(?:\.[0-9]+)*\Z")
# A SHA-256 value in hexadecimal, which fills a UID's 64 characters.
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_LEADING_ZERO = re.compile(r"(?:^|\.)0[0-9]")


class UidError(ValueError):
    """The text is not a UID; the message says why."""


def parse_uid(text: str) -> str:
    """Return the UID: 1 to 64 digits and dots, no empty component (PS3.5 §9.1). Raises UidError.

    A component with a leading zero is a harmless deviation of old devices: it passes here, and `has_leading_zero`
    lets the caller count it.
    """
    if not text:
        raise UidError("a UID must not be empty")
    if len(text) > UID_BYTES:
        raise UidError(f"a UID has at most {UID_BYTES} characters, this one has {len(text)}")
    if not _GRAMMAR.match(text):
        raise UidError("a UID has digits and dots only, with a digit at each end and between dots")
    return text


def decode_uid(field: bytes) -> str:
    """Read a UID from a field padded with one NUL (PS3.5 §9.1); old devices use spaces, which pass. Raises UidError."""
    try:
        return parse_uid(field.rstrip(b"\0 ").decode("ascii"))
    except UnicodeDecodeError as error:
        raise UidError("a UID has digits and dots only") from error


def parse_instance_uid(text: str) -> str:
    """Return a SOP Instance UID, also one that is a hash value, as some de-identified files have it. Raises UidError.

    It names nothing but its object, so nothing is decided by it; and 64 characters of hexadecimal are harmless in a
    file name, a log and a database (docs/adr/0015).
    """
    return text if _HASH.match(text) else parse_uid(text)


def has_leading_zero(uid: str) -> bool:
    """Say if a component starts with a zero that PS3.5 §9.1 forbids."""
    return _LEADING_ZERO.search(uid) is not None


def uid_keyword(uid: str) -> str:
    """Return the PS3.6 keyword of a SOP class or transfer syntax, or the UID itself where PS3.6 has none."""
    return SOP_CLASS_KEYWORDS.get(uid) or TRANSFER_SYNTAX_KEYWORDS.get(uid) or uid
