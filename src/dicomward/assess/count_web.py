"""Counting by QIDO-RS (PS3.18 §10.6): what is asked, and an answer of JSON as the identifier that the tally takes.

Rules of this file: of a study only the classified attributes are taken over, and only until they are counted. What is
no study raises ValueError, which carries no byte of the answer.
"""

import json
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Final

from dicomward.assess.count_classes import ASKED_TAGS, CLASSIFIED, STUDY_INSTANCE_UID

PAGE: Final = 200
_ELEMENT: Final = Struct("<HHI")
_LONGEST: Final = 4096
_TAGS: Final = tuple(sorted((each.tag, f"{each.tag:08X}") for each in CLASSIFIED))
_SHORTEST_UID: Final = f"{STUDY_INSTANCE_UID:08X}"
# Something is there, and no text of it is needed: a sequence, a link to bulk data.
_PRESENT: Final = b"1 "


def studies_path(root: str, dates: str, offset: int) -> str:
    """Return the query for a page of the studies of `dates` (a range, or "" for any)."""
    fields = "".join(f"&includefield={tag:08X}" for tag in ASKED_TAGS)
    when = f"&StudyDate={dates}" if dates else ""
    return f"{root.rstrip('/')}/studies?limit={PAGE}&offset={offset}{when}{fields}"


def read_page(body: bytes) -> list[tuple[str, bytes]]:
    """Return the studies of a page: the UID, and the identifier in Implicit VR Little Endian. Raises ValueError."""
    if not body.strip():
        return []
    try:
        page = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the answer is no JSON (PS3.18 §F.2)") from None
    if not isinstance(page, Sequence) or isinstance(page, str) or not all(isinstance(each, Mapping) for each in page):
        raise ValueError("the answer is no list of studies (PS3.18 §10.6.3)")
    return [(_text_of(each.get(_SHORTEST_UID)).decode("ascii", "replace"), _identifier(each)) for each in page]


def _identifier(study: Mapping[str, object]) -> bytes:
    out = bytearray()
    for tag, name in _TAGS:
        if value := _text_of(study.get(name)):
            even = value + b" " if len(value) & 1 else value
            out += _ELEMENT.pack(tag >> 16, tag & 0xFFFF, len(even)) + even
    return bytes(out)


def _text_of(attribute: object) -> bytes:
    """Return the value of an attribute (PS3.18 §F.2.2), b"" where it has none."""
    if not isinstance(attribute, Mapping):
        return b""
    if attribute.get("BulkDataURI") or attribute.get("InlineBinary"):
        return _PRESENT
    values = attribute.get("Value")
    if not isinstance(values, Sequence) or isinstance(values, str):
        return b""
    parts = [_part(each) for each in values[:16]]
    return b"\\".join(each for each in parts if each)[:_LONGEST]


def _part(value: object) -> bytes:
    if isinstance(value, Mapping):
        # A person name has its groups as texts; anything else of this shape is an item of a sequence.
        groups = [each for each in value.values() if isinstance(each, str) and each.strip()]
        return "=".join(groups).encode() if groups else _PRESENT if any(value.values()) else b""
    return b"" if value is None else str(value).encode("utf-8", "replace")
