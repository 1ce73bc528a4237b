"""Which associations are spooled, and what is accepted while the archive can't be asked."""

from dataclasses import replace

from dicomward.dicom.pdu import (
    AAssociateRq,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContextAc,
    PresentationContextRq,
    RoleSelection,
    UserInformation,
)
from dicomward.edge.contexts import (
    answer_contexts,
    asks_for_commitment,
    is_for_reports,
    is_for_spool,
    is_own_context,
    passed_request,
    propose,
    unknown_pairs,
)
from dicomward.vocab.association import PresentationResult
from dicomward.vocab.services import STORAGE_COMMITMENT_PUSH_MODEL, VERIFICATION

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
PRIVATE = "1.2.826.0.1.3680043.10.543.99.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT, EXPLICIT, JPEG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"


def request(*contexts: tuple[str, tuple[str, ...]]) -> AAssociateRq:
    return AAssociateRq(
        called_ae_title="PACS",
        calling_ae_title="CT1",
        presentation_contexts=tuple(
            PresentationContextRq(context_id=2 * number + 1, abstract_syntax=uid, transfer_syntaxes=syntaxes)
            for number, (uid, syntaxes) in enumerate(contexts)
        ),
        user_information=UserInformation(maximum_length=16384),
    )


def with_roles(asked: AAssociateRq, *roles: RoleSelection) -> AAssociateRq:
    return replace(asked, user_information=UserInformation(maximum_length=16384, role_selections=roles))


def test_who_may_store_goes_to_the_spool() -> None:
    storing = request((CT, (IMPLICIT,)), (VERIFICATION, (IMPLICIT,)))
    assert is_for_spool(storing)
    assert is_for_spool(request((CT, (IMPLICIT,)), (FIND, (IMPLICIT,))))
    assert is_for_spool(request((PRIVATE, (IMPLICIT,))))
    assert not is_for_spool(request((VERIFICATION, (IMPLICIT,)), (FIND, (IMPLICIT,))))
    both = RoleSelection(sop_class_uid=CT, scu_role=True, scp_role=True)
    back = RoleSelection(sop_class_uid=CT, scu_role=False, scp_role=True)
    assert is_for_spool(with_roles(storing, both))
    assert not is_for_spool(with_roles(storing, back))


def test_only_storing_and_verifying_is_answered_without_the_archive() -> None:
    mixed = request((CT, (IMPLICIT,)), (VERIFICATION, (IMPLICIT,)), (FIND, (IMPLICIT,)), (PRIVATE, (IMPLICIT,)))
    assert [is_own_context(mixed, each) for each in mixed.presentation_contexts] == [True, True, False, False]
    back = with_roles(mixed, RoleSelection(sop_class_uid=CT, scu_role=True, scp_role=True))
    assert not is_own_context(back, back.presentation_contexts[0])


def test_archive_is_asked_for_the_rest_with_what_belongs_to_it() -> None:
    assert passed_request(request((CT, (IMPLICIT,)), (VERIFICATION, (IMPLICIT,)))) is None
    information = UserInformation(
        maximum_length=16384,
        role_selections=(
            RoleSelection(sop_class_uid=MR, scu_role=False, scp_role=True),
            RoleSelection(sop_class_uid=CT, scu_role=True, scp_role=False),
        ),
        extended_negotiations=(
            ExtendedNegotiation(sop_class_uid=FIND, information=b"\1"),
            ExtendedNegotiation(sop_class_uid=CT, information=b"\1"),
        ),
        common_extended_negotiations=(
            CommonExtendedNegotiation(sop_class_uid=CT, service_class_uid="1.2.840.10008.4.2"),
        ),
    )
    mixed = replace(request((CT, (IMPLICIT,)), (FIND, (IMPLICIT,)), (MR, (IMPLICIT,))), user_information=information)
    passed = passed_request(mixed)
    assert passed is not None
    assert [each.context_id for each in passed.presentation_contexts] == [3, 5]
    assert passed.user_information == replace(
        information,
        role_selections=information.role_selections[:1],
        extended_negotiations=information.extended_negotiations[:1],
        common_extended_negotiations=(),
    )


def test_commitment_is_told_from_storing() -> None:
    commitment = (STORAGE_COMMITMENT_PUSH_MODEL, (IMPLICIT,))
    assert asks_for_commitment(request((CT, (IMPLICIT,)), commitment))
    assert not asks_for_commitment(request((CT, (IMPLICIT,))))


def test_archive_is_asked_once_for_each_pair() -> None:
    asked = request((CT, (IMPLICIT, JPEG)), (CT, (JPEG,)), (VERIFICATION, (IMPLICIT,)), (FIND, (IMPLICIT,)))
    assert unknown_pairs(asked, {(CT, IMPLICIT): False}) == ((CT, JPEG),)


def test_context_is_accepted_in_the_first_syntax_that_the_archive_took() -> None:
    asked = request((CT, (JPEG, EXPLICIT, IMPLICIT)), (CT, (JPEG,)), (FIND, (IMPLICIT,)), (VERIFICATION, (EXPLICIT,)))
    answer = answer_contexts(asked, {(CT, JPEG): False, (CT, EXPLICIT): True, (CT, IMPLICIT): True}, {})
    assert [each.result for each in answer.contexts] == [
        PresentationResult.ACCEPTANCE,
        PresentationResult.TRANSFER_SYNTAXES_NOT_SUPPORTED,
        PresentationResult.NO_REASON,
        PresentationResult.ACCEPTANCE,
    ]
    assert answer.accepted == {1: (CT, EXPLICIT), 7: (VERIFICATION, EXPLICIT)}
    assert answer_contexts(request((VERIFICATION, ())), {}, {}).accepted == {}


def test_answer_of_the_archive_stands_as_it_is() -> None:
    asked = request((CT, (IMPLICIT,)), (FIND, (IMPLICIT, EXPLICIT)), (PRIVATE, (IMPLICIT,)))
    found = PresentationContextAc(context_id=3, result=PresentationResult.ACCEPTANCE, transfer_syntax=EXPLICIT)
    refused = PresentationContextAc(
        context_id=5, result=PresentationResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, transfer_syntax=IMPLICIT
    )
    answer = answer_contexts(asked, {(CT, IMPLICIT): True}, {3: found, 5: refused})
    assert answer.contexts[1:] == (found, refused)
    assert answer.accepted == {1: (CT, IMPLICIT), 3: (FIND, EXPLICIT)}
    # Offline a vendor's own class is accepted if objects have come on it before.
    offline = answer_contexts(asked, {(PRIVATE, IMPLICIT): True}, {})
    assert offline.accepted == {5: (PRIVATE, IMPLICIT)}


def test_an_association_has_128_contexts() -> None:
    proposed = propose([(f"1.2.{number}", IMPLICIT) for number in range(200)] + [("1.2.0", IMPLICIT)])
    assert [each.context_id for each in proposed] == list(range(1, 257, 2))


def test_association_that_can_only_bring_reports_is_told_from_others() -> None:
    commitment, verification, ct = STORAGE_COMMITMENT_PUSH_MODEL, VERIFICATION, CT
    for classes, is_it in (
        ((commitment,), True),
        ((commitment, verification), True),
        ((verification,), False),
        ((commitment, ct), False),
        ((), False),
    ):
        assert is_for_reports(request(*((each, (IMPLICIT,)) for each in classes))) is is_it
