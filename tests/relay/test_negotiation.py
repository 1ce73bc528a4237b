"""What is made, copied, filtered and dropped while an association is made: one test for each row of docs/relay.md."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import (
    AAssociateAc,
    AAssociateRj,
    AAssociateRq,
    AsyncOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContextAc,
    RoleSelection,
    UserIdentity,
    UserInformation,
)
from dicomward.relay.inputs import PeerClosed
from dicomward.relay.negotiation import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    LEAST_MAXIMUM_LENGTH,
    Negotiated,
    clamp_maximum_length,
    is_usable_maximum_length,
    plan_accept,
    plan_upstream_request,
)
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.uid import EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.relay.wire import (
    BOTH,
    COMMITMENT,
    CT_IMAGE,
    IMPLEMENTATION,
    MR_IMAGE,
    STUDY_FIND,
    VERIFICATION,
    Contexts,
    a_associate_ac,
    a_associate_rq,
    c_move_rq,
    identifier,
)
from tests.relay.world import (
    ACCEPTOR,
    REQUESTOR,
    FakeWorld,
    Line,
    archive_caller,
    device_caller,
    established,
)

LIMITS = Limits()
CONTEXTS: Contexts = {1: VERIFICATION, 3: CT_IMAGE, 5: STUDY_FIND}
PERMITTED = frozenset({1, 3})


def user(**changes: object) -> UserInformation:
    values: dict[str, object] = {"maximum_length": 16384, "implementation_class_uid": IMPLEMENTATION}
    return UserInformation(**values | changes)  # type: ignore[arg-type]


def upstream(request: AAssociateRq, limits: Limits = LIMITS) -> AAssociateRq:
    return plan_upstream_request(
        request, calling_ae_title="CT1", called_ae_title="PACS", permitted=PERMITTED, limits=limits
    )


def accepted(request: AAssociateRq, limits: Limits = LIMITS, **changes: object) -> tuple[AAssociateAc, Negotiated]:
    """Let an acceptor answer, changed by the test."""
    asked = upstream(request, limits)
    return plan_accept(request, asked, replace(a_associate_ac(asked), **changes), limits)  # type: ignore[arg-type]


def answer(context_id: int, result: int, transfer_syntax: str = IMPLICIT_VR_LITTLE_ENDIAN) -> PresentationContextAc:
    return PresentationContextAc(context_id=context_id, result=result, transfer_syntax=transfer_syntax)


def results(ac: AAssociateAc) -> dict[int, int]:
    return {context.context_id: context.result for context in ac.presentation_contexts}


# -- A: what the acceptor reads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "ok"), [(1, True), (3, True), (0, False), (2, False)])
def test_row_a01_protocol_version_is_made_by_us(version: int, ok: bool) -> None:
    line = Line().request(a_associate_rq(CONTEXTS, protocol_version=version))
    if ok:
        assert line.upstream_request is not None
        assert line.upstream_request.protocol_version == 1
    else:
        assert line.reject() == (1, 2, 2)


@pytest.mark.parametrize("called", ["PACS", "PACS_GW"])
def test_row_a02_called_ae_title_is_the_archives_own(called: str) -> None:
    line = Line().request(a_associate_rq(CONTEXTS, called=called))
    assert line.upstream_request is not None
    assert line.upstream_request.called_ae_title == "PACS"


def test_row_a02_called_ae_title_of_a_device_stays() -> None:
    world = FakeWorld()
    line = Line(world, device_caller("ws1")).request(a_associate_rq({1: VERIFICATION}, calling="WS1", called="WS2"))
    assert line.upstream_request is not None
    assert line.upstream_request.called_ae_title == "WS2"


def test_row_a03_calling_ae_title_is_copied() -> None:
    line = Line().request(a_associate_rq(CONTEXTS, calling="CT1_QR"))
    assert line.upstream_request is not None
    assert line.upstream_request.calling_ae_title == "CT1_QR"


@pytest.mark.parametrize(
    ("titles", "known_as"), [(["PACS_GW"], "PACS_GW"), (["PACS_GW", "PACS"], "PACS")], ids=["one", "ambiguous"]
)
def test_row_a03_an_archive_calls_a_device_by_the_title_that_the_device_knows(titles: list[str], known_as: str) -> None:
    world = FakeWorld()
    world.correlations.table.names_originator["pacs"] = True
    for i, called in enumerate(titles):
        established(world, calling="WS1", called=called).say(REQUESTOR, 7, c_move_rq(i), identifier())
    line = Line(world, archive_caller()).request(a_associate_rq({1: CT_IMAGE}, calling="PACS", called="WS1"))
    assert line.upstream_request is not None
    assert line.upstream_request.calling_ae_title == known_as


def test_row_a04_reserved_bytes_are_zeros() -> None:
    raw = bytearray(encode_pdu(a_associate_rq(CONTEXTS)))
    raw[1] = 7
    raw[42:74] = b"x" * 32
    line = Line()
    line.send(REQUESTOR, bytes(raw))
    sent = bytes(line.bytes[ACCEPTOR])
    assert (sent[1], sent[8:10], sent[42:74]) == (0, b"\0\0", bytes(32))


def test_row_a05_another_application_context_is_rejected() -> None:
    line = Line().request(a_associate_rq(CONTEXTS, application_context="1.2.3"))
    assert line.reject() == (1, 1, 2)
    line = Line().request(a_associate_rq(CONTEXTS))
    assert line.upstream_request is not None
    assert line.upstream_request.application_context == "1.2.840.10008.3.1.1.1"


def test_row_a06_presentation_contexts_are_filtered() -> None:
    request = a_associate_rq(CONTEXTS, transfer_syntaxes=BOTH)
    assert upstream(request).presentation_contexts == request.presentation_contexts[:2]
    line = Line().request(a_associate_rq({5: STUDY_FIND}))
    assert line.reject() == (1, 1, 1)
    assert line.bytes[ACCEPTOR] == b""


def test_row_a06_of_the_transfer_syntaxes_of_a_context_the_first_50_go_on() -> None:
    """DCMTK's archives hang at more."""
    syntaxes = tuple(f"1.2.3.{number}" for number in range(64))
    request = a_associate_rq(CONTEXTS, transfer_syntaxes=syntaxes)
    assert [each.transfer_syntaxes for each in upstream(request).presentation_contexts] == [syntaxes[:50]] * 2
    ac, _ = accepted(request, presentation_contexts=(answer(1, 0, syntaxes[49]), answer(3, 0, syntaxes[50])))
    assert results(ac) == {1: 0, 3: 4, 5: 1}


@pytest.mark.parametrize(("stated", "sent"), [(0, 131072), (16384, 16384), (1 << 31, 131072), (128, 128)])
def test_row_a07_maximum_length_is_the_smaller_one(stated: int, sent: int) -> None:
    request = a_associate_rq(CONTEXTS, user=user(maximum_length=stated))
    assert upstream(request).user_information.maximum_length == sent
    assert accepted(request)[1].maximum_length_towards_requestor == sent


@pytest.mark.parametrize("stated", [1, 6, 127])
def test_row_a07_a_maximum_length_that_carries_nothing_is_rejected(stated: int) -> None:
    line = Line().request(a_associate_rq(CONTEXTS, user=user(maximum_length=stated)))
    assert line.reject() == (1, 1, 1)
    assert line.reasons == [("AssociationDenied", ReasonCode.MALFORMED_PDU)]


def test_row_a08_implementation_class_uid_is_ours() -> None:
    assert upstream(a_associate_rq(CONTEXTS)).user_information.implementation_class_uid == IMPLEMENTATION_CLASS_UID


def test_row_a09_implementation_version_name_is_ours() -> None:
    request = a_associate_rq(CONTEXTS, user=user(implementation_version_name="SECRET_9"))
    assert upstream(request).user_information.implementation_version_name == IMPLEMENTATION_VERSION_NAME


def window(invoked: int, performed: int) -> AsyncOperationsWindow:
    return AsyncOperationsWindow(maximum_invoked=invoked, maximum_performed=performed)


@pytest.mark.parametrize(
    ("asked", "sent"),
    [(None, None), (window(1, 1), window(1, 1)), (window(0, 0), window(16, 16)), (window(99, 3), window(16, 3))],
)
def test_row_a10_window_is_bounded_and_only_sent_if_asked(
    asked: AsyncOperationsWindow | None, sent: AsyncOperationsWindow | None
) -> None:
    request = a_associate_rq(CONTEXTS, user=user(async_operations_window=asked))
    assert upstream(request).user_information.async_operations_window == sent


def role(uid: str, *, scu: bool = True, scp: bool = True) -> RoleSelection:
    return RoleSelection(sop_class_uid=uid, scu_role=scu, scp_role=scp)


def test_row_a11_role_selections_are_filtered() -> None:
    request = a_associate_rq(CONTEXTS, user=user(role_selections=(role(CT_IMAGE), role(STUDY_FIND), role(MR_IMAGE))))
    assert upstream(request).user_information.role_selections == (role(CT_IMAGE),)


def extended(uid: str, information: bytes = b"\1\0\xff") -> ExtendedNegotiation:
    return ExtendedNegotiation(sop_class_uid=uid, information=information)


def test_row_a12_extended_negotiation_is_filtered() -> None:
    request = a_associate_rq(CONTEXTS, user=user(extended_negotiations=(extended(CT_IMAGE), extended(STUDY_FIND))))
    assert upstream(request).user_information.extended_negotiations == (extended(CT_IMAGE),)


def common(uid: str) -> CommonExtendedNegotiation:
    return CommonExtendedNegotiation(sop_class_uid=uid, service_class_uid="1.2.840.10008.4.2")


def test_row_a13_common_extended_negotiation_is_filtered() -> None:
    request = a_associate_rq(CONTEXTS, user=user(common_extended_negotiations=(common(CT_IMAGE), common(STUDY_FIND))))
    assert upstream(request).user_information.common_extended_negotiations == (common(CT_IMAGE),)


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 99])
@pytest.mark.parametrize("wants_answer", [True, False])
def test_row_a14_user_identity_is_rejected(kind: int, wants_answer: bool) -> None:
    identity = UserIdentity(
        type=kind,
        positive_response_requested=wants_answer,
        primary=b"user",
        secondary=b"secret" if kind == 2 else b"",
    )
    line = Line()
    line.send(REQUESTOR, encode_pdu(a_associate_rq(CONTEXTS, user=user(user_identity=identity))))
    if kind == 99 and line.reasons[0][0] == "ConnectionFailed":
        # Not one of the standard's types: the PDU itself is refused.
        assert line.said(REQUESTOR) == ["AAbort"]
    else:
        assert line.reject() == (1, 2, 1)
        assert line.reasons == [("AssociationDenied", ReasonCode.USER_IDENTITY_NOT_CONFIGURED)]
    assert line.bytes[ACCEPTOR] == b""
    assert "secret" not in repr(line.records)


def test_row_a15_unknown_sub_items_are_dropped() -> None:
    raw = bytearray(encode_pdu(a_associate_rq(CONTEXTS)))
    raw += b"\x5f\0\0\4what"
    raw[2:6] = (len(raw) - 6).to_bytes(4, "big")
    at = raw.index(b"\x50\0")
    raw[at + 2 : at + 4] = (len(raw) - at - 4).to_bytes(2, "big")
    line = Line()
    line.send(REQUESTOR, bytes(raw))
    assert b"what" not in line.bytes[ACCEPTOR]
    assert len(line.bytes[ACCEPTOR]) > 0
    line.handle(PeerClosed(REQUESTOR, "gone"))
    assert ("DeviationsCounted", None) in line.reasons


# -- B: what the requestor reads ---------------------------------------------------------------------------------------


def test_row_b01_ae_titles_are_the_requestors_own() -> None:
    line = Line().request(a_associate_rq(CONTEXTS, called="PACS_GW"))
    read = line.accept(replace(a_associate_ac(a_associate_rq(CONTEXTS)), called_ae_title="X", calling_ae_title="Y"))
    assert (read.called_ae_title, read.calling_ae_title) == ("PACS_GW", "CT1")


def test_row_b02_application_context_and_version_are_ours() -> None:
    ac, _ = accepted(a_associate_rq(CONTEXTS), application_context="1.2.3", protocol_version=3)
    assert (ac.application_context, ac.protocol_version) == ("1.2.840.10008.3.1.1.1", 1)


def test_row_b03_a_context_that_is_not_permitted_is_user_rejection() -> None:
    ac, negotiated = accepted(a_associate_rq(CONTEXTS))
    assert results(ac) == {1: 0, 3: 0, 5: 1}
    assert set(negotiated.contexts) == {1, 3}


def test_row_b04_acceptance_is_copied() -> None:
    request = a_associate_rq(CONTEXTS, transfer_syntaxes=BOTH)
    ac, negotiated = accepted(request, presentation_contexts=(answer(1, 0, BOTH[0]), answer(3, 0, BOTH[1])))
    assert ac.presentation_contexts[:2] == (answer(1, 0, BOTH[0]), answer(3, 0, BOTH[1]))
    assert negotiated.contexts[3].transfer_syntax == BOTH[1]
    assert negotiated.contexts[3].abstract_syntax == CT_IMAGE


@pytest.mark.parametrize("result", [1, 2, 3, 4])
def test_row_b05_other_results_are_copied_and_their_transfer_syntax_is_not(result: int) -> None:
    ac, negotiated = accepted(
        a_associate_rq(CONTEXTS), presentation_contexts=(answer(1, result, "1.2.3.4"), answer(3, 0))
    )
    assert ac.presentation_contexts[0] == answer(1, result)
    assert set(negotiated.contexts) == {3}


@pytest.mark.parametrize("result", [5, 200, 255])
def test_row_b05_a_result_that_the_standard_does_not_have_is_no_reason(result: int) -> None:
    ac, _ = accepted(a_associate_rq(CONTEXTS), presentation_contexts=(answer(1, result), answer(3, 0)))
    assert ac.presentation_contexts[0] == answer(1, 2)


def test_row_b06_a_missing_answer_is_no_reason() -> None:
    ac, _ = accepted(a_associate_rq(CONTEXTS), presentation_contexts=(answer(3, 0),))
    assert results(ac) == {1: 2, 3: 0, 5: 1}


def test_row_b07_a_transfer_syntax_that_was_not_proposed_is_a_refusal() -> None:
    ac, negotiated = accepted(
        a_associate_rq(CONTEXTS), presentation_contexts=(answer(1, 0), answer(3, 0, EXPLICIT_VR_BIG_ENDIAN))
    )
    assert results(ac) == {1: 0, 3: 4, 5: 1}
    assert set(negotiated.contexts) == {1}


def test_row_b08_answers_that_nobody_asked_for_are_dropped() -> None:
    ac, negotiated = accepted(
        a_associate_rq(CONTEXTS),
        presentation_contexts=(answer(1, 0), answer(3, 0), answer(5, 0), answer(99, 0)),
    )
    assert results(ac) == {1: 0, 3: 0, 5: 1}
    assert set(negotiated.contexts) == {1, 3}


@pytest.mark.parametrize(("stated", "told"), [(0, 131072), (32768, 32768), (1 << 31, 131072), (128, 128)])
def test_row_b09_maximum_length_is_the_smaller_one(stated: int, told: int) -> None:
    ac, negotiated = accepted(a_associate_rq(CONTEXTS), user_information=user(maximum_length=stated))
    assert ac.user_information.maximum_length == negotiated.maximum_length_towards_acceptor == told


def test_row_b09_a_maximum_length_that_carries_nothing_aborts_the_acceptor() -> None:
    line = Line().request(a_associate_rq(CONTEXTS))
    assert line.upstream_request is not None
    line.send(ACCEPTOR, encode_pdu(a_associate_ac(line.upstream_request, user=user(maximum_length=127))))
    assert line.said(ACCEPTOR) == ["AAbort"]
    assert line.reject() == (2, 3, 1)


def test_row_b10_implementation_is_ours() -> None:
    ac, _ = accepted(a_associate_rq(CONTEXTS), user_information=user(implementation_version_name="OLD_PACS"))
    assert ac.user_information.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert ac.user_information.implementation_version_name == IMPLEMENTATION_VERSION_NAME


@pytest.mark.parametrize(
    ("asked", "answered", "told", "towards_acceptor", "towards_requestor"),
    [
        (None, None, None, 1, 1),
        # It was not asked for, so it is not believed.
        (None, window(0, 0), None, 1, 1),
        (window(0, 0), None, window(16, 1), 1, 1),
        (window(0, 0), window(0, 0), window(16, 16), 16, 16),
        (window(4, 2), window(2, 1), window(4, 1), 2, 1),
        (window(4, 2), window(99, 99), window(4, 2), 4, 2),
    ],
)
def test_row_b11_window_is_ours_towards_the_requestor_and_the_acceptors_towards_the_acceptor(
    asked: AsyncOperationsWindow | None,
    answered: AsyncOperationsWindow | None,
    told: AsyncOperationsWindow | None,
    towards_acceptor: int,
    towards_requestor: int,
) -> None:
    ac, negotiated = accepted(
        a_associate_rq(CONTEXTS, user=user(async_operations_window=asked)),
        user_information=user(async_operations_window=answered),
    )
    assert ac.user_information.async_operations_window == told
    assert negotiated.window_towards_acceptor == towards_acceptor
    assert negotiated.window_towards_requestor == towards_requestor
    assert negotiated.window_granted_to_requestor == (told.maximum_invoked if told else 1)


@pytest.mark.parametrize("scu", [True, False])
@pytest.mark.parametrize("scp", [True, False])
def test_row_b12_an_acceptor_can_take_a_role_away_and_never_add_one(scu: bool, scp: bool) -> None:
    asked = (role(CT_IMAGE), role(VERIFICATION, scu=False, scp=False))
    answered = (role(CT_IMAGE, scu=scu, scp=scp), role(VERIFICATION), role(COMMITMENT))
    ac, negotiated = accepted(
        a_associate_rq(CONTEXTS, user=user(role_selections=asked)), user_information=user(role_selections=answered)
    )
    assert ac.user_information.role_selections == (
        role(CT_IMAGE, scu=scu, scp=scp),
        role(VERIFICATION, scu=False, scp=False),
    )
    context = negotiated.contexts[3]
    assert (context.requestor_is_scu, context.requestor_is_scp) == (scu, scp)


def test_row_b12_without_a_role_the_requestor_is_scu() -> None:
    _, negotiated = accepted(a_associate_rq(CONTEXTS))
    context = negotiated.contexts[3]
    assert (context.requestor_is_scu, context.requestor_is_scp) == (True, False)


def test_row_b13_extended_negotiation_is_filtered() -> None:
    ac, _ = accepted(
        a_associate_rq(CONTEXTS, user=user(extended_negotiations=(extended(CT_IMAGE),))),
        user_information=user(extended_negotiations=(extended(CT_IMAGE, b"\0\7"), extended(MR_IMAGE))),
    )
    assert ac.user_information.extended_negotiations == (extended(CT_IMAGE, b"\0\7"),)


def test_row_b14_what_does_not_belong_into_an_answer_is_dropped() -> None:
    ac, _ = accepted(
        a_associate_rq(CONTEXTS, user=user(common_extended_negotiations=(common(CT_IMAGE),))),
        user_information=user(common_extended_negotiations=(common(CT_IMAGE),), user_identity_response=b"welcome"),
    )
    assert ac.user_information.common_extended_negotiations == ()
    assert ac.user_information.user_identity_response is None
    assert ac.user_information.unknown_items == ()


# -- R: rejects --------------------------------------------------------------------------------------------------------


@given(result=st.sampled_from([1, 2]), source=st.integers(1, 3), reason=st.integers(0, 255))
def test_row_r01_the_acceptors_reject_is_copied(result: int, source: int, reason: int) -> None:
    line = Line().request(a_associate_rq(CONTEXTS))
    line.send(ACCEPTOR, encode_pdu(AAssociateRj(result=result, source=source, reason=reason)))
    assert line.reject() == (result, source, reason)


@pytest.mark.parametrize(("result", "source"), [(0, 1), (3, 1), (1, 0), (2, 4), (0, 0), (255, 255)])
def test_row_r01_codes_that_the_standard_does_not_have_are_not_passed_on(result: int, source: int) -> None:
    line = Line().request(a_associate_rq(CONTEXTS))
    line.send(ACCEPTOR, encode_pdu(AAssociateRj(result=result, source=source, reason=1)))
    assert line.reject() == (2, 3, 1)


def test_row_r02_our_own_reject_says_the_standards_code() -> None:
    world = FakeWorld()
    world.limits.refuse_association = ReasonCode.ARCHIVE_ASSOCIATIONS
    assert Line(world).request(a_associate_rq(CONTEXTS)).reject() == (2, 3, 2)


# -- clamps ------------------------------------------------------------------------------------------------------------


@given(stated=st.integers(0, (1 << 32) - 1), ours=st.integers(1, 1 << 20))
def test_a_clamped_maximum_length_is_never_more_than_ours_and_never_none(stated: int, ours: int) -> None:
    clamped = clamp_maximum_length(stated, ours)
    assert 0 < clamped <= ours
    assert clamped == (ours if stated == 0 else min(stated, ours))


@given(st.integers(0, (1 << 32) - 1))
def test_usable_maximum_lengths(stated: int) -> None:
    assert is_usable_maximum_length(stated) is not (0 < stated < LEAST_MAXIMUM_LENGTH)
