"""The answers of a simulated archive: made from arithmetic, so that millions cost no memory.

Study j of n happened on day j*days//n, and is of patient j mod p. An answer has exactly the attributes that were asked
for, in Implicit VR Little Endian.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from struct import Struct
from typing import Final

from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.framing import encode_p_data
from dicomward.vocab.dimse import RESPONSE_BIT, Operation, Status
from fleet.manifest import Server

LAST_DAY: Final = date(2023, 6, 30)
CHUNK: Final = 512
_ELEMENT: Final = Struct("<HHI")
_NAME: Final = 0x00100010
PATIENT_ID: Final = 0x00100020
STUDY_INSTANCE_UID: Final = 0x0020000D
_ID: Final = PATIENT_ID
_UID: Final = STUDY_INSTANCE_UID
_UID_ROOT: Final = b"1.2.826.0.1.3680043.8.498."
_DATE: Final = 0x00080020
_COUNTRY: Final = 0x00102150
# What differs from answer to answer, as it goes into the format of all.
_MARKED: Final[dict[int, bytes]] = {
    _DATE: b"%b",
    _NAME: b"PATIENT^N%010d",
    _ID: b"%010d",
    _UID: _UID_ROOT + b"%012d",
}
_SIZES: Final = {_DATE: 8, _NAME: 19, _ID: 10, _UID: 38}
_FIXED: Final = {
    0x00080030: b"101500",
    0x00080050: b"A00012345 ",
    0x00080061: b"CT\\SR ",
    0x00080090: b"REFERRER^R",
    0x00081030: b"CT CHEST ",
    0x00081080: b"COUGH, FEVER",
    0x00100021: b"",
    0x00100030: b"19610203",
    0x00100040: b"F ",
    0x00101000: b"NN 4711 0815",
    0x00101040: b"1 MAIN STREET ",
    0x00102154: b"+00 555 0100",
    _COUNTRY: b"",
}
# What differs between examinations: descriptions of other lengths, no referrer, no telephone.
_VARIANTS: Final[tuple[dict[int, bytes], ...]] = (
    {},
    {0x00081030: b"MR BRAIN WITHOUT CONTRAST "},
    {0x00080090: b""},
    {0x00081030: b"US ABDOMEN", 0x00102154: b"", 0x00101000: b""},
)


def first_day(server: Server) -> date:
    """Return the day of study 0."""
    return LAST_DAY - timedelta(days=server.days - 1)


def studies_between(server: Server, first: date | None, last: date | None) -> range:
    """Return the numbers of the studies from `first` to `last`; None is open."""
    start = first_day(server)
    low = 0 if first is None else min(max((first - start).days, 0), server.days)
    high = server.days if last is None else min(max((last - start).days + 1, 0), server.days)
    number, days = server.studies, server.days
    found = range(-(-low * number // days), -(-high * number // days))
    return found[: server.cap] if server.cap else found


def studies_with_uid(studies: range, uid: bytes) -> range:
    """Return the one of them that has the UID, none if nobody has it."""
    number = uid.removeprefix(_UID_ROOT)
    if number == uid or not number.isdigit() or int(number) not in studies:
        return studies[:0]
    return range(int(number), int(number) + 1)


class Answers:
    """The encoded answers to one query of one server."""

    def __init__(
        self,
        server: Server,
        asked: frozenset[int],
        *,
        context_id: int,
        message_id: int,
        sop_class_uid: str,
        max_pdu_bytes: int,
    ) -> None:
        self._server = server
        self._asked = asked
        self._context_id = context_id
        self._max_pdu = max_pdu_bytes
        self._command = encode_p_data(
            context_id,
            encode_command_set(
                CommandSet(
                    command_field=Operation.C_FIND | RESPONSE_BIT,
                    message_id_being_responded_to=message_id,
                    affected_sop_class_uid=sop_class_uid,
                    status=Status.PENDING,
                    has_data_set=True,
                )
            ),
            max_pdu_bytes,
            command=True,
        )
        self._marked = tuple(tag for tag in sorted(asked) if tag in _MARKED)

    def chunks(self, studies: range) -> Iterator[bytes]:
        """Yield the answers in chunks of at most CHUNK."""
        server = self._server
        number, days, patients = server.studies, server.days, server.patients
        start = first_day(server)
        every = self._marked == (_DATE, _NAME, _ID, _UID)
        formats = self._formats()
        at = studies.start
        out: list[bytes] = []
        while at < studies.stop:
            day = at * days // number
            stop = min(-(-(day + 1) * number // days), studies.stop)
            when = b"%04d%02d%02d" % (start + timedelta(days=day)).timetuple()[:3]
            while at < stop:
                upto = min(stop, at + CHUNK - len(out))
                for study in range(at, upto):
                    patient = study % patients
                    form = formats[(study & 3) + (4 if server.abroad and not patient % 20 else 0)]
                    if every:
                        out.append(form % (when, patient, patient, study))
                    else:
                        values = {_DATE: when, _UID: study}
                        out.append(form % tuple(values.get(tag, patient) for tag in self._marked))
                at = upto
                if len(out) >= CHUNK:
                    yield b"".join(out)
                    out = []
        if out:
            yield b"".join(out)

    def _formats(self) -> list[bytes]:
        """Return the formats: four variants at home, four from abroad."""
        return [
            self._format({**_FIXED, **variant, _COUNTRY: country})
            for country in (b"", self._server.abroad.encode())
            for variant in _VARIANTS
        ]

    def _format(self, values: dict[int, bytes]) -> bytes:
        identifier = bytearray()
        marks: list[tuple[int, int, bytes]] = []
        for tag in sorted(self._asked | {0x00080052}):
            value = b"STUDY " if tag == 0x00080052 else bytes(_SIZES[tag]) if tag in _SIZES else values.get(tag, b"")
            value += b" " * (len(value) & 1)
            identifier += _ELEMENT.pack(tag >> 16, tag & 0xFFFF, len(value))
            if tag in _SIZES:
                marks.append((len(identifier), _SIZES[tag], _MARKED[tag]))
            identifier += value
        whole = encode_p_data(self._context_id, bytes(identifier), self._max_pdu, command=False)
        if len(whole) != len(identifier) + 12:
            raise ValueError("an answer has to fit into one PDU")
        form = self._command.replace(b"%", b"%%")
        at = 0
        body = whole[12:]
        form += whole[:12].replace(b"%", b"%%")
        for place, size, mark in marks:
            form += body[at:place].replace(b"%", b"%%") + mark
            at = place + size
        return form + body[at:].replace(b"%", b"%%")
