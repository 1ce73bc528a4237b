"""Command sets: PS3.7 §6.3.1, always Implicit VR Little Endian, group 0000.

A command set is decoded whole and encoded anew: what the standard does not put into a message is dropped on the way
and noted as a deviation. What can be read in two ways, or lacks what the message needs, raises RemoteProtocolError. One
that came exactly as we would write it keeps its bytes, which spares the encoder.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from struct import Struct
from struct import error as struct_error
from typing import Any, Final

from dicomward.dicom.deviation import Deviation
from dicomward.dicom.errors import LocalProtocolError, RemoteProtocolError
from dicomward.dicom.fields import invalid_value, read_ae_title, too_much
from dicomward.dicom.limits import Limits
from dicomward.dicom.messages import MESSAGES, RETIRED_ELEMENTS, DataSetRule, Message
from dicomward.vocab.ae_title import AeTitleError, parse_ae_title
from dicomward.vocab.association import AbortReason
from dicomward.vocab.dimse import C_CANCEL_RQ, NO_DATA_SET, RESPONSE_BIT, Element, Operation, Priority, is_pending
from dicomward.vocab.uid import UID_BYTES, UidError, decode_uid, has_leading_zero, parse_instance_uid, parse_uid

_STRUCTURE: Final = "PS3.7 §6.3.1"
_DATA_SET_PRESENT: Final = 0x0001
_WRITTEN_DATA_SET_TYPES: Final = (_DATA_SET_PRESENT, NO_DATA_SET)
_COMMENT_CHARACTERS: Final = 64
# Request and response name the same UIDs, and a series one SOP class: most UIDs are read and written again at once.
_REMEMBERED_UIDS: Final = 1024

_HEADER: Final = Struct("<HHI")
_UNSIGNED: Final = Struct("<HHIH")
_GROUP_LENGTH: Final = Struct("<HHII")
_TAG: Final = Struct("<HH")

_OPERATION: Final = {operation.value: operation for operation in Operation}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSet:
    """One command set; fields that the message does not have are None.

    A decoded one is complete for its message; one that we make is judged when it is encoded. Tags are 32-bit numbers.
    `encoded` is what it was decoded from, if that is what `encode_command_set` makes of it; `replace` never copies it.
    """

    command_field: int
    has_data_set: bool = False
    message_id: int | None = None
    message_id_being_responded_to: int | None = None
    affected_sop_class_uid: str | None = None
    requested_sop_class_uid: str | None = None
    affected_sop_instance_uid: str | None = None
    requested_sop_instance_uid: str | None = None
    priority: int | None = None
    status: int | None = None
    offending_elements: tuple[int, ...] = ()
    error_comment: str | None = None
    error_id: int | None = None
    move_destination: str | None = None
    event_type_id: int | None = None
    action_type_id: int | None = None
    attribute_identifier_list: tuple[int, ...] | None = None
    number_of_remaining_suboperations: int | None = None
    number_of_completed_suboperations: int | None = None
    number_of_failed_suboperations: int | None = None
    number_of_warning_suboperations: int | None = None
    move_originator_ae_title: str | None = None
    move_originator_message_id: int | None = None
    deviations: tuple[str, ...] = field(default=(), compare=False)
    encoded: bytes = field(default=b"", init=False, compare=False, repr=False)

    @property
    def is_cancel(self) -> bool:
        """Say if this is C-CANCEL-RQ."""
        return self.command_field == C_CANCEL_RQ

    @property
    def is_response(self) -> bool:
        """Say if this is a response."""
        return bool(self.command_field & RESPONSE_BIT)

    @property
    def is_request(self) -> bool:
        """Say if this is the request of an operation or notification; C-CANCEL-RQ is not one."""
        return not self.command_field & RESPONSE_BIT and self.command_field != C_CANCEL_RQ

    @property
    def operation(self) -> Operation:
        """Return the operation that is requested or responded to.

        Raises LocalProtocolError for C-CANCEL-RQ, which belongs to the operation that its message ID names; a decoded
        command raises it for nothing else.
        """
        try:
            return _OPERATION[self.command_field & ~RESPONSE_BIT]
        except KeyError as error:
            raise LocalProtocolError(f"the command field {self.command_field:04X}H is no operation") from error

    @property
    def sop_class_uid(self) -> str | None:
        """Return the affected or the requested SOP class UID, whichever the message has."""
        return self.affected_sop_class_uid or self.requested_sop_class_uid

    @property
    def sop_instance_uid(self) -> str | None:
        """Return the affected or the requested SOP instance UID, whichever the message has."""
        return self.affected_sop_instance_uid or self.requested_sop_instance_uid


# -- values ------------------------------------------------------------------------------------------------------------


def _decode_unsigned(value: bytes, name: str, notes: set[str]) -> int:
    if len(value) == 4 and value[2:] == b"\0\0":
        notes.add(Deviation.INTEGER_LENGTH)
    elif len(value) != 2:
        raise invalid_value(_STRUCTURE, f"{name} has {len(value)} bytes, not 2")
    return int.from_bytes(value, "little")


def _decode_uid(value: bytes, name: str, notes: set[str]) -> str:
    # What is too long for a UID is not remembered: a peer could make us hold 64 KiB for each.
    plain = _plain_uid(value) if len(value) <= UID_BYTES else None
    return _decode_odd_uid(value, name, notes) if plain is None else plain


@lru_cache(_REMEMBERED_UIDS)
def _plain_uid(value: bytes) -> str | None:
    """Return a UID that is written as PS3.5 §9.1 asks for, None for any other."""
    notes: set[str] = set()
    try:
        uid = _decode_odd_uid(value, "UID", notes)
    except RemoteProtocolError:
        return None
    return None if notes else uid


def _decode_odd_uid(value: bytes, name: str, notes: set[str]) -> str:
    try:
        uid = decode_uid(value)
    except UidError as error:
        raise invalid_value(_STRUCTURE, f"{name} {value[:80]!r}: {error}") from error
    _note_uid_padding(value, len(uid), notes)
    # The search is slow, and nearly every UID can do without it.
    if (".0" in uid or uid[0] == "0") and has_leading_zero(uid):
        notes.add(Deviation.UID_LEADING_ZERO)
    return uid


def _decode_instance_uid(value: bytes, name: str, notes: set[str]) -> str:
    """Decode the SOP Instance UID of a C-STORE, which may be a hash value (docs/adr/0015)."""
    plain = _plain_uid(value) if len(value) <= UID_BYTES else None
    if plain is not None:
        return plain
    text = value.rstrip(b"\0 ").decode("latin-1")
    try:
        uid = parse_instance_uid(text)
    except UidError as error:
        raise invalid_value(_STRUCTURE, f"{name} {value[:80]!r}: {error}") from error
    if not uid.replace(".", "").isdecimal():
        notes.add(Deviation.INSTANCE_UID_LETTERS)
        _note_uid_padding(value, len(uid), notes)
        return uid
    return _decode_odd_uid(value, name, notes)


def _note_uid_padding(value: bytes, length: int, notes: set[str]) -> None:
    # PS3.5 §9.1: a UID of an odd length has one NUL after it.
    if len(value) == length + (length & 1) and value[-1] != 0x20:
        return
    if len(value) & 1:
        notes.add(Deviation.ODD_LENGTH)
    if value[-1] == 0x20:
        notes.add(Deviation.UID_SPACE_PADDING)
    elif value[-1] == 0:
        notes.add(Deviation.UID_NUL_PADDING)


def _decode_ae_title(value: bytes, name: str, notes: set[str]) -> str | None:
    if not value.strip(b" "):
        # PS3.5 §6.2: all spaces say that there is no title.
        notes.add(Deviation.EMPTY_ELEMENT)
        return None
    if len(value) & 1:
        notes.add(Deviation.ODD_LENGTH)
    return read_ae_title(value, _STRUCTURE, name, notes)


def _decode_tags(value: bytes, name: str, notes: set[str]) -> tuple[int, ...]:
    del notes
    if len(value) & 3:
        raise invalid_value(_STRUCTURE, f"{name} has {len(value)} bytes, not a multiple of 4")
    return tuple(
        int.from_bytes(value[at : at + 2], "little") << 16 | int.from_bytes(value[at + 2 : at + 4], "little")
        for at in range(0, len(value), 4)
    )


def _decode_comment(value: bytes, name: str, notes: set[str]) -> str | None:
    del name
    if len(value) & 1:
        notes.add(Deviation.ODD_LENGTH)
    text = value.strip(b"\0 ")
    if len(text) > _COMMENT_CHARACTERS or any(not _is_comment_byte(byte) for byte in text):
        notes.add(Deviation.ERROR_COMMENT)
    comment = "".join(chr(byte) if _is_comment_byte(byte) else "?" for byte in text[:_COMMENT_CHARACTERS])
    return comment.rstrip(" ") or None


def _is_comment_byte(byte: int) -> bool:
    # PS3.5 §6.2, VR LO: no control characters, no backslash.
    return (0x20 <= byte <= 0x7E and byte != 0x5C) or byte >= 0xA0


def _element(number: int, value: bytes) -> bytes:
    return _HEADER.pack(0, number, len(value)) + value


def _encode_unsigned(number: int, value: int) -> bytes:
    return _UNSIGNED.pack(0, number, 2, value)


@lru_cache(_REMEMBERED_UIDS)
def _padded_uid(value: str) -> bytes:
    data = parse_uid(value).encode("ascii")
    return data + b"\0" if len(data) & 1 else data


def _encode_instance_uid(number: int, value: str) -> bytes:
    data = parse_instance_uid(value).encode("ascii")
    return _element(number, data + b"\0" if len(data) & 1 else data)


def _encode_uid(number: int, value: str) -> bytes:
    return _element(number, _padded_uid(value))


def _encode_ae_title(number: int, value: str) -> bytes:
    data = parse_ae_title(value).encode("ascii")
    return _element(number, data + b" " if len(data) & 1 else data)


def _encode_tags(number: int, value: tuple[int, ...]) -> bytes:
    return _element(number, b"".join(_TAG.pack(tag >> 16, tag & 0xFFFF) for tag in value))


def _encode_comment(number: int, value: str) -> bytes:
    data = value.encode("latin-1")
    if len(data) > _COMMENT_CHARACTERS or any(not _is_comment_byte(byte) for byte in data):
        raise LocalProtocolError(f"the error comment {value!r} is not 64 characters of Latin-1 without controls")
    return _element(number, data + b" " if len(data) & 1 else data)


@dataclass(frozen=True, slots=True)
class _Field:
    """How one element goes to and from its attribute of CommandSet."""

    element: Element
    attribute: str
    decode: Callable[[bytes, str, set[str]], object]
    encode: Callable[[int, Any], bytes]


def _field(element: Element, kind: str) -> _Field:
    attribute = element.name.lower()
    attribute = attribute.replace("_application_entity_title", "_ae_title")
    attribute = attribute.replace("offending_element", "offending_elements")
    decode, encode = _KINDS[kind]
    return _Field(element, attribute, decode, encode)


_KINDS: Final[dict[str, tuple[Callable[[bytes, str, set[str]], object], Callable[[int, Any], bytes]]]] = {
    "US": (_decode_unsigned, _encode_unsigned),
    "UI": (_decode_uid, _encode_uid),
    "instance": (_decode_instance_uid, _encode_instance_uid),
    "AE": (_decode_ae_title, _encode_ae_title),
    "AT": (_decode_tags, _encode_tags),
    "LO": (_decode_comment, _encode_comment),
}
_VALUE_REPRESENTATIONS: Final = {
    Element.AFFECTED_SOP_CLASS_UID: "UI",
    Element.REQUESTED_SOP_CLASS_UID: "UI",
    Element.MOVE_DESTINATION: "AE",
    Element.OFFENDING_ELEMENT: "AT",
    Element.ERROR_COMMENT: "LO",
    Element.AFFECTED_SOP_INSTANCE_UID: "UI",
    Element.REQUESTED_SOP_INSTANCE_UID: "UI",
    Element.ATTRIBUTE_IDENTIFIER_LIST: "AT",
    Element.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: "AE",
}
# Their text is trimmed when it is read, so what came need not be what we write.
_TRIMMED: Final = frozenset(
    {Element.MOVE_DESTINATION, Element.ERROR_COMMENT, Element.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE}
)
# Those that every message has are read and written apart from the others.
_COMMON: Final = (Element.COMMAND_GROUP_LENGTH, Element.COMMAND_FIELD, Element.COMMAND_DATA_SET_TYPE)
_FIELDS: Final = {
    element: _field(element, _VALUE_REPRESENTATIONS.get(element, "US"))
    for element in sorted(Element)
    if element not in _COMMON
}
_STORED_INSTANCE: Final = _field(Element.AFFECTED_SOP_INSTANCE_UID, "instance")


class _Plan:
    """A message with its fields in ascending order, ready for the decoder and the encoder."""

    __slots__ = (
        "absent",
        "after",
        "before",
        "between",
        "empty",
        "fields",
        "message",
        "read_absent",
        "read_required",
        "required",
    )

    def __init__(self, command_field: int, message: Message) -> None:
        elements = message.required | message.optional
        present = [item for element, item in _FIELDS.items() if element in elements]
        if command_field & ~RESPONSE_BIT == Operation.C_STORE:
            instance = _FIELDS[Element.AFFECTED_SOP_INSTANCE_UID]
            present = [_STORED_INSTANCE if item is instance else item for item in present]
        self.message = message
        self.fields: dict[int, _Field] = {int(item.element): item for item in present}
        self.required = tuple(item.attribute for item in present if item.element in message.required)
        self.absent = tuple(item.attribute for element, item in _FIELDS.items() if element not in elements)
        self.read_absent = attrgetter(*self.absent)
        self.empty = tuple(() if attribute == "offending_elements" else None for attribute in self.absent)
        # Two names at least, or attrgetter gives a value instead of a tuple.
        self.read_required = attrgetter("command_field", *self.required)
        writers = [(int(item.element), item.attribute, item.encode) for item in present]
        self.before = [each for each in writers if each[0] < Element.COMMAND_FIELD]
        self.between = [each for each in writers if Element.COMMAND_FIELD < each[0] < Element.COMMAND_DATA_SET_TYPE]
        self.after = [each for each in writers if each[0] > Element.COMMAND_DATA_SET_TYPE]


_PLANS: Final = {command_field: _Plan(command_field, message) for command_field, message in MESSAGES.items()}


# C-ECHOs as we would write them are nearly all the same bytes, and name nobody.
_ECHO_FIELDS: Final = (Operation.C_ECHO, Operation.C_ECHO | RESPONSE_BIT)
_REMEMBERED_ECHOES: Final = 1_000
_ECHOES: Final[dict[bytes, CommandSet]] = {}


# -- decoding ----------------------------------------------------------------------------------------------------------


def decode_command_set(data: bytes, limits: Limits) -> CommandSet:
    """Decode one whole command set: complete, consistent, bounded. Raises RemoteProtocolError."""
    if len(data) > limits.max_command_set_bytes:
        raise too_much("max_command_set_bytes", len(data), limits.max_command_set_bytes)
    known = _ECHOES.get(data)
    if known is not None:
        return known
    notes: set[str] = set()
    elements, foreign = _split(data)
    _judge_group_length(elements.pop(Element.COMMAND_GROUP_LENGTH, None), len(data), notes)
    command_field = _take_unsigned(elements, Element.COMMAND_FIELD, notes)
    plan = _PLANS.get(command_field)
    if plan is None:
        raise RemoteProtocolError(
            AbortReason.UNRECOGNISED_PARAMETER, "PS3.7 §E.1", f"the command field {command_field:04X}H is no message"
        )
    if foreign:
        if not command_field & RESPONSE_BIT:
            raise invalid_value(_STRUCTURE, f"element {foreign} in a command set")
        notes.add(Deviation.DATA_SET_IN_RESPONSE)
    data_set_type = _take_unsigned(elements, Element.COMMAND_DATA_SET_TYPE, notes)
    values: dict[str, Any] = {"command_field": command_field, "has_data_set": data_set_type != NO_DATA_SET}
    for number, value in elements.items():
        item = plan.fields.get(number)
        if item is None:
            notes.add(_dropped(number))
        elif not value:
            notes.add(Deviation.EMPTY_ELEMENT)
        else:
            values[item.attribute] = item.decode(value, item.attribute, notes)
    _judge_priority(plan, values, notes)
    _judge_completeness(plan, values)
    _judge_data_set(plan.message, values, notes)
    command = CommandSet(deviations=tuple(sorted(notes)), **values)
    if not notes and data_set_type in _WRITTEN_DATA_SET_TYPES and _TRIMMED.isdisjoint(elements):
        object.__setattr__(command, "encoded", data)
        if command_field in _ECHO_FIELDS:
            if len(_ECHOES) >= _REMEMBERED_ECHOES:
                _ECHOES.clear()
            _ECHOES[data] = command
    return command


def _split(data: bytes) -> tuple[dict[int, bytes], str]:
    """Return the value of each element number, in ascending order, and the first element of another group, if any.

    Orthanc puts the failed UIDs of a C-GET there; whoever reads a response can do without. Raises RemoteProtocolError.
    """
    elements: dict[int, bytes] = {}
    unpack = _HEADER.unpack_from
    offset, end, previous = 0, len(data), -1
    foreign = ""
    while end - offset >= _HEADER.size:
        group, number, length = unpack(data, offset)
        if group:
            foreign = foreign or f"({group:04X},{number:04X})"
            offset += _HEADER.size + length
            if offset > end:
                raise invalid_value(_STRUCTURE, f"element {foreign} in a command set")
            continue
        if foreign:
            raise invalid_value(_STRUCTURE, f"element {foreign} in a command set")
        if number <= previous:
            raise invalid_value(_STRUCTURE, f"element (0000,{number:04X}) follows (0000,{previous:04X})")
        start = offset + _HEADER.size
        offset = start + length
        if offset > end:
            raise invalid_value(_STRUCTURE, f"element (0000,{number:04X}) is longer than the command set")
        elements[number] = data[start:offset]
        previous = number
    if offset != end:
        raise invalid_value(_STRUCTURE, f"{end - offset} bytes follow the last element of a command set")
    return elements, foreign


def _judge_group_length(value: bytes | None, size: int, notes: set[str]) -> None:
    # Message control headers say where the command set ends, so a wrong group length misleads nobody.
    if value is None:
        notes.add(Deviation.MISSING_GROUP_LENGTH)
    elif len(value) != 4 or int.from_bytes(value, "little") != size - _GROUP_LENGTH.size:
        notes.add(Deviation.WRONG_GROUP_LENGTH)


def _take_unsigned(elements: dict[int, bytes], element: Element, notes: set[str]) -> int:
    value = elements.pop(element, b"")
    if not value:
        raise invalid_value(_STRUCTURE, f"a command set without {element.name.lower()}")
    return _decode_unsigned(value, element.name.lower(), notes)


def _dropped(number: int) -> Deviation:
    if number in _FIELDS:
        return Deviation.UNEXPECTED_ELEMENT
    return Deviation.RETIRED_ELEMENT if number in RETIRED_ELEMENTS else Deviation.UNKNOWN_ELEMENT


def _judge_priority(plan: _Plan, values: dict[str, Any], notes: set[str]) -> None:
    if Element.PRIORITY not in plan.fields:
        return
    priority = values.get("priority")
    if priority is None:
        notes.add(Deviation.MISSING_PRIORITY)
    elif priority <= Priority.LOW:
        return
    else:
        notes.add(Deviation.INVALID_PRIORITY)
    values["priority"] = int(Priority.MEDIUM)


def _judge_completeness(plan: _Plan, values: dict[str, Any]) -> None:
    for attribute in plan.required:
        if values.get(attribute) is None:
            raise invalid_value(plan.message.clause, f"{plan.message.name} without {attribute}")


def _judge_data_set(message: Message, values: dict[str, Any], notes: set[str]) -> None:
    has_data_set = values["has_data_set"]
    match message.data_set:
        case DataSetRule.ALWAYS if not has_data_set:
            raise invalid_value(message.clause, f"{message.name} without a data set")
        case DataSetRule.NEVER if has_data_set:
            raise invalid_value(message.clause, f"{message.name} with a data set")
        case DataSetRule.PENDING if has_data_set != is_pending(values["status"]):
            notes.add(Deviation.DATA_SET_WITHOUT_PENDING if has_data_set else Deviation.PENDING_WITHOUT_DATA_SET)
        case _:
            pass


# -- encoding ----------------------------------------------------------------------------------------------------------


def encode_command_set(command: CommandSet) -> bytes:
    """Encode one command set, with its group length. Raises LocalProtocolError if it isn't what PS3.7 asks for."""
    if command.encoded:
        return command.encoded
    plan = _PLANS.get(command.command_field)
    if plan is None:
        raise LocalProtocolError(f"the command field {command.command_field:04X}H is no message")
    message = plan.message
    if message.data_set is (DataSetRule.NEVER if command.has_data_set else DataSetRule.ALWAYS):
        raise LocalProtocolError(f"{message.name} {'with' if command.has_data_set else 'without'} a data set")
    if plan.read_absent(command) != plan.empty:
        _judge_absent(plan, command)
    if plan.required and not all(plan.read_required(command)):
        _judge_required(plan, command)
    data_set_type = _DATA_SET_PRESENT if command.has_data_set else NO_DATA_SET
    try:
        parts = [
            *_encode_fields(command, plan.before),
            _encode_unsigned(Element.COMMAND_FIELD, command.command_field),
            *_encode_fields(command, plan.between),
            _encode_unsigned(Element.COMMAND_DATA_SET_TYPE, data_set_type),
            *_encode_fields(command, plan.after),
        ]
    except (UidError, AeTitleError, UnicodeEncodeError, struct_error) as error:
        raise LocalProtocolError(f"cannot send {message.name}: {error}") from error
    body = b"".join(parts)
    return _GROUP_LENGTH.pack(0, Element.COMMAND_GROUP_LENGTH, 4, len(body)) + body


def _judge_absent(plan: _Plan, command: CommandSet) -> None:
    for attribute in plan.absent:
        if not _is_empty(getattr(command, attribute)):
            raise LocalProtocolError(f"{plan.message.name} has no {attribute} ({plan.message.clause})")


def _judge_required(plan: _Plan, command: CommandSet) -> None:
    for attribute in plan.required:
        if _is_empty(getattr(command, attribute)):
            raise LocalProtocolError(f"{plan.message.name} needs {attribute} ({plan.message.clause})")


def _is_empty(value: object) -> bool:
    return value is None or value in ((), "")


def _encode_fields(command: CommandSet, fields: list[tuple[int, str, Callable[[int, Any], bytes]]]) -> list[bytes]:
    return [
        encode(number, value)
        for number, attribute, encode in fields
        if (value := getattr(command, attribute)) is not None and value not in ((), "")
    ]
