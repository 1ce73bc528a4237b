"""Which associations are spooled, and what is accepted while the archive can't be asked."""

from dataclasses import replace

from dicomward.dicom.pdu import AAssociateRq, PresentationContextRq, RoleSelection, UserInformation
from dicomward.edge.contexts import answer_contexts, asks_for_commitment, is_for_spool, propose, unknown_pairs
from dicomward.vocab.association import PresentationResult
from dicomward.vocab.services import STORAGE_COMMITMENT_PUSH_MODEL, VERIFICATION

CT = "1.2.840.10008.5.1.4.1.1.2"
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


def test_only_who_stores_goes_to_the_spool() -> None:
    storing = request((CT, (IMPLICIT,)), (VERIFICATION, (IMPLICIT,)))
    assert is_for_spool(storing)
    assert not is_for_spool(request((VERIFICATION, (IMPLICIT,))))
    assert not is_for_spool(request((CT, (IMPLICIT,)), (FIND, (IMPLICIT,))))
    assert not is_for_spool(request((CT, (IMPLICIT,)), ("1.2.3", (IMPLICIT,))))
    role = RoleSelection(sop_class_uid=CT, scu_role=False, scp_role=True)
    retrieving = replace(storing, user_information=UserInformation(maximum_length=16384, role_selections=(role,)))
    assert not is_for_spool(retrieving)


def test_commitment_is_told_from_storing() -> None:
    commitment = (STORAGE_COMMITMENT_PUSH_MODEL, (IMPLICIT,))
    assert asks_for_commitment(request((CT, (IMPLICIT,)), commitment))
    assert not is_for_spool(request((CT, (IMPLICIT,)), commitment))
    assert not asks_for_commitment(request((CT, (IMPLICIT,))))


def test_archive_is_asked_once_for_each_pair() -> None:
    asked = request((CT, (IMPLICIT, JPEG)), (CT, (JPEG,)), (VERIFICATION, (IMPLICIT,)))
    assert unknown_pairs(asked, {(CT, IMPLICIT): False}) == ((CT, JPEG),)


def test_context_is_accepted_in_the_first_syntax_that_the_archive_took() -> None:
    asked = request((CT, (JPEG, EXPLICIT, IMPLICIT)), (CT, (JPEG,)), (FIND, (IMPLICIT,)), (VERIFICATION, (EXPLICIT,)))
    answer = answer_contexts(asked, {(CT, JPEG): False, (CT, EXPLICIT): True, (CT, IMPLICIT): True})
    assert [each.result for each in answer.contexts] == [
        PresentationResult.ACCEPTANCE,
        PresentationResult.TRANSFER_SYNTAXES_NOT_SUPPORTED,
        PresentationResult.NO_REASON,
        PresentationResult.ACCEPTANCE,
    ]
    assert answer.accepted == {1: (CT, EXPLICIT), 7: (VERIFICATION, EXPLICIT)}
    assert answer_contexts(request((VERIFICATION, ())), {}).accepted == {}


def test_an_association_has_128_contexts() -> None:
    proposed = propose([(f"1.2.{number}", IMPLICIT) for number in range(200)] + [("1.2.0", IMPLICIT)])
    assert [each.context_id for each in proposed] == list(range(1, 257, 2))
