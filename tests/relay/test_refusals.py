"""Each reason as a code of the standard (PS3.8 §9.3.4, PS3.7 Annex C), for every reason and operation."""

import pytest

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.relay.refusals import comment_for, reject_for, status_for
from dicomward.vocab.dimse import RESPONSE_BIT, Operation, is_pending
from dicomward.vocab.reason import ReasonCode

LEGAL = {1: {1, 2, 3, 7}, 2: {1, 2}, 3: {1, 2}}


@pytest.mark.parametrize("reason", list(ReasonCode))
def test_every_reason_has_a_legal_reject(reason: ReasonCode) -> None:
    reject = reject_for(reason)
    assert reject.result in (1, 2)
    assert reject.reason in LEGAL[reject.source]
    assert encode_pdu(reject)


@pytest.mark.parametrize(
    ("reason", "codes"),
    [
        (ReasonCode.CALLING_AE_TITLE_NOT_BOUND, (1, 1, 3)),
        (ReasonCode.CERTIFICATE_UNKNOWN, (1, 1, 3)),
        (ReasonCode.DEVICE_SUSPENDED, (1, 1, 3)),
        (ReasonCode.CALLED_AE_TITLE_UNKNOWN, (1, 1, 7)),
        (ReasonCode.NO_PENDING_MOVE, (1, 1, 7)),
        (ReasonCode.NO_PENDING_COMMITMENT, (1, 1, 7)),
        (ReasonCode.USER_IDENTITY_NOT_CONFIGURED, (1, 2, 1)),
        (ReasonCode.DEVICE_ASSOCIATIONS, (2, 3, 2)),
        (ReasonCode.ASSOCIATION_RATE, (2, 3, 2)),
        (ReasonCode.UPSTREAM_UNREACHABLE, (2, 3, 1)),
        (ReasonCode.AUDIT_UNAVAILABLE, (2, 3, 1)),
        (ReasonCode.NO_MATCHING_RULE, (1, 1, 1)),
    ],
)
def test_rejects_that_clients_act_on(reason: ReasonCode, codes: tuple[int, int, int]) -> None:
    reject = reject_for(reason)
    assert (reject.result, reject.source, reject.reason) == codes


@pytest.mark.parametrize(
    ("reason", "operation", "status"),
    [
        (ReasonCode.NO_MATCHING_RULE, Operation.C_STORE, 0x0124),
        (ReasonCode.INTERNAL_ERROR, Operation.C_STORE, 0x0124),
        (ReasonCode.OPERATION_RATE, Operation.C_STORE, 0xA700),
        (ReasonCode.QUERY_RATE, Operation.C_FIND, 0xA700),
        (ReasonCode.MATCHES_PER_QUERY, Operation.C_FIND, 0xA700),
        (ReasonCode.OPERATION_RATE, Operation.C_MOVE, 0xA702),
        (ReasonCode.OPERATION_RATE, Operation.C_GET, 0xA702),
        (ReasonCode.OPERATION_RATE, Operation.C_ECHO, 0x0213),
        (ReasonCode.OPERATION_RATE, Operation.N_CREATE, 0x0213),
        (ReasonCode.INSTANCE_UID_MISMATCH, Operation.C_STORE, 0xA900),
        (ReasonCode.IDENTIFIER_UNREADABLE, Operation.C_FIND, 0xA900),
        (ReasonCode.SOP_CLASS_MISMATCH, Operation.N_SET, 0x0110),
        (ReasonCode.SOP_CLASS_MISMATCH, Operation.C_ECHO, 0x0122),
        (ReasonCode.DATA_SET_UNREADABLE, Operation.C_STORE, 0xC000),
        (ReasonCode.DATA_SET_UNREADABLE, Operation.N_ACTION, 0x0110),
        (ReasonCode.MOVE_DESTINATION_UNKNOWN, Operation.C_MOVE, 0xA801),
        (ReasonCode.MOVE_DESTINATION_NOT_ALLOWED, Operation.C_MOVE, 0xA801),
        (ReasonCode.DUPLICATE_MESSAGE_ID, Operation.C_ECHO, 0x0210),
        (ReasonCode.UNEXPECTED_COMMAND, Operation.C_STORE, 0x0211),
    ],
)
def test_statuses(reason: ReasonCode, operation: Operation, status: int) -> None:
    assert status_for(operation, reason) == status


@pytest.mark.parametrize("operation", list(Operation))
def test_no_reason_is_ever_told_as_success_or_pending(operation: Operation) -> None:
    for reason in ReasonCode:
        status = status_for(operation, reason)
        assert status != 0
        assert not is_pending(status)
        command = CommandSet(
            command_field=operation | RESPONSE_BIT,
            message_id_being_responded_to=1,
            status=status,
            error_comment=comment_for(reason),
        )
        assert encode_command_set(command)


def test_a_comment_tells_the_stable_reason_and_nothing_else() -> None:
    assert comment_for(ReasonCode.QUERY_RATE) == "Dicomward: query-rate"
    assert all(len(comment_for(reason)) <= 64 for reason in ReasonCode)
