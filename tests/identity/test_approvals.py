"""Approvals: for one command, by another operator, once, and in time."""

from datetime import UTC, datetime, timedelta

import pytest

from dicomward.identity.approvals import (
    MOST_OVER,
    MOST_PENDING,
    Approval,
    ApprovalError,
    Approvals,
    ApprovalStatus,
    approval_to_json,
    decode_approvals,
    encode_approvals,
    request_approval,
)
from dicomward.identity.operators import Operator, OperatorRole, Permission

NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
ANNA = Operator(name="anna", role=OperatorRole.ADMINISTRATOR, unix_users=())
BERT = Operator(name="bert", role=OperatorRole.OPERATOR, unix_users=())
CARLA = Operator(name="carla", role=OperatorRole.ADMINISTRATOR, unix_users=())


def request(number: int = 1, at: datetime = NOW) -> Approval:
    return request_approval(
        approval_id=f"id{number}",
        permission=Permission.DEVICE_CHANGE,
        command="device add ct1",
        digest="d1",
        operator=ANNA,
        now=at,
        hours=24,
    )


def test_approved_by_another_and_used_once() -> None:
    approvals = Approvals((request(),)).decide("id1", CARLA, approve=True, now=NOW)
    found = approvals.find(digest="d1", requested_by="anna", now=NOW)
    assert found is not None
    assert (found.status, found.decided_by) == (ApprovalStatus.APPROVED, "carla")
    used = approvals.use(found)
    assert used.named("id1").status is ApprovalStatus.USED
    assert used.find(digest="d1", requested_by="anna", now=NOW) is None


def test_an_approval_is_for_one_command_of_one_operator() -> None:
    approvals = Approvals((request(),))
    assert approvals.find(digest="d2", requested_by="anna", now=NOW) is None
    assert approvals.find(digest="d1", requested_by="carla", now=NOW) is None


def test_an_approved_request_comes_before_one_that_waits() -> None:
    approvals = Approvals((request(1), request(2))).decide("id2", CARLA, approve=True, now=NOW)
    found = approvals.find(digest="d1", requested_by="anna", now=NOW)
    assert found is not None
    assert found.id == "id2"


def test_denied_when_the_second_person_is_the_first() -> None:
    with pytest.raises(ApprovalError, match="you have asked for this yourself"):
        Approvals((request(),)).decide("id1", ANNA, approve=True, now=NOW)


def test_who_asked_may_take_it_back() -> None:
    rejected = Approvals((request(),)).decide("id1", ANNA, approve=False, now=NOW)
    assert rejected.named("id1").status is ApprovalStatus.REJECTED


@pytest.mark.parametrize("approve", [True, False])
def test_denied_when_the_second_person_may_not_do_it_either(approve: bool) -> None:
    with pytest.raises(ApprovalError, match=r"bert may not do this \(device-change\)"):
        Approvals((request(),)).decide("id1", BERT, approve=approve, now=NOW)


def test_denied_when_decided_already_or_unknown() -> None:
    approvals = Approvals((request(),)).decide("id1", CARLA, approve=False, now=NOW)
    with pytest.raises(ApprovalError, match="is rejected already"):
        approvals.decide("id1", CARLA, approve=True, now=NOW)
    with pytest.raises(ApprovalError, match="there is no request 'id9'"):
        approvals.decide("id9", CARLA, approve=True, now=NOW)


def test_everything_ends_in_time() -> None:
    late = NOW + timedelta(hours=24)
    approvals = Approvals((request(),)).decide("id1", CARLA, approve=True, now=NOW)
    assert approvals.find(digest="d1", requested_by="anna", now=late - timedelta(seconds=1)) is not None
    assert approvals.find(digest="d1", requested_by="anna", now=late) is None
    with pytest.raises(ApprovalError, match="is expired already"):
        Approvals((request(),)).decide("id1", CARLA, approve=True, now=late)


def test_what_is_over_is_let_go_and_what_waits_is_bounded() -> None:
    many = Approvals(tuple(request(i) for i in range(MOST_OVER + 50)))
    later = NOW + timedelta(hours=25)
    assert len(many.with_request(request(1000, later)).entries) == MOST_OVER + 1
    full = Approvals(tuple(request(i) for i in range(MOST_PENDING)))
    with pytest.raises(ApprovalError, match=f"{MOST_PENDING} requests are open already"):
        full.with_request(request(1000))


def test_written_approvals_are_read_again() -> None:
    approvals = Approvals((request(1), request(2))).decide("id2", CARLA, approve=True, now=NOW)
    assert decode_approvals(encode_approvals(approvals)) == approvals
    assert approval_to_json(request(), ApprovalStatus.EXPIRED)["status"] == "expired"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2}',
        '{"version": 1}',
        '{"version": 1, "approvals": [{}]}',
        encode_approvals(Approvals((request(),))).replace("+00:00", ""),
        encode_approvals(Approvals((request(),))).replace("pending", "perhaps"),
    ],
)
def test_broken_files_are_refused(text: str) -> None:
    with pytest.raises(ApprovalError, match="move it away to begin anew"):
        decode_approvals(text)
