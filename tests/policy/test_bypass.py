"""The emergency bypass: what it lifts, when it ends, who reviews it, and what its records prove."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dicomward.policy.bypass import (
    ALARM_SECONDS,
    LEASE_SECONDS,
    LIFTED,
    NO_BYPASS,
    REVIEW_ALARM_SECONDS,
    Bypass,
    Due,
    Ending,
    Moment,
    ReviewRefused,
    compile_table,
    is_lifted,
    judge_due,
    judge_evidence,
    verify_review,
)
from dicomward.vocab.reason import ReasonCode

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def moment(seconds: float = 0, *, wall: float | None = None, boot: str = "boot-1") -> Moment:
    """Return a moment so many seconds after noon; `wall` where the wall clock says something else."""
    shown = seconds if wall is None else wall
    return Moment(wall=NOON + timedelta(seconds=shown), boot=boot, boot_seconds=1000.0 + seconds)


def bypass(**changes: Any) -> Bypass:
    values: dict[str, Any] = {
        "bypass_id": "20260302-1",
        "device": "ct1",
        "site": None,
        "reason": "policy refuses the prior",
        "operator": "anna",
        "minutes": 60,
        "opened_at": NOON,
        "boot": "boot-1",
        "boot_seconds": 1000.0,
        "alarmed_at": NOON,
    }
    return Bypass(**values | changes)


def ended(**changes: Any) -> Bypass:
    return bypass(ended_at=NOON, ending=Ending.CLOSED, ended_by="anna", **changes)


# -- what it lifts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", sorted(LIFTED))
def test_what_policy_and_limits_refuse_is_lifted(reason: ReasonCode) -> None:
    assert is_lifted(reason)


@pytest.mark.parametrize(
    "reason",
    [
        ReasonCode.NO_CERTIFICATE,
        ReasonCode.CERTIFICATE_UNKNOWN,
        ReasonCode.CERTIFICATE_REVOKED,
        ReasonCode.CERTIFICATE_EXPIRED,
        ReasonCode.DEVICE_SUSPENDED,
        ReasonCode.DEVICE_REVOKED,
        ReasonCode.CALLING_AE_TITLE_NOT_BOUND,
        ReasonCode.NETWORK_NOT_ALLOWED,
        ReasonCode.USER_IDENTITY_NOT_CONFIGURED,
        ReasonCode.CALLED_AE_TITLE_UNKNOWN,
        ReasonCode.MOVE_DESTINATION_UNKNOWN,
        ReasonCode.MALFORMED_PDU,
        ReasonCode.LIMIT_EXCEEDED,
        ReasonCode.SOP_CLASS_MISMATCH,
        ReasonCode.OPERATION_NOT_OF_SOP_CLASS,
        ReasonCode.IDENTIFIER_UNREADABLE,
        ReasonCode.UPSTREAM_NOT_TRUSTED,
        ReasonCode.INTERNAL_ERROR,
    ],
)
def test_what_says_who_somebody_is_or_whether_a_message_is_sound_is_never_lifted(reason: ReasonCode) -> None:
    assert not is_lifted(reason)


def test_floor_of_a_degraded_state_is_lifted_and_that_of_an_expired_certificate_is_not() -> None:
    floor = ReasonCode.CLINICAL_FLOOR_ONLY
    assert is_lifted(floor, ReasonCode.AUDIT_UNAVAILABLE)
    assert is_lifted(floor, ReasonCode.CERTIFICATE_BACK_OFF)
    assert is_lifted(floor)
    assert not is_lifted(floor, ReasonCode.CERTIFICATE_JUST_EXPIRED)
    assert not is_lifted(floor, "something new")


# -- time -------------------------------------------------------------------------------------------------------------


def test_it_ends_at_its_time() -> None:
    assert bypass().ends_at == NOON + timedelta(hours=1)
    assert bypass().seconds_left(moment(60)) == 59 * 60
    assert bypass().seconds_left(moment(3600)) == 0.0
    assert ended().seconds_left(moment(60)) == 0.0


def test_clock_that_is_set_back_does_not_lengthen_it() -> None:
    assert bypass().seconds_left(moment(3599, wall=-86_400)) == 1.0
    assert bypass().seconds_left(moment(3600, wall=-86_400)) == 0.0


def test_clock_that_is_set_forward_ends_it() -> None:
    assert bypass().seconds_left(moment(1, wall=3600)) == 0.0


def test_another_boot_with_a_clock_that_went_back_counts_what_was_leased() -> None:
    used = bypass(leased_seconds=1800.0)
    after = moment(-900, wall=-86_400, boot="boot-2")
    assert used.seconds_left(after) == 1800.0
    carried = used.leased(after)
    assert carried.seconds_left(after) == 1800.0
    assert carried.leased_seconds == 1800.0 + LEASE_SECONDS
    later = moment(-900 + 1800, wall=-86_400, boot="boot-2")
    assert carried.seconds_left(later) == 0.0


def test_lease_is_renewed_before_it_is_used_up_and_never_sooner_than_needed() -> None:
    assert bypass().leased(moment(LEASE_SECONDS / 2)) == bypass()
    assert bypass().leased(moment(LEASE_SECONDS / 2 + 1)).leased_seconds == LEASE_SECONDS * 1.5 + 1


# -- alarms and ends --------------------------------------------------------------------------------------------------


def test_it_ends_and_alarms_when_it_is_due() -> None:
    assert judge_due(bypass(), moment(1)) is None
    assert judge_due(bypass(), moment(ALARM_SECONDS - 1)) is None
    assert judge_due(bypass(), moment(ALARM_SECONDS)) is Due.ALARM_OPEN
    assert judge_due(bypass(), moment(3600)) is Due.END
    assert judge_due(bypass(alarmed_at=None), moment(1)) is Due.ALARM_OPEN


def test_unreviewed_one_alarms_daily_until_it_is_reviewed() -> None:
    assert judge_due(ended(), moment(REVIEW_ALARM_SECONDS - 1)) is None
    assert judge_due(ended(), moment(REVIEW_ALARM_SECONDS)) is Due.ALARM_UNREVIEWED
    reviewed = ended(reviewed_at=NOON, reviewed_by="bert", note="fine")
    assert judge_due(reviewed, moment(REVIEW_ALARM_SECONDS)) is None


def test_clock_that_is_set_back_does_not_silence_the_alarms() -> None:
    assert judge_due(bypass(), moment(60, wall=-60)) is Due.ALARM_OPEN


# -- review -----------------------------------------------------------------------------------------------------------


def test_somebody_else_reviews_it() -> None:
    verify_review(ended(), "bert", is_only_operator=False)
    with pytest.raises(ReviewRefused, match="somebody else must review it"):
        verify_review(ended(), "Anna", is_only_operator=False)
    verify_review(ended(), "anna", is_only_operator=True)


def test_what_is_open_or_reviewed_is_not_reviewed() -> None:
    with pytest.raises(ReviewRefused, match="still open"):
        verify_review(bypass(), "bert", is_only_operator=False)
    with pytest.raises(ReviewRefused, match="reviewed by bert already"):
        verify_review(ended(reviewed_at=NOON, reviewed_by="bert"), "carl", is_only_operator=False)


# -- table ------------------------------------------------------------------------------------------------------------


def test_table_finds_a_device_by_its_name_or_its_site_until_its_time() -> None:
    of_site = bypass(bypass_id="20260302-2", device=None, site="north", minutes=10)
    table = compile_table([bypass(), of_site], moment(), 500.0)
    assert table
    own = table.find("ct1", "north", 500.0)
    assert own is not None
    assert own.rule_id == "bypass:20260302-1"
    other = table.find("mr1", "north", 500.0)
    assert other is not None
    assert other.rule_id == "bypass:20260302-2"
    assert table.find("mr1", "north", 500.0 + 600) is None
    assert table.find("mr1", "south", 500.0) is None
    assert table.find("north", "ct1", 500.0) is None


def test_of_several_the_one_that_lasts_longest_counts() -> None:
    longer = bypass(bypass_id="20260302-2", minutes=120)
    for order in ([bypass(), longer], [longer, bypass()]):
        found = compile_table(order, moment(), 0.0).find("ct1", "", 0.0)
        assert found is not None
        assert found.rule_id == "bypass:20260302-2"


def test_what_has_ended_is_in_no_table() -> None:
    assert compile_table([ended(), bypass(minutes=1)], moment(60), 0.0) is NO_BYPASS
    assert not NO_BYPASS


def test_it_says_for_whom_it_is() -> None:
    assert bypass().target == "device ct1"
    assert replace(bypass(), device=None, site="north").target == "site north"


# -- evidence ---------------------------------------------------------------------------------------------------------


def test_files_that_are_as_the_log_has_them_are_good() -> None:
    assert judge_evidence({"1": "aa"}, {"1": "aa", "2": "bb"}, frozenset({"2"})) == []


def test_file_that_was_taken_away_made_up_or_changed_is_noticed() -> None:
    found = judge_evidence({"1": "aa", "2": "bb"}, {"2": "cc", "3": "dd"}, frozenset())
    assert found == [
        "bypass 1 has a file, but no record in the audit log",
        "the file of bypass 2 is not as the audit log has it",
        "bypass 3 is in the audit log, but its file is gone",
    ]
