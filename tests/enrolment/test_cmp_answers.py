"""PKIFailureInfo: each refusal of CMP has its own bit, and who guesses can't tell one failure from another."""

from dicomward.enrolment.answers import answer_for
from dicomward.enrolment.cmp_answers import BAD_MESSAGE_CHECK, NOT_AUTHORIZED, failure_for
from dicomward.vocab.reason import ReasonCode


def test_refusals_of_cmp_have_a_bit_and_a_sentence_of_their_own() -> None:
    ours = [each for each in ReasonCode if each.value.startswith("cmp-")]
    assert len(ours) == len({failure_for(each) for each in ours}) == 9
    assert len({answer_for(each)[1] for each in ours}) == 9


def test_guesses_look_alike() -> None:
    alike = (ReasonCode.CODE_WRONG, ReasonCode.CODE_DEAD, ReasonCode.INVITATION_UNKNOWN)
    assert {failure_for(each) for each in alike} == {BAD_MESSAGE_CHECK}
    assert len({answer_for(each) for each in alike}) == 1


def test_what_may_not_be_had_is_not_authorized() -> None:
    assert failure_for(ReasonCode.CODE_USED) == NOT_AUTHORIZED
