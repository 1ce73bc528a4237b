"""A refusal keeps its reason."""

from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.vocab.reason import ReasonCode


def test_a_refusal_has_its_reason_and_its_detail() -> None:
    refused = EnrolmentRefusedError(ReasonCode.KEY_IN_USE, "of CT-1")
    assert (refused.reason, refused.detail, str(refused)) == (ReasonCode.KEY_IN_USE, "of CT-1", "key-in-use: of CT-1")
