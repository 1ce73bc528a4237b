"""Reading what rules ask of an identifier or a data set's head, from the values that `dicom.head` found."""

from collections.abc import Mapping
from typing import Final

from dicomward.policy.keys import is_filled

SOP_CLASS_UID: Final = 0x00080016
SOP_INSTANCE_UID: Final = 0x00080018
ACCESSION_NUMBER: Final = 0x00080050
QUERY_RETRIEVE_LEVEL: Final = 0x00080052
PATIENT_NAME: Final = 0x00100010
PATIENT_ID: Final = 0x00100020
PATIENT_BIRTH_DATE: Final = 0x00100030
TRANSACTION_UID: Final = 0x00081195
STUDY_INSTANCE_UID: Final = 0x0020000D
SERIES_INSTANCE_UID: Final = 0x0020000E
END_OF_DATA_SET: Final = 0xFFFFFFFF

# A list of UIDs may be too long for the head to keep; it narrows all the same.
_UID_KEYS: Final = frozenset({SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID})


def uid_value(value: bytes | None) -> str:
    """Return a UID without its padding, as it stands; "" where there is none."""
    return (value or b"").rstrip(b"\0 ").decode("latin-1")


def is_narrowing(value: bytes | None) -> bool:
    """Say if the value of a key narrows a query: it isn't empty, and not only wildcards."""
    return value is None or bool(value.strip(b"\0 *?\\^"))


def single_value(value: bytes | None) -> bytes:
    """Return the value of a key that names exactly one thing; b"" where it names none or several."""
    text = (value or b"").strip(b"\0 ")
    return b"" if any(sign in text for sign in b"*?\\") else text


def query_facts(values: Mapping[int, bytes | None]) -> tuple[str | None, frozenset[int]]:
    """Return the query level, if stated, and the keys that narrow; one that names a thing has no wildcards."""
    level = (values.get(QUERY_RETRIEVE_LEVEL) or b"").strip(b"\0 ").decode("latin-1")
    keys = frozenset(
        tag
        for tag, value in values.items()
        if tag != QUERY_RETRIEVE_LEVEL and (tag in _UID_KEYS if value is None else is_filled(tag, value))
    )
    return level or None, keys
