import struct

import pytest
from hypothesis import given

from dicomward.dicom.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
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
from dicomward.dicom.user_information import decode_user_information, encode_user_information
from dicomward.vocab.association import AbortReason
from tests.dicom.builders import (
    CLASS_UID_ITEM,
    CT_IMAGE,
    LIMITS,
    MAXIMUM_LENGTH_ITEM,
    cut_at_every_byte,
    item,
    prefixed,
)
from tests.dicom.strategies import user_information

CT = prefixed(CT_IMAGE.encode())
STORAGE = prefixed(b"1.2.840.10008.4.2")


def decode(
    *items: bytes, is_request: bool = True, limits: Limits = LIMITS, base: bytes = MAXIMUM_LENGTH_ITEM + CLASS_UID_ITEM
) -> tuple[UserInformation, set[str]]:
    notes: set[str] = set()
    data = base + b"".join(items)
    return decode_user_information(data, limits, notes, is_request=is_request), notes


def expected(**values: object) -> UserInformation:
    return UserInformation(maximum_length=16384, implementation_class_uid="1.2.3.4", **values)  # type: ignore[arg-type]


# One row an item: its bytes, what it says, and if it belongs to a request.
ROWS = [
    pytest.param(b"", {}, True, id="least"),
    pytest.param(
        item(0x53, b"\0\x05\0\x07"),
        {"async_operations_window": AsyncOperationsWindow(maximum_invoked=5, maximum_performed=7)},
        True,
        id="53-window",
    ),
    pytest.param(
        item(0x54, CT + b"\0\x01"),
        {"role_selections": (RoleSelection(sop_class_uid=CT_IMAGE, scu_role=False, scp_role=True),)},
        True,
        id="54-role",
    ),
    pytest.param(
        item(0x54, prefixed(b"1.2") + b"\x01\0") + item(0x54, prefixed(b"1.3") + b"\x01\x01"),
        {
            "role_selections": (
                RoleSelection(sop_class_uid="1.2", scu_role=True, scp_role=False),
                RoleSelection(sop_class_uid="1.3", scu_role=True, scp_role=True),
            )
        },
        False,
        id="54-roles",
    ),
    pytest.param(
        item(0x55, b"OFFIS_DCMTK_367"), {"implementation_version_name": "OFFIS_DCMTK_367"}, True, id="55-version"
    ),
    pytest.param(
        item(0x56, CT + b"\x01\0\x01"),
        {"extended_negotiations": (ExtendedNegotiation(sop_class_uid=CT_IMAGE, information=b"\x01\0\x01"),)},
        False,
        id="56-extended",
    ),
    pytest.param(
        item(0x57, CT + STORAGE + prefixed(prefixed(b"1.2.3") + prefixed(b"1.2.4"))),
        {
            "common_extended_negotiations": (
                CommonExtendedNegotiation(
                    sop_class_uid=CT_IMAGE,
                    service_class_uid="1.2.840.10008.4.2",
                    related_sop_class_uids=("1.2.3", "1.2.4"),
                ),
            )
        },
        True,
        id="57-common",
    ),
    pytest.param(
        item(0x58, b"\x02\x01" + prefixed(b"doctor") + prefixed(b"secret")),
        {
            "user_identity": UserIdentity(
                type=2, positive_response_requested=True, primary=b"doctor", secondary=b"secret"
            )
        },
        True,
        id="58-identity",
    ),
    pytest.param(
        item(0x58, b"\x09\0" + prefixed(b"") + prefixed(b"")),
        {"user_identity": UserIdentity(type=9, positive_response_requested=False, primary=b"")},
        True,
        id="58-unknown-type",
    ),
    pytest.param(item(0x59, prefixed(b"ticket")), {"user_identity_response": b"ticket"}, False, id="59-response"),
]


@pytest.mark.parametrize(("data", "values", "is_request"), ROWS)
def test_items_are_read_and_written(data: bytes, values: dict[str, object], is_request: bool) -> None:
    user, notes = decode(data, is_request=is_request)
    assert user == expected(**values)
    assert notes == set()
    assert encode_user_information(user) == item(0x50, MAXIMUM_LENGTH_ITEM + CLASS_UID_ITEM + data)


@pytest.mark.parametrize(("data", "values", "is_request"), ROWS)
def test_items_that_are_cut_short_are_refused(data: bytes, values: dict[str, object], is_request: bool) -> None:
    for start in cut_at_every_byte(data):
        # An item that is cut inside its value gets a true length: a version name is then shorter, but not wrong.
        for cut in (start, item(data[0], start[4:])):
            try:
                user, _ = decode(cut, is_request=is_request)
            except RemoteProtocolError:
                continue
            assert user != expected(**values)


DEVIATIONS = [
    pytest.param(
        [item(0x5A, b"?")], True, {"unknown_items": (UnknownItem(item_type=0x5A, data=b"?"),)}, "unknown-user-item"
    ),
    pytest.param([item(0x59, prefixed(b"x"))], True, {}, "unexpected-user-item", id="59-in-request"),
    pytest.param([item(0x58, b"")], False, {}, "unexpected-user-item", id="58-in-acceptance"),
    pytest.param([item(0x57, b"")], False, {}, "unexpected-user-item", id="57-in-acceptance"),
    pytest.param([MAXIMUM_LENGTH_ITEM], True, {}, "duplicate-user-item", id="51-twice"),
    pytest.param(
        [item(0x54, CT + b"\0\x01")] * 2,
        True,
        {"role_selections": (RoleSelection(sop_class_uid=CT_IMAGE, scu_role=False, scp_role=True),)},
        "duplicate-user-item",
        id="54-twice",
    ),
    pytest.param(
        [item(0x54, prefixed(CT_IMAGE.encode() + b"\0") + b"\0\x01")],
        True,
        {"role_selections": (RoleSelection(sop_class_uid=CT_IMAGE, scu_role=False, scp_role=True),)},
        "uid-nul-padding",
        id="54-padded",
    ),
    pytest.param([item(0x55, b"")], True, {}, "implementation-version-name", id="55-empty"),
    pytest.param(
        [item(0x55, b"A" * 17)],
        True,
        {"implementation_version_name": "A" * 16},
        "implementation-version-name",
        id="55-long",
    ),
    pytest.param(
        [item(0x55, b"V1\n\xe9\0")],
        True,
        {"implementation_version_name": "V1??"},
        "implementation-version-name",
        id="55-control",
    ),
]


@pytest.mark.parametrize(("items", "is_request", "values", "note"), DEVIATIONS)
def test_harmless_deviations_pass_and_are_noted(
    items: list[bytes], is_request: bool, values: dict[str, object], note: str
) -> None:
    user, notes = decode(*items, is_request=is_request)
    assert user == expected(**values)
    assert notes == {note}


def test_padding_spaces_of_a_version_name_are_not_noted() -> None:
    assert decode(item(0x55, b"V1  ")) == (expected(implementation_version_name="V1"), set())


@pytest.mark.parametrize(
    ("base", "user", "notes"),
    [
        (b"", UserInformation(), {"missing-maximum-length", "missing-implementation-class-uid"}),
        (
            MAXIMUM_LENGTH_ITEM + item(0x52, b""),
            UserInformation(maximum_length=16384),
            {"missing-implementation-class-uid"},
        ),
    ],
)
def test_missing_items_are_noted(base: bytes, user: UserInformation, notes: set[str]) -> None:
    assert decode(base=base) == (user, notes)


INVALID = AbortReason.INVALID_PARAMETER_VALUE
UNEXPECTED = AbortReason.UNEXPECTED_PARAMETER

ERRORS = [
    pytest.param(item(0x51, b"\0\0\x40\x01"), UNEXPECTED, id="51-two-lengths"),
    pytest.param(item(0x52, b"1.2.3.5"), UNEXPECTED, id="52-two-uids"),
    pytest.param(item(0x53, b"\0\x01\0"), INVALID, id="53-short"),
    pytest.param(item(0x53, b"\0\x01\0\x01\0"), INVALID, id="53-long"),
    pytest.param(item(0x54, CT + b"\0"), INVALID, id="54-one-role"),
    pytest.param(item(0x54, CT + b"\0\x01\0"), INVALID, id="54-three-roles"),
    pytest.param(item(0x54, CT + b"\x02\0"), INVALID, id="54-scu-2"),
    pytest.param(item(0x54, CT + b"\0\x02"), INVALID, id="54-scp-2"),
    pytest.param(item(0x54, prefixed(b"CT") + b"\0\0"), INVALID, id="54-no-uid"),
    pytest.param(item(0x54, CT + b"\0\x01") + item(0x54, CT + b"\x01\0"), UNEXPECTED, id="54-two-roles-of-a-class"),
    pytest.param(item(0x56, CT + b"\0") + item(0x56, CT + b"\x01"), UNEXPECTED, id="56-two-of-a-class"),
    pytest.param(item(0x56, b"\0\x40" + CT), INVALID, id="56-length"),
    pytest.param(item(0x57, CT + STORAGE + prefixed(b"\0\x05")), INVALID, id="57-related-length"),
    pytest.param(item(0x57, CT + STORAGE + prefixed(prefixed(b".."))), INVALID, id="57-related-uid"),
    pytest.param(item(0x57, CT + prefixed(b"") + prefixed(b"")), INVALID, id="57-no-service-class"),
    pytest.param(item(0x58, b""), INVALID, id="58-empty"),
    pytest.param(item(0x58, b"\x01"), INVALID, id="58-type-only"),
    pytest.param(item(0x58, b"\x01\x02" + prefixed(b"u") + prefixed(b"")), INVALID, id="58-request-2"),
    pytest.param(item(0x58, b"\x01\0" + prefixed(b"u")), INVALID, id="58-no-secondary"),
    pytest.param(item(0x58, b"\x01\0" + prefixed(b"u") + prefixed(b"") + b"!"), INVALID, id="58-more"),
    pytest.param(
        item(0x58, b"\x01\0" + prefixed(b"a") + prefixed(b"")) + item(0x58, b"\x01\0" + prefixed(b"b") + prefixed(b"")),
        UNEXPECTED,
        id="58-two-users",
    ),
    pytest.param(item(0x5A, b"", length=1), INVALID, id="beyond-the-end"),
    *(
        pytest.param(item(kind, b""), UNEXPECTED, id=f"{kind:02x}-inside")
        for kind in (0x10, 0x20, 0x21, 0x30, 0x40, 0x50)
    ),
]


@pytest.mark.parametrize(("data", "reason"), ERRORS)
def test_malformed_items_are_refused(data: bytes, reason: AbortReason) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(data)
    assert caught.value.abort_reason is reason
    assert caught.value.clause


@pytest.mark.parametrize("data", [item(0x59, b""), item(0x59, prefixed(b"x") + b"!")])
def test_malformed_server_response_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(data, is_request=False)


@pytest.mark.parametrize("base", [item(0x51, b"\0\x40\0"), item(0x51, b""), MAXIMUM_LENGTH_ITEM + item(0x52, b"1.")])
def test_malformed_mandatory_items_are_refused(base: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(base=base)


def test_errors_never_quote_a_secret() -> None:
    data = item(0x58, b"\x02\0" + prefixed(b"doctor") + prefixed(b"hunter2") + b"!")
    with pytest.raises(RemoteProtocolError) as caught:
        decode(data)
    assert "hunter2" not in str(caught.value)
    assert "doctor" not in str(caught.value)


def test_number_of_items_is_limited() -> None:
    limits = Limits(max_user_items=5)
    items = [item(0x60, struct.pack(">H", number)) for number in range(4)]
    assert len(decode(*items[:3], limits=limits)[0].unknown_items) == 3
    with pytest.raises(LimitExceeded, match="limit max_user_items"):
        decode(*items, limits=limits)


@given(user_information(is_request=True))
def test_what_is_encoded_for_a_request_is_decoded_again(user: UserInformation) -> None:
    data = encode_user_information(user)
    assert data[:1] == b"\x50"
    assert decode(data[4:], base=b"")[0] == user


@given(user_information(is_request=False))
def test_what_is_encoded_for_an_acceptance_is_decoded_again(user: UserInformation) -> None:
    assert decode(encode_user_information(user)[4:], base=b"", is_request=False)[0] == user


@pytest.mark.parametrize(
    "user",
    [
        UserInformation(maximum_length=-1),
        UserInformation(maximum_length=2**32),
        UserInformation(implementation_class_uid="1."),
        UserInformation(implementation_version_name=""),
        UserInformation(implementation_version_name="V" * 17),
        UserInformation(implementation_version_name="V\n"),
        UserInformation(implementation_version_name="É"),
        UserInformation(async_operations_window=AsyncOperationsWindow(maximum_invoked=0x10000, maximum_performed=1)),
        UserInformation(async_operations_window=AsyncOperationsWindow(maximum_invoked=1, maximum_performed=-1)),
        UserInformation(role_selections=(RoleSelection(sop_class_uid="", scu_role=True, scp_role=True),)),
        UserInformation(extended_negotiations=(ExtendedNegotiation(sop_class_uid="x", information=b""),)),
        UserInformation(
            common_extended_negotiations=(CommonExtendedNegotiation(sop_class_uid="1.2", service_class_uid="x"),)
        ),
        UserInformation(user_identity=UserIdentity(type=256, positive_response_requested=False, primary=b"")),
        UserInformation(user_identity=UserIdentity(type=5, positive_response_requested=False, primary=bytes(0x10000))),
        UserInformation(user_identity_response=bytes(0x10000)),
        UserInformation(unknown_items=(UnknownItem(item_type=0x50, data=b""),)),
        UserInformation(unknown_items=(UnknownItem(item_type=0x100, data=b""),)),
        UserInformation(unknown_items=(UnknownItem(item_type=0x60, data=bytes(0xFFFF)),)),
    ],
)
def test_what_the_standard_forbids_is_not_sent(user: UserInformation) -> None:
    with pytest.raises(LocalProtocolError):
        encode_user_information(user)
