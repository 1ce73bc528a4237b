"""Syslog: the message of RFC 5424 §6 as PS3.15 A.6 wants it, and the frame of RFC 5425 §4.3."""

from typing import Final

MAX_MESSAGE_BYTES: Final = 32_768
"""PS3.15 A.6: what every receiver must take; our messages are made to stay below."""

_FACILITY: Final = 10  # security and authorisation
NOTICE: Final = 5
WARNING: Final = 4
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

MESSAGE_IDS: Final = {
    "dicom": "DICOM+RFC3881",
    "fhir": "IHE+FHIR",
    "ecs": "DICOMWARD+ECS",
    "json": "DICOMWARD+RECORD",
    "head": "DICOMWARD+HEAD",
}


def encode_message(body: bytes, *, time: str, host: str, process_id: str, message_id: str, severity: int) -> bytes:
    """Return the syslog message: header, no structured data, byte order mark and the body (UTF-8)."""
    header = f"<{_FACILITY * 8 + severity}>1 {time} {_word(host, 255)} dicomward {process_id} {message_id} - "
    return header.encode("ascii") + _BYTE_ORDER_MARK + body


def frame(message: bytes) -> bytes:
    """Return the message with its length in octets before it."""
    return b"%d %b" % (len(message), message)


def _word(text: str, most: int) -> str:
    """Return a header field: printable ASCII without blanks, `-` for nothing."""
    return "".join(each for each in text if "!" <= each <= "~")[:most] or "-"
