"""User information, item 50H: PS3.8 Annex D.1 and PS3.7 Annex D.3.3.

A repeated sub-item that says the same is a deviation; one that says something else can be read in two ways, so it is
an error. What may be only in a request (57H, 58H) or only in an acceptance (59H) is dropped from the other, and noted.
"""

from typing import Final, TypeVar

from dicomward.dicom.deviation import Deviation
from dicomward.dicom.errors import LocalProtocolError
from dicomward.dicom.fields import (
    invalid_value,
    iter_items,
    read_uid,
    split_prefixed,
    too_much,
    unexpected,
    write_item,
    write_prefixed,
    write_uid,
    write_unsigned,
)
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import (
    AsyncOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    RoleSelection,
    UnknownItem,
    UserIdentity,
    UserInformation,
)

_CLAUSE: Final = "PS3.8 §9.3.2.3"
_ROLES: Final = "PS3.7 §D.3.3.4"
_IDENTITY: Final = "PS3.7 §D.3.3.7"
_COMMON: Final = "PS3.7 §D.3.3.6"

# Items of the PDU itself, which cannot be sub-items.
_OUTER_ITEMS: Final = frozenset({0x10, 0x20, 0x21, 0x30, 0x40, 0x50})
_VERSION_NAME_BYTES: Final = 16

_Item = TypeVar("_Item", RoleSelection, ExtendedNegotiation, CommonExtendedNegotiation)


class _Reader:
    """Collects the sub-items of one user information item."""

    def __init__(self, limits: Limits, notes: set[str], *, is_request: bool) -> None:
        self.limits = limits
        self.notes = notes
        self.is_request = is_request
        self.single: dict[int, bytes] = {}
        self.roles: dict[str, RoleSelection] = {}
        self.extended: dict[str, ExtendedNegotiation] = {}
        self.common: dict[str, CommonExtendedNegotiation] = {}
        self.unknown: list[UnknownItem] = []

    def add(self, item_type: int, data: bytes) -> None:
        """Sort one sub-item in. Raises RemoteProtocolError."""
        if item_type in _OUTER_ITEMS:
            raise unexpected(_CLAUSE, f"item {item_type:02X}H inside the user information")
        if item_type in ((0x59,) if self.is_request else (0x57, 0x58)):
            self.notes.add(Deviation.UNEXPECTED_USER_ITEM)
            return
        match item_type:
            case 0x51 | 0x52 | 0x53 | 0x55 | 0x58 | 0x59:
                first = self.single.setdefault(item_type, data)
                if first is not data:
                    self._repeated(item_type, same=first == data)
            case 0x54:
                self._keep(item_type, self.roles, _decode_role(data, self.notes))
            case 0x56:
                self._keep(item_type, self.extended, _decode_extended(data, self.notes))
            case 0x57:
                self._keep(item_type, self.common, _decode_common(data, self.notes))
            case _:
                self.notes.add(Deviation.UNKNOWN_USER_ITEM)
                self.unknown.append(UnknownItem(item_type=item_type, data=data))

    def _keep(self, item_type: int, kept: dict[str, _Item], value: _Item) -> None:
        first = kept.setdefault(value.sop_class_uid, value)
        if first is not value:
            self._repeated(item_type, same=first == value)

    def _repeated(self, item_type: int, *, same: bool) -> None:
        if not same:
            raise unexpected(_CLAUSE, f"two different items {item_type:02X}H about the same thing")
        self.notes.add(Deviation.DUPLICATE_USER_ITEM)

    def result(self) -> UserInformation:
        """Decode what stands once. Raises RemoteProtocolError."""
        single = self.single
        window = single.get(0x53)
        identity = single.get(0x58)
        response = single.get(0x59)
        return UserInformation(
            maximum_length=self._maximum_length(),
            implementation_class_uid=self._implementation_class_uid(),
            implementation_version_name=self._implementation_version_name(),
            async_operations_window=None if window is None else _decode_window(window),
            role_selections=tuple(self.roles.values()),
            extended_negotiations=tuple(self.extended.values()),
            common_extended_negotiations=tuple(self.common.values()),
            user_identity=None if identity is None else _decode_identity(identity),
            user_identity_response=None if response is None else _decode_identity_response(response),
            unknown_items=tuple(self.unknown),
        )

    def _maximum_length(self) -> int:
        data = self.single.get(0x51)
        if data is None:
            self.notes.add(Deviation.MISSING_MAXIMUM_LENGTH)
            return 0
        if len(data) != 4:
            raise invalid_value("PS3.8 §D.1.1", f"the maximum length has {len(data)} bytes, not 4")
        return int.from_bytes(data, "big")

    def _implementation_class_uid(self) -> str:
        data = self.single.get(0x52, b"")
        if not data:
            self.notes.add(Deviation.MISSING_IMPLEMENTATION_CLASS_UID)
            return ""
        return read_uid(data, "PS3.7 §D.3.3.2", "implementation class UID", self.notes)

    def _implementation_version_name(self) -> str | None:
        data = self.single.get(0x55)
        if data is None:
            return None
        text = data[:_VERSION_NAME_BYTES].rstrip(b"\0 ")
        # The name goes into logs, so it must not carry control characters.
        name = "".join(chr(byte) if 0x20 <= byte <= 0x7E else "?" for byte in text)
        if not name or name.encode("ascii") != data.rstrip(b" "):
            self.notes.add(Deviation.IMPLEMENTATION_VERSION_NAME)
        return name or None


def _decode_window(data: bytes) -> AsyncOperationsWindow:
    if len(data) != 4:
        raise invalid_value("PS3.7 §D.3.3.3", f"the asynchronous operations window has {len(data)} bytes, not 4")
    return AsyncOperationsWindow(
        maximum_invoked=int.from_bytes(data[:2], "big"), maximum_performed=int.from_bytes(data[2:], "big")
    )


def _decode_role(data: bytes, notes: set[str]) -> RoleSelection:
    uid, end = split_prefixed(data, 0, _ROLES)
    roles = data[end:]
    if len(roles) != 2 or roles[0] > 1 or roles[1] > 1:
        raise invalid_value(_ROLES, f"the roles are {roles[:8].hex(' ')}, not two bytes of 0 or 1")
    sop_class_uid = read_uid(uid, _ROLES, "SOP class UID", notes)
    return RoleSelection(sop_class_uid=sop_class_uid, scu_role=bool(roles[0]), scp_role=bool(roles[1]))


def _decode_extended(data: bytes, notes: set[str]) -> ExtendedNegotiation:
    uid, end = split_prefixed(data, 0, "PS3.7 §D.3.3.5")
    sop_class_uid = read_uid(uid, "PS3.7 §D.3.3.5", "SOP class UID", notes)
    return ExtendedNegotiation(sop_class_uid=sop_class_uid, information=data[end:])


def _decode_common(data: bytes, notes: set[str]) -> CommonExtendedNegotiation:
    sop_class, offset = split_prefixed(data, 0, _COMMON)
    service_class, offset = split_prefixed(data, offset, _COMMON)
    related, offset = split_prefixed(data, offset, _COMMON)
    # Later versions of the sub-item may add fields after these (PS3.7 §D.3.3.6), so the rest isn't tested.
    uids: list[str] = []
    offset = 0
    while offset < len(related):
        uid, offset = split_prefixed(related, offset, _COMMON)
        uids.append(read_uid(uid, _COMMON, "related general SOP class UID", notes))
    return CommonExtendedNegotiation(
        sop_class_uid=read_uid(sop_class, _COMMON, "SOP class UID", notes),
        service_class_uid=read_uid(service_class, _COMMON, "service class UID", notes),
        related_sop_class_uids=tuple(uids),
    )


def _decode_identity(data: bytes) -> UserIdentity:
    if len(data) < 2 or data[1] > 1:
        raise invalid_value(_IDENTITY, "the user identity has no type and no request for a response of 0 or 1")
    primary, offset = split_prefixed(data, 2, _IDENTITY)
    secondary, offset = split_prefixed(data, offset, _IDENTITY)
    if offset != len(data):
        raise invalid_value(_IDENTITY, f"{len(data) - offset} bytes follow the user identity")
    return UserIdentity(type=data[0], positive_response_requested=bool(data[1]), primary=primary, secondary=secondary)


def _decode_identity_response(data: bytes) -> bytes:
    response, offset = split_prefixed(data, 0, _IDENTITY)
    if offset != len(data):
        raise invalid_value(_IDENTITY, f"{len(data) - offset} bytes follow the server response")
    return response


def decode_user_information(data: bytes, limits: Limits, notes: set[str], *, is_request: bool) -> UserInformation:
    """Decode the value of item 50H; `notes` gets the deviations. Raises RemoteProtocolError."""
    reader = _Reader(limits, notes, is_request=is_request)
    for count, (item_type, value) in enumerate(iter_items(data, 0, _CLAUSE), start=1):
        if count > limits.max_user_items:
            raise too_much("max_user_items", count, limits.max_user_items)
        reader.add(item_type, value)
    return reader.result()


def encode_user_information(user: UserInformation) -> bytes:
    """Encode item 50H, its sub-items in ascending order. Raises LocalProtocolError."""
    parts = [write_item(0x51, write_unsigned(user.maximum_length, 4, "maximum length"))]
    if user.implementation_class_uid:
        parts.append(write_item(0x52, write_uid(user.implementation_class_uid)))
    window = user.async_operations_window
    if window is not None:
        invoked = write_unsigned(window.maximum_invoked, 2, "maximum number of operations invoked")
        performed = write_unsigned(window.maximum_performed, 2, "maximum number of operations performed")
        parts.append(write_item(0x53, invoked + performed))
    for role in user.role_selections:
        uid = write_prefixed(write_uid(role.sop_class_uid), "SOP class UID")
        parts.append(write_item(0x54, uid + bytes((role.scu_role, role.scp_role))))
    if user.implementation_version_name is not None:
        parts.append(write_item(0x55, _write_version_name(user.implementation_version_name)))
    for extended in user.extended_negotiations:
        uid = write_prefixed(write_uid(extended.sop_class_uid), "SOP class UID")
        parts.append(write_item(0x56, uid + extended.information))
    parts.extend(_write_common(common) for common in user.common_extended_negotiations)
    identity = user.user_identity
    if identity is not None:
        head = write_unsigned(identity.type, 1, "user identity type") + bytes((identity.positive_response_requested,))
        primary = write_prefixed(identity.primary, "primary field")
        parts.append(write_item(0x58, head + primary + write_prefixed(identity.secondary, "secondary field")))
    if user.user_identity_response is not None:
        parts.append(write_item(0x59, write_prefixed(user.user_identity_response, "server response")))
    for unknown in user.unknown_items:
        parts.append(_write_unknown(unknown))
    return write_item(0x50, b"".join(parts))


def _write_version_name(name: str) -> bytes:
    if not 1 <= len(name) <= _VERSION_NAME_BYTES or any(not " " <= character <= "~" for character in name):
        raise LocalProtocolError(f"the implementation version name {name!r} is not 1 to 16 printable ASCII characters")
    return name.encode("ascii")


def _write_common(common: CommonExtendedNegotiation) -> bytes:
    related = b"".join(write_prefixed(write_uid(uid), "SOP class UID") for uid in common.related_sop_class_uids)
    sop_class = write_prefixed(write_uid(common.sop_class_uid), "SOP class UID")
    service_class = write_prefixed(write_uid(common.service_class_uid), "service class UID")
    return write_item(0x57, sop_class + service_class + write_prefixed(related, "related SOP class UIDs"))


def _write_unknown(unknown: UnknownItem) -> bytes:
    if not 0 <= unknown.item_type <= 0xFF or unknown.item_type in _OUTER_ITEMS:
        raise LocalProtocolError(f"{unknown.item_type:X}H cannot be the type of a user information sub-item")
    return write_item(unknown.item_type, unknown.data)
