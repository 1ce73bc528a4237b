"""Differential tests: pynetdicom and pydicom as an independent encoder and decoder of the same values."""

from io import BytesIO
from typing import Any

import pytest
from hypothesis import assume, given, settings
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pynetdicom import pdu as theirs
from pynetdicom.dsutils import decode, encode
from pynetdicom.tests import encoded_pdu_items as vectors

from dicomward.dicom.codec import decode_pdu, encode_pdu
from dicomward.dicom.dimse import CommandSet, decode_command_set, encode_command_set
from dicomward.dicom.pdu import AAbort, AAssociateAc, AAssociateRj, AAssociateRq, UserInformation
from dicomward.vocab.dimse import NO_DATA_SET, Element
from tests.dicom.builders import LIMITS
from tests.dicom.strategies import associate_acs, associate_rqs, command_sets

# pynetdicom and pydicom warn about UIDs and titles that they read all the same.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def _user_of(pdu: Any) -> dict[str, object]:
    """User information as pynetdicom sees it, in the fields of ours."""
    user = pdu.user_information
    window = user.async_ops_window
    identity = user.user_identity
    return {
        "maximum_length": user.maximum_length,
        "implementation_class_uid": user.implementation_class_uid or "",
        "implementation_version_name": user.implementation_version_name,
        "window": window and (window.max_operations_invoked, window.max_operations_performed),
        "roles": {(str(uid), role.scu, role.scp) for uid, role in user.role_selection.items()},
        "extended": [(item.uid, item.app_info) for item in user.ext_neg],
        "common": [
            (item.sop_class_uid, item.service_class_uid, item.related_general_sop_class_identification)
            for item in user.common_ext_neg
        ],
        "identity": identity
        and (
            identity.server_response
            if hasattr(identity, "server_response")
            else (identity.id_type, identity.response_requested, identity.primary, identity.secondary or b"")
        ),
    }


def _user(user: UserInformation) -> dict[str, object]:
    window, identity = user.async_operations_window, user.user_identity
    return {
        "maximum_length": user.maximum_length,
        "implementation_class_uid": user.implementation_class_uid,
        "implementation_version_name": user.implementation_version_name,
        "window": window and (window.maximum_invoked, window.maximum_performed),
        "roles": {(role.sop_class_uid, int(role.scu_role), int(role.scp_role)) for role in user.role_selections},
        "extended": [(item.sop_class_uid, item.information) for item in user.extended_negotiations],
        "common": [
            (item.sop_class_uid, item.service_class_uid, list(item.related_sop_class_uids))
            for item in user.common_extended_negotiations
        ],
        "identity": (
            identity and (identity.type, identity.positive_response_requested, identity.primary, identity.secondary)
        )
        or user.user_identity_response,
    }


def _without_unknown_items(pdu: AAssociateRq | AAssociateAc) -> UserInformation:
    """pynetdicom fails on sub-items that it does not know (PS3.8 wants them skipped), so they stay out."""
    user = pdu.user_information
    return UserInformation(
        **{name: getattr(user, name) for name in UserInformation.__dataclass_fields__ if name != "unknown_items"}
    )


@given(associate_rqs)
@settings(max_examples=200)
def test_a_request_of_ours_is_read_alike(pdu: AAssociateRq) -> None:
    user = _without_unknown_items(pdu)
    # pynetdicom 3.0.4 reads the length of the secondary field as the value of an empty primary field.
    assume(user.user_identity is None or user.user_identity.primary)
    ours = AAssociateRq(
        called_ae_title=pdu.called_ae_title,
        calling_ae_title=pdu.calling_ae_title,
        presentation_contexts=pdu.presentation_contexts,
        user_information=user,
        application_context=pdu.application_context,
        protocol_version=pdu.protocol_version,
    )
    read = theirs.A_ASSOCIATE_RQ()
    read.decode(encode_pdu(ours))
    assert read.called_ae_title == ours.called_ae_title
    assert read.calling_ae_title == ours.calling_ae_title
    assert read.application_context_name == ours.application_context
    assert read.protocol_version == ours.protocol_version
    assert [(c.context_id, c.abstract_syntax, tuple(c.transfer_syntax)) for c in read.presentation_context] == [
        (c.context_id, c.abstract_syntax, c.transfer_syntaxes) for c in ours.presentation_contexts
    ]
    assert _user_of(read) == _user(user)
    again = decode_pdu(1, read.encode()[6:], LIMITS)
    assert again == ours


@given(associate_acs)
@settings(max_examples=200)
def test_an_acceptance_of_ours_is_read_alike(pdu: AAssociateAc) -> None:
    user = _without_unknown_items(pdu)
    ours = AAssociateAc(
        called_ae_title=pdu.called_ae_title,
        calling_ae_title=pdu.calling_ae_title,
        presentation_contexts=pdu.presentation_contexts,
        user_information=user,
        application_context=pdu.application_context,
        protocol_version=pdu.protocol_version,
    )
    read = theirs.A_ASSOCIATE_AC()
    read.decode(encode_pdu(ours))
    assert read.application_context_name == ours.application_context
    assert [(c.context_id, c.result, str(c.transfer_syntax or "")) for c in read.presentation_context] == [
        (c.context_id, c.result, c.transfer_syntax) for c in ours.presentation_contexts
    ]
    assert _user_of(read) == _user(user)


def test_short_pdus_of_theirs_are_read_alike() -> None:
    reject = theirs.A_ASSOCIATE_RJ()
    reject.decode(vectors.a_associate_rj)
    ours = decode_pdu(3, vectors.a_associate_rj[6:], LIMITS)
    assert ours == AAssociateRj(result=reject.result, source=reject.source, reason=reject.reason_diagnostic)
    abort = theirs.A_ABORT_RQ()
    abort.decode(vectors.a_p_abort)
    assert decode_pdu(7, vectors.a_p_abort[6:], LIMITS) == AAbort(source=abort.source, reason=abort.reason_diagnostic)


_FIELDS: dict[Element, str] = {
    element: element.name.lower()
    .replace("_application_entity_title", "_ae_title")
    .replace("offending_element", "offending_elements")
    for element in Element
    if element not in (Element.COMMAND_GROUP_LENGTH, Element.COMMAND_DATA_SET_TYPE)
}


def _plain(value: Any) -> object:
    """A pydicom value as ours: texts, numbers, and tuples of tags; what is empty is None."""
    if value is None or value in ("", []):
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and type(value).__name__ != "BaseTag":
        return int(value)
    return tuple(int(tag) for tag in (value if isinstance(value, list) or not isinstance(value, int) else [value]))


@given(command_sets())
@settings(max_examples=200)
def test_a_command_set_of_ours_is_read_alike(command_set: CommandSet) -> None:
    read = decode(BytesIO(encode_command_set(command_set)), True, True)
    assert (read.CommandDataSetType != NO_DATA_SET) is command_set.has_data_set
    for element, name in _FIELDS.items():
        value = getattr(command_set, name)
        assert _plain(read.get(keyword_for_tag(element.value))) == (None if value == () else value), name


@given(command_sets())
@settings(max_examples=200)
def test_a_command_set_of_theirs_is_read_alike_and_written_byte_for_byte(command_set: CommandSet) -> None:
    data_set = Dataset()
    data_set.CommandDataSetType = 1 if command_set.has_data_set else NO_DATA_SET
    for element, name in _FIELDS.items():
        value = getattr(command_set, name)
        if value is not None and value != ():
            setattr(data_set, keyword_for_tag(element.value), list(value) if isinstance(value, tuple) else value)
    data_set.CommandGroupLength = len(encode(data_set, True, True) or b"")
    data = encode(data_set, True, True)
    assert data is not None
    assert decode_command_set(data, LIMITS) == command_set
    assert encode_command_set(command_set) == data
