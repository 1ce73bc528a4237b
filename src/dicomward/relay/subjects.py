"""Whose data sets these are: the patient and the study in a head, for the audit log alone.

Nothing is judged by them: a head that can't be read leaves them unknown, and the data set passes as it would without.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dicomward.dicom.framing import DataRun, fragments_of
from dicomward.dicom.head import HeadUnreadable, scan_head
from dicomward.relay.identifiers import STUDY_INSTANCE_UID, uid_value
from dicomward.vocab.dimse import Operation

SPECIFIC_CHARACTER_SET: Final = 0x00080005
PATIENT_ID: Final = 0x00100020
ISSUER_OF_PATIENT_ID: Final = 0x00100021

IDENTIFIED: Final = frozenset({Operation.C_STORE, Operation.N_CREATE})
"""Operations whose data sets name a patient near their beginning; identifiers of queries are read in any case."""

# Nearly every head names the study within so many bytes.
_FIRST_BYTES: Final = 2048

# PS3.3 C.12.1.1.2: the first value of Specific Character Set, without "ISO_IR " or "ISO 2022 IR ".
_CODECS: Final = {
    "100": "latin-1",
    "101": "iso8859-2",
    "109": "iso8859-3",
    "110": "iso8859-4",
    "144": "iso8859-5",
    "127": "iso8859-6",
    "126": "iso8859-7",
    "138": "iso8859-8",
    "148": "iso8859-9",
    "203": "iso8859-15",
    "13": "shift_jis",
    "166": "iso8859-11",
    "192": "utf-8",
    "GB18030": "gb18030",
    "GBK": "gbk",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A patient and a study; None where the data set doesn't say, or doesn't say it in its head."""

    patient_id: str | None = None
    issuer_of_patient_id: str | None = None
    study_instance_uid: str | None = None


UNKNOWN_SUBJECT: Final = Subject()


def subject_of(values: Mapping[int, bytes | None]) -> Subject:
    """Return what raw values of a head say."""
    character_set = (values.get(SPECIFIC_CHARACTER_SET) or b"").decode("latin-1")
    codec = _CODECS.get(character_set.split("\\")[0].strip("\0 ").split(" ")[-1], "latin-1")
    return Subject(
        patient_id=_text(values.get(PATIENT_ID), codec),
        issuer_of_patient_id=_text(values.get(ISSUER_OF_PATIENT_ID), codec),
        study_instance_uid=uid_value(values.get(STUDY_INSTANCE_UID)) or None,
    )


def _text(value: bytes | None, codec: str) -> str | None:
    return (value or b"").decode(codec, "backslashreplace").strip("\0 ") or None


class SubjectTap:
    """Reads along at the beginning of one data set, at most `most_bytes` of it; the data set itself isn't held up."""

    __slots__ = ("_head", "_most_bytes", "_next_scan", "_transfer_syntax", "subject")

    def __init__(self, transfer_syntax: str, most_bytes: int) -> None:
        self._transfer_syntax = transfer_syntax
        self._most_bytes = most_bytes
        self._head = bytearray()
        self._next_scan = min(_FIRST_BYTES, most_bytes)
        self.subject = UNKNOWN_SUBJECT

    def look(self, run: DataRun) -> bool:
        """Read the next fragments; True once all is known that ever will be. Then `subject` holds it."""
        if not self._head and run.payload_bytes >= self._next_scan and not run.last:
            # Nearly always all is in the first fragment, and is read where it stands: no image is copied.
            fragment, _last = next(fragments_of(run.view))
            if len(fragment) >= self._next_scan and self._scan(fragment[: self._next_scan], complete=False):
                return True
        for fragment, _last in fragments_of(run.view):
            self._head += fragment[: self._most_bytes - len(self._head)]
            if len(self._head) == self._most_bytes:
                break
        while run.last or len(self._head) >= self._next_scan:
            # What comes in small pieces, or stands far behind, is scanned again only when there is twice as much.
            size = len(self._head) if run.last and len(self._head) < self._next_scan else self._next_scan
            complete = run.last and size == len(self._head) < self._most_bytes
            if self._scan(self._head[:size], complete=complete) or complete or size == self._most_bytes:
                return True
            self._next_scan = min(2 * size, self._most_bytes)
        return False

    def _scan(self, data: bytearray | memoryview, *, complete: bool) -> bool:
        """Read the subject from a beginning; True if no more will be known from a longer one."""
        try:
            head = scan_head(data, self._transfer_syntax, stop_after=STUDY_INSTANCE_UID, complete=complete)
        except HeadUnreadable:
            return True
        self.subject = subject_of(head.values)
        return head.finished
