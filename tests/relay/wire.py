"""What peers put on the wire, and what they read from it: written apart from the framing that is under test."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from struct import pack, unpack_from

from dicomward.dicom.codec import decode_pdu, encode_pdu
from dicomward.dicom.deviation import Deviation
from dicomward.dicom.dimse import CommandSet, decode_command_set, encode_command_set
from dicomward.dicom.limits import Limits
from dicomward.dicom.messages import MESSAGES
from dicomward.dicom.pdu import (
    AAbort,
    AAssociateAc,
    AAssociateRq,
    AReleaseRp,
    AReleaseRq,
    ControlPdu,
    PresentationContextAc,
    PresentationContextRq,
    UserInformation,
)
from dicomward.vocab.dimse import C_CANCEL_RQ, RESPONSE_BIT, Operation
from dicomward.vocab.uid import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

LIMITS = Limits()
IMPLEMENTATION = "1.2.276.0.99.7"

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
WORKLIST = "1.2.840.10008.5.1.4.31"
MPPS = "1.2.840.10008.3.1.2.3.3"
COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
PRINT_META = "1.2.840.10008.5.1.1.9"
FILM_SESSION = "1.2.840.10008.5.1.1.1"

LITTLE = (IMPLICIT_VR_LITTLE_ENDIAN,)
BOTH = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)

Contexts = Mapping[int, str]


# -- association PDUs --------------------------------------------------------------------------------------------------


def a_associate_rq(
    contexts: Contexts,
    *,
    calling: str = "CT1",
    called: str = "PACS",
    user: UserInformation | None = None,
    transfer_syntaxes: tuple[str, ...] = LITTLE,
    **changes: object,
) -> AAssociateRq:
    return AAssociateRq(
        called_ae_title=called,
        calling_ae_title=calling,
        presentation_contexts=tuple(
            PresentationContextRq(context_id=i, abstract_syntax=uid, transfer_syntaxes=transfer_syntaxes)
            for i, uid in contexts.items()
        ),
        user_information=user or UserInformation(maximum_length=16384, implementation_class_uid=IMPLEMENTATION),
        **changes,  # type: ignore[arg-type]
    )


def a_associate_ac(request: AAssociateRq, *, user: UserInformation | None = None) -> AAssociateAc:
    """Return the answer of an acceptor that takes everything."""
    return AAssociateAc(
        called_ae_title=request.called_ae_title,
        calling_ae_title=request.calling_ae_title,
        presentation_contexts=tuple(
            PresentationContextAc(context_id=c.context_id, result=0, transfer_syntax=c.transfer_syntaxes[0])
            for c in request.presentation_contexts
        ),
        user_information=user or UserInformation(maximum_length=32768, implementation_class_uid=IMPLEMENTATION),
    )


RELEASE_RQ = encode_pdu(AReleaseRq())
RELEASE_RP = encode_pdu(AReleaseRp())
ABORT = encode_pdu(AAbort(source=0, reason=0))


# -- data sets ---------------------------------------------------------------------------------------------------------


def data_set(elements: Mapping[int, bytes | str]) -> bytes:
    """Return a data set in Implicit VR Little Endian."""
    out = b""
    for tag, value in sorted(elements.items()):
        raw = value.encode() if isinstance(value, str) else value
        raw += b"\0" * (len(raw) % 2)
        out += pack("<HHI", tag >> 16, tag & 0xFFFF, len(raw)) + raw
    return out


def image(instance: str = "1.2.3", sop_class: str = CT_IMAGE, pixels: bytes = b"px") -> bytes:
    return data_set({0x00080016: sop_class, 0x00080018: instance, 0x7FE00010: pixels})


def identifier(level: str = "STUDY", **keys: str) -> bytes:
    values: dict[int, bytes | str] = {0x00080052: level, 0x00100020: keys.pop("patient_id", "4711")}
    if "study" in keys:
        values[0x0020000D] = keys["study"]
    return data_set(values)


def transaction(uid: str = "1.2.7.1") -> bytes:
    return data_set({0x00081195: uid, 0x00081199: b""})


# -- messages ----------------------------------------------------------------------------------------------------------


def c_echo_rq(message_id: int = 1, **changes: object) -> CommandSet:
    return CommandSet(
        **{  # type: ignore[arg-type]
            "command_field": Operation.C_ECHO,
            "message_id": message_id,
            "affected_sop_class_uid": VERIFICATION,
            **changes,
        }
    )


def c_store_rq(
    message_id: int = 1, instance: str = "1.2.3", sop_class: str = CT_IMAGE, **changes: object
) -> CommandSet:
    return CommandSet(
        **{  # type: ignore[arg-type]
            "command_field": Operation.C_STORE,
            "has_data_set": True,
            "message_id": message_id,
            "affected_sop_class_uid": sop_class,
            "affected_sop_instance_uid": instance,
            "priority": 0,
            **changes,
        }
    )


def retrieval_rq(operation: Operation, message_id: int = 1, **changes: object) -> CommandSet:
    sop_class = {Operation.C_FIND: STUDY_FIND, Operation.C_GET: STUDY_GET, Operation.C_MOVE: STUDY_MOVE}[operation]
    return CommandSet(
        **{  # type: ignore[arg-type]
            "command_field": operation,
            "has_data_set": True,
            "message_id": message_id,
            "affected_sop_class_uid": sop_class,
            "priority": 0,
            **changes,
        }
    )


def c_find_rq(message_id: int = 1, **changes: object) -> CommandSet:
    return retrieval_rq(Operation.C_FIND, message_id, **changes)


def c_get_rq(message_id: int = 1, **changes: object) -> CommandSet:
    return retrieval_rq(Operation.C_GET, message_id, **changes)


def c_move_rq(message_id: int = 1, destination: str = "WS1", **changes: object) -> CommandSet:
    return retrieval_rq(Operation.C_MOVE, message_id, move_destination=destination, **changes)


def c_cancel_rq(message_id: int = 1) -> CommandSet:
    return CommandSet(command_field=C_CANCEL_RQ, message_id_being_responded_to=message_id)


def n_action_rq(message_id: int = 1, *, has_data_set: bool = True) -> CommandSet:
    return CommandSet(
        command_field=Operation.N_ACTION,
        has_data_set=has_data_set,
        message_id=message_id,
        requested_sop_class_uid=COMMITMENT,
        requested_sop_instance_uid=COMMITMENT_INSTANCE,
        action_type_id=1,
    )


def n_event_report_rq(message_id: int = 1, *, has_data_set: bool = True) -> CommandSet:
    return CommandSet(
        command_field=Operation.N_EVENT_REPORT,
        has_data_set=has_data_set,
        message_id=message_id,
        affected_sop_class_uid=COMMITMENT,
        affected_sop_instance_uid=COMMITMENT_INSTANCE,
        event_type_id=1,
    )


def n_create_rq(message_id: int = 1, sop_class: str = MPPS, instance: str | None = "1.2.9") -> CommandSet:
    return CommandSet(
        command_field=Operation.N_CREATE,
        has_data_set=True,
        message_id=message_id,
        affected_sop_class_uid=sop_class,
        affected_sop_instance_uid=instance,
    )


def response_to(request: CommandSet, status: int = 0, *, has_data_set: bool = False, **changes: object) -> CommandSet:
    return CommandSet(
        **{  # type: ignore[arg-type]
            "command_field": request.command_field | RESPONSE_BIT,
            "has_data_set": has_data_set,
            "message_id_being_responded_to": request.message_id,
            "affected_sop_class_uid": request.sop_class_uid,
            "status": status,
            **changes,
        }
    )


def pdv(context_id: int, data: bytes, *, command: bool, last: bool = True) -> bytes:
    return pack(">IBB", len(data) + 2, context_id, command | last << 1) + data


def p_data(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return pack(">BBI", 4, 0, len(body)) + body


def fragments(context_id: int, data: bytes, *, command: bool, size: int, ends: bool = True) -> bytes:
    """Return PDUs with one PDV each of at most `size` bytes of `data`."""
    parts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    return b"".join(
        p_data(pdv(context_id, part, command=command, last=ends and i == len(parts) - 1))
        for i, part in enumerate(parts)
    )


def message(context_id: int, command: CommandSet, data: bytes | None = None, *, size: int = 4096) -> bytes:
    """Return a whole message, its data set in fragments of `size` bytes."""
    out = fragments(context_id, encode_command_set(command), command=True, size=size)
    return out if data is None else out + fragments(context_id, data, command=False, size=size)


# -- reading -----------------------------------------------------------------------------------------------------------


# Command sets are made anew, so deviations of their form are gone; those of their values stay.
KEPT = {
    Deviation.PENDING_WITHOUT_DATA_SET,
    Deviation.DATA_SET_WITHOUT_PENDING,
    Deviation.UID_LEADING_ZERO,
    Deviation.INSTANCE_UID_LETTERS,
}


@dataclass(frozen=True)
class Message:
    """A whole DIMSE message as the peer reads it."""

    context_id: int
    command: CommandSet
    data: bytes | None = None

    @property
    def name(self) -> str:
        return MESSAGES[self.command.command_field].name

    @property
    def message_id(self) -> int | None:
        command = self.command
        return command.message_id if command.message_id is not None else command.message_id_being_responded_to

    def __str__(self) -> str:
        text = f"{self.name} {self.message_id} on {self.context_id}"
        if self.command.status is not None:
            text += f" status {self.command.status:04X}"
        return text if self.data is None else f"{text} with {len(self.data)} bytes"


@dataclass
class Reader:
    """A peer that reads strictly: whole PDUs, at most `max_pdu` bytes, messages never mixed."""

    max_pdu: int = 1 << 20
    _rest: bytes = b""
    _parts: bytearray = field(default_factory=bytearray)
    _command: CommandSet | None = None
    _context_id: int = 0
    ended: bool = False

    @property
    def in_message(self) -> bool:
        return self._command is not None or bool(self._parts)

    def read(self, data: bytes) -> list[ControlPdu | Message]:
        self._rest += data
        out: list[ControlPdu | Message] = []
        while len(self._rest) >= 6:
            kind, reserved, length = unpack_from(">BBI", self._rest)
            assert reserved == 0
            if len(self._rest) < 6 + length:
                break
            body, self._rest = self._rest[6 : 6 + length], self._rest[6 + length :]
            assert not self.ended, "a PDU after the end of the association"
            if kind == 4:
                assert length <= self.max_pdu, f"PDU of {length} bytes, at most {self.max_pdu}"
                out += self._p_data(body)
                continue
            pdu = decode_pdu(kind, body, LIMITS)
            # An A-ABORT may come in the middle of a message, nothing else may.
            assert isinstance(pdu, AAbort) or not self.in_message, f"{pdu} in the middle of a message"
            self.ended = isinstance(pdu, AAbort)
            out.append(pdu)
        return out

    def finish(self) -> None:
        """Fail if a PDU was cut."""
        assert not self._rest, f"{len(self._rest)} bytes of a PDU without its end"

    def _p_data(self, body: bytes) -> Iterator[Message]:
        at = 0
        while at < len(body):
            length, context_id, flags = unpack_from(">IBB", body, at)
            assert length >= 2
            assert at + 4 + length <= len(body)
            assert flags & ~3 == 0
            data = body[at + 6 : at + 4 + length]
            at += 4 + length
            if self.in_message:
                assert context_id == self._context_id, "two messages mixed"
            self._context_id = context_id
            assert bool(flags & 1) is (self._command is None), "command and data set mixed"
            self._parts += data
            if not flags & 2:
                continue
            whole, self._parts = bytes(self._parts), bytearray()
            if self._command is None:
                command = decode_command_set(whole, LIMITS)
                assert {*command.deviations} <= KEPT, command.deviations
                if command.has_data_set:
                    self._command = command
                else:
                    yield Message(context_id, command)
            else:
                command, self._command = self._command, None
                yield Message(context_id, command, whole)
        assert at == len(body)


def read_all(data: bytes) -> list[ControlPdu | Message]:
    """Read a stream that ends with a whole PDU."""
    reader = Reader()
    out = reader.read(data)
    reader.finish()
    return out
