"""What a device is told: short, and nothing internal."""

from http import HTTPStatus

from dicomward.enrolment.answers import answer_for
from dicomward.vocab.reason import ReasonCode


def test_who_guesses_learns_nothing_by_the_difference() -> None:
    wrong = answer_for(ReasonCode.CODE_WRONG)
    assert wrong == answer_for(ReasonCode.CODE_DEAD) == answer_for(ReasonCode.INVITATION_UNKNOWN)
    assert wrong[0] == HTTPStatus.UNAUTHORIZED


def test_what_is_not_the_devices_fault_is_to_be_tried_again() -> None:
    for reason in (ReasonCode.CA_UNAVAILABLE, ReasonCode.CA_NOT_VALID, ReasonCode.INTERNAL_ERROR):
        assert answer_for(reason) == (HTTPStatus.SERVICE_UNAVAILABLE, "nothing can be issued now; try again later")
