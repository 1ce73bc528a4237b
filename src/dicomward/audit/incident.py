"""What a device has touched: patients and studies, in which direction, and where the evidence has gaps.

Pure: the lines of the log go in, in order; the report comes out. Directions are the device's: it `sent`, it
`received`, it `queried`, it `found` in the matches of a query, it had something `moved` to another device, it
`reported` (a procedure step).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from dicomward.audit.chain import Record, decode_record
from dicomward.audit.encode_json import RecordError, encode_canonical

_OPERATIONS: Final = ("DW-OP-ALLOW", "DW-OP-END", "DW-OP-DENY")
_MATCHES: Final = "DW-OP-MATCH"
_EVIDENCE_COMPONENT: Final = "audit log"
_EVIDENCE_REASON: Final = "audit-"
_WORTH_READING: Final = (b'"DW-DEGR-', b'"DW-AUDIT-LOST"', b'"DW-SEC-ALERT"', b'"DW-AUDIT-PRUNE"')


@dataclass(slots=True, kw_only=True)
class Touched:
    """One patient and study in one direction. `to` is where a C-MOVE sent it. Times are those of the first and last."""

    patient_id: str
    issuer_of_patient_id: str
    study_instance_uid: str
    direction: str
    to: str
    first: str
    last: str
    operations: int = 0
    refused: int = 0
    matches: int = 0
    bytes: int = 0
    instances: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Why the list may not be complete: a stable word, from when to when as far as that is known, and a sentence."""

    kind: str
    since: str
    until: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentReport:
    """The answer. `records` is how many records of the device were read."""

    touched: tuple[Touched, ...]
    gaps: tuple[Gap, ...]
    records: int


@dataclass(frozen=True, slots=True)
class NumberedLine:
    """A line of the log (without its line feed) and the number that its place in its segment gives it."""

    seq: int
    line: bytes


class Investigation:
    """Reads records in order; `report` at the end. `since` and `until` are times as the log writes them."""

    def __init__(self, device: str, *, since: str | None, until: str | None) -> None:
        self._device = device
        self._needle = encode_canonical({"": device})[4:-1]
        self._since = since
        self._until = until
        self._touched: dict[tuple[str, str, str, str, str], Touched] = {}
        self._open: dict[tuple[str, object, str], Record] = {}
        self._gaps: list[Gap] = []
        self._degraded: dict[str, Record] = {}
        self._unknown = 0
        self._records = 0
        self._seq: int | None = None
        self._first_time = ""
        self._first_seq = 0
        self._last_time = ""
        self._is_beyond = False

    def read(self, lines: Iterable[NumberedLine]) -> None:
        """Take the next lines. Most are passed over unread: only their numbers are looked at."""
        for each in lines:
            if self._seq is not None and each.seq != self._seq + 1:
                self._gap("missing-records", "", "", f"records {self._seq + 1} to {each.seq - 1} aren't in the log")
            is_first, self._seq = self._seq is None, each.seq
            if is_first or self._needle in each.line or any(word in each.line for word in _WORTH_READING):
                self._take(each)

    def newest(self, record: Record) -> None:
        """Say which record is the newest of the whole log."""
        self._last_time = record.time

    def _take(self, each: NumberedLine) -> None:
        try:
            record = decode_record(each.line)
        except RecordError as error:
            self._gap("damaged-record", "", "", f"record {each.seq}: {error}")
            return
        if record.seq != each.seq:
            self._gap("missing-records", "", record.time, f"record {each.seq} should be where record {record.seq} is")
            self._seq = record.seq
        if not self._first_time:
            self._first_time, self._first_seq = record.time, record.seq
        self._look_at_evidence(record)
        if self._is_within(record.time):
            if record.code in _OPERATIONS:
                self._look_at_operation(record)
            elif record.code == _MATCHES and _text(record, "device") == self._device:
                self._look_at_matches(record)

    def _is_within(self, time: str) -> bool:
        return (self._since is None or time >= self._since) and (self._until is None or time < self._until)

    # --- operations --------------------------------------------------------------------------------------------------

    def _look_at_operation(self, record: Record) -> None:
        found = self._direction_of(record)
        if found is None:
            return
        self._records += 1
        direction, to = found
        key = (_text(record, "association"), record.members.get("message_id"), _text(record, "direction"))
        if record.code == "DW-OP-ALLOW":
            self._open[key] = record
            return
        began = self._open.pop(key, record)
        self._count(record, began.time, direction, to)

    def _look_at_matches(self, record: Record) -> None:
        self._records += 1
        found = record.members.get("matched")
        for each in found if isinstance(found, list) else []:
            patient, issuer, study = (*str(each).rsplit("\\", 2), "", "")[:3]
            entry = self._entry(patient, issuer, study, "found", "", record.time)
            entry.last = max(entry.last, record.time)
            entry.operations += 1

    def _entry(self, patient: str, issuer: str, study: str, direction: str, to: str, first: str) -> Touched:
        key = (patient, issuer, study, direction, to)
        touched = self._touched.get(key)
        if touched is None:
            touched = self._touched[key] = Touched(
                patient_id=patient,
                issuer_of_patient_id=issuer,
                study_instance_uid=study,
                direction=direction,
                to=to,
                first=first,
                last=first,
            )
        return touched

    def _count(self, record: Record, first: str, direction: str, to: str) -> None:
        """Enter an operation that has ended, was refused, or has no end on record."""
        patient, study = _text(record, "patient_id"), _text(record, "study_instance_uid")
        if not patient and not study:
            self._unknown += _text(record, "operation") in ("c-store", "c-get", "c-move", "n-create")
        touched = self._entry(patient, _text(record, "issuer_of_patient_id"), study, direction, to, first)
        touched.last = max(touched.last, record.time)
        if record.code == "DW-OP-DENY":
            touched.refused += 1
            return
        touched.operations += 1
        touched.matches += _number(record, "matches")
        touched.bytes += _number(record, "bytes")
        instance = _text(record, "sop_instance_uid")
        if instance and _text(record, "operation") == "c-store":
            touched.instances.add(instance)

    def _direction_of(self, record: Record) -> tuple[str, str] | None:
        """Return what the device did, and where a C-MOVE sent to; None where the record isn't about it."""
        operation = _text(record, "operation")
        if _text(record, "device") == self._device:
            match operation:
                case "c-store":
                    return ("sent" if _text(record, "direction") == "requestor" else "received"), ""
                case "c-find":
                    return "queried", ""
                case "c-get":
                    return "received", ""
                case "c-move":
                    return "moved", _text(record, "move_destination")
                case "n-create" | "n-set":
                    return "reported", ""
            return None
        if operation != "c-store":
            return None
        if _text(record, "archive") == self._device:
            return "received", ""
        if _text(record, "originator") == self._device:
            return "moved", _text(record, "archive")
        return None

    # --- evidence ----------------------------------------------------------------------------------------------------

    def _look_at_evidence(self, record: Record) -> None:
        """Note what says that records may be missing."""
        if self._since is not None and record.time < self._since and record.code != "DW-DEGR-ENTER":
            self._degraded.pop(_text(record, "component"), None)
            return
        if self._until is not None and record.time >= self._until:
            if self._is_beyond:
                return
            # The next such record still tells about the time before it.
            self._is_beyond = record.code == "DW-AUDIT-LOST"
        detail = _text(record, "detail") or _text(record, "reason")
        match record.code:
            case "DW-AUDIT-LOST":
                count = record.members.get("count")
                lost = f"{count} records" if isinstance(count, int) else "an unknown number of records"
                self._gap("records-lost", "", record.time, f"{lost} were lost before record {record.seq}: {detail}")
            case "DW-SEC-ALERT" if _text(record, "reason").startswith(_EVIDENCE_REASON):
                self._gap("tampering", "", record.time, f"record {record.seq}: {detail}")
            case "DW-DEGR-ENTER" if _EVIDENCE_COMPONENT in _text(record, "component"):
                self._degraded.setdefault(_text(record, "component"), record)
            case "DW-DEGR-LEAVE" if _EVIDENCE_COMPONENT in _text(record, "component"):
                entered = self._degraded.pop(_text(record, "component"), None)
                since = _text(record, "first") or (entered.time if entered is not None else "")
                self._degraded_gap(record, since, record.time)

    def _degraded_gap(self, record: Record, since: str, until: str) -> None:
        count = _number(record, "count")
        elsewhere = f"; {count} records of that time are in the second sink" if count else ""
        why = f"{_text(record, 'component')}: {_text(record, 'reason')}{elsewhere}"
        self._gap("degraded", since, until, why)

    def _gap(self, kind: str, since: str, until: str, detail: str) -> None:
        self._gaps.append(Gap(kind=kind, since=since, until=until, detail=detail))

    def report(self, *, signed: int, last: int, torn: Iterable[str], incomplete_bytes: int) -> IncidentReport:
        """Return what was found.

        `signed` is the newest record that a checkpoint covers and `last` the newest of all; `torn` names the files that
        keep pieces of records, `incomplete_bytes` a record that breaks off at the end.
        """
        for record in self._open.values():
            found = self._direction_of(record)
            if found is not None:
                self._count(record, record.time, *found)
        if self._open:
            count = len(self._open)
            self._gap("unfinished", "", "", f"{count} operations were allowed and have no end on record")
        for component, record in self._degraded.items():
            self._gap("degraded", record.time, "", f"{component}: {_text(record, 'reason')}; it has not ended")
        if self._unknown:
            self._gap("patient-unknown", "", "", f"{self._unknown} operations don't say whose data they were")
        if self._first_seq > 1 and (self._since is None or self._since < self._first_time):
            self._gap("pruned", "", self._first_time, f"records before {self._first_seq} were pruned or moved away")
        elif self._first_seq == 1 and self._since is not None and self._since < self._first_time:
            self._gap("before-the-log", self._since, self._first_time, "the log begins only then")
        if self._last_time and self._until is not None and self._until > self._last_time:
            self._gap("after-the-log", self._last_time, self._until, "the newest record of the log is older than this")
        if signed < last and (self._until is None or self._until > self._last_time or not self._last_time):
            self._gap(
                "unsigned-tail", "", "", f"records {signed + 1} to {last} aren't covered by a signed checkpoint yet"
            )
        for name in torn:
            self._gap("torn-record", "", "", f"a crash tore a record: its pieces are in {name}")
        if incomplete_bytes:
            self._gap("torn-record", "", "", f"{incomplete_bytes} bytes at the end of the log are no whole record")
        touched = sorted(self._touched.values(), key=lambda each: (each.first, each.patient_id))
        return IncidentReport(touched=tuple(touched), gaps=tuple(self._gaps), records=self._records)


def _text(record: Record, name: str) -> str:
    value = record.members.get(name)
    return value if isinstance(value, str) else ""


def _number(record: Record, name: str) -> int:
    value = record.members.get(name)
    return value if isinstance(value, int) else 0
