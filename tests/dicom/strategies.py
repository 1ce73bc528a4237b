"""Hypothesis strategies for the values of this room."""

from hypothesis import strategies as st

from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.messages import MESSAGES, DataSetRule
from dicomward.dicom.pdu import (
    AAbort,
    AAssociateAc,
    AAssociateRj,
    AAssociateRq,
    AReleaseRp,
    AReleaseRq,
    AsyncOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContextAc,
    PresentationContextRq,
    RoleSelection,
    UnknownItem,
    UserIdentity,
    UserInformation,
)
from dicomward.vocab.dimse import Element

octets = st.integers(0, 0xFF)
shorts = st.integers(0, 0xFFFF)
tags = st.integers(0, 0xFFFFFFFF)

uids = st.lists(st.integers(0, 10**9).map(str), min_size=1, max_size=6).map(".".join).filter(lambda uid: len(uid) <= 64)
_TITLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "\\")
ae_titles = st.text(_TITLE, min_size=1, max_size=16).filter(lambda title: title not in {".", ".."})
# ISO 646 has the backslash, but pynetdicom refuses it here.
version_names = st.text(_TITLE, min_size=1, max_size=16)
comments = st.text("".join(chr(c) for c in (*range(0x21, 0x5C), *range(0xA1, 0x100))), min_size=1, max_size=64)

windows = st.builds(AsyncOperationsWindow, maximum_invoked=shorts, maximum_performed=shorts)
roles = st.builds(RoleSelection, sop_class_uid=uids, scu_role=st.booleans(), scp_role=st.booleans())
extended = st.builds(ExtendedNegotiation, sop_class_uid=uids, information=st.binary(max_size=8))
common = st.builds(
    CommonExtendedNegotiation,
    sop_class_uid=uids,
    service_class_uid=uids,
    related_sop_class_uids=st.lists(uids, max_size=3).map(tuple),
)
identities = st.builds(
    UserIdentity,
    type=octets,
    positive_response_requested=st.booleans(),
    primary=st.binary(max_size=20),
    secondary=st.binary(max_size=20),
)
unknown = st.builds(UnknownItem, item_type=st.integers(0x5A, 0xFF), data=st.binary(max_size=8))


def _each_class_once(items: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(items, max_size=3, unique_by=lambda entry: entry.sop_class_uid).map(tuple)  # type: ignore[attr-defined]


def user_information(*, is_request: bool) -> st.SearchStrategy[UserInformation]:
    """User information that may be in a request, or in an acceptance."""
    return st.builds(
        UserInformation,
        maximum_length=tags,
        implementation_class_uid=st.just("") | uids,
        implementation_version_name=st.none() | version_names,
        async_operations_window=st.none() | windows,
        role_selections=_each_class_once(roles),
        extended_negotiations=_each_class_once(extended),
        common_extended_negotiations=_each_class_once(common) if is_request else st.just(()),
        user_identity=st.none() | identities if is_request else st.none(),
        user_identity_response=st.none() if is_request else st.none() | st.binary(max_size=20),
        unknown_items=st.lists(unknown, max_size=2).map(tuple),
    )


context_ids = st.integers(0, 127).map(lambda number: 2 * number + 1)
contexts_rq = st.lists(
    st.builds(
        PresentationContextRq,
        context_id=context_ids,
        abstract_syntax=uids,
        transfer_syntaxes=st.lists(uids, min_size=1, max_size=4).map(tuple),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda context: context.context_id,
).map(tuple)
contexts_ac = st.lists(
    st.builds(PresentationContextAc, context_id=context_ids, result=st.just(0), transfer_syntax=uids)
    | st.builds(PresentationContextAc, context_id=context_ids, result=st.integers(1, 255), transfer_syntax=st.just("")),
    min_size=1,
    max_size=5,
    unique_by=lambda context: context.context_id,
).map(tuple)

associate_rqs = st.builds(
    AAssociateRq,
    called_ae_title=ae_titles,
    calling_ae_title=ae_titles,
    presentation_contexts=contexts_rq,
    user_information=user_information(is_request=True),
    application_context=uids,
    protocol_version=shorts,
)
associate_acs = st.builds(
    AAssociateAc,
    called_ae_title=st.just("") | ae_titles,
    calling_ae_title=st.just("") | ae_titles,
    presentation_contexts=contexts_ac,
    user_information=user_information(is_request=False),
    application_context=uids,
    protocol_version=shorts,
)
control_pdus = st.one_of(
    associate_rqs,
    associate_acs,
    st.builds(AAssociateRj, result=octets, source=octets, reason=octets),
    st.just(AReleaseRq()),
    st.just(AReleaseRp()),
    st.builds(AAbort, source=octets, reason=octets),
)

_TAG_LISTS = st.lists(tags, min_size=1, max_size=4).map(tuple)
_VALUES: dict[Element, tuple[str, st.SearchStrategy[object]]] = {
    Element.AFFECTED_SOP_CLASS_UID: ("affected_sop_class_uid", uids),
    Element.REQUESTED_SOP_CLASS_UID: ("requested_sop_class_uid", uids),
    Element.MESSAGE_ID: ("message_id", shorts),
    Element.MESSAGE_ID_BEING_RESPONDED_TO: ("message_id_being_responded_to", shorts),
    Element.MOVE_DESTINATION: ("move_destination", ae_titles),
    Element.PRIORITY: ("priority", st.integers(0, 2)),
    Element.STATUS: ("status", shorts),
    Element.OFFENDING_ELEMENT: ("offending_elements", _TAG_LISTS),
    Element.ERROR_COMMENT: ("error_comment", comments),
    Element.ERROR_ID: ("error_id", shorts),
    Element.AFFECTED_SOP_INSTANCE_UID: ("affected_sop_instance_uid", uids),
    Element.REQUESTED_SOP_INSTANCE_UID: ("requested_sop_instance_uid", uids),
    Element.EVENT_TYPE_ID: ("event_type_id", shorts),
    Element.ATTRIBUTE_IDENTIFIER_LIST: ("attribute_identifier_list", _TAG_LISTS),
    Element.ACTION_TYPE_ID: ("action_type_id", shorts),
    Element.NUMBER_OF_REMAINING_SUBOPERATIONS: ("number_of_remaining_suboperations", shorts),
    Element.NUMBER_OF_COMPLETED_SUBOPERATIONS: ("number_of_completed_suboperations", shorts),
    Element.NUMBER_OF_FAILED_SUBOPERATIONS: ("number_of_failed_suboperations", shorts),
    Element.NUMBER_OF_WARNING_SUBOPERATIONS: ("number_of_warning_suboperations", shorts),
    Element.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: ("move_originator_ae_title", ae_titles),
    Element.MOVE_ORIGINATOR_MESSAGE_ID: ("move_originator_message_id", shorts),
}


@st.composite
def command_sets(draw: st.DrawFn) -> CommandSet:
    """A command set of any message, with all that it must and some of what it may have."""
    command_field = draw(st.sampled_from(sorted(MESSAGES)))
    message = MESSAGES[command_field]
    values: dict[str, object] = {"command_field": command_field}
    for element, (name, strategy) in _VALUES.items():
        if element in message.required or (element in message.optional and draw(st.booleans())):
            values[name] = draw(strategy)
    match message.data_set:
        case DataSetRule.ALWAYS:
            values["has_data_set"] = True
        case DataSetRule.NEVER:
            values["has_data_set"] = False
        case _:
            values["has_data_set"] = draw(st.booleans())
    return CommandSet(**values)  # type: ignore[arg-type]


@st.composite
def mutations(draw: st.DrawFn, samples: tuple[bytes, ...]) -> bytes:
    """A sample with some bytes changed, removed, repeated or put in."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("set", "cut", "repeat", "insert", "end"))):
            case "set" if at < len(data):
                data[at] = draw(octets)
            case "cut":
                del data[at : at + draw(st.integers(1, 16))]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case _:
                del data[at:]
    return bytes(data)
