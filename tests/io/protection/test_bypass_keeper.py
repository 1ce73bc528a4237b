"""Bypasses are opened, watched, closed and reviewed: on record first, in their files, and in force."""

import threading
from pathlib import Path

import pytest

from dicomward.audit.event import BypassReviewed, SecurityAlert
from dicomward.io.protection import bypass_keeper as module
from dicomward.io.protection.bypass_keeper import BypassError, describe
from dicomward.io.protection.bypass_store import read_bypasses, state_digest
from dicomward.policy.bypass import NO_BYPASS
from tests.io.bypass_helpers import Ward


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


def test_opened_bypass_is_in_force_in_its_file_and_on_record(ward: Ward) -> None:
    bypass_id = ward.open()
    assert bypass_id == "20260302-1"
    assert ward.is_lifted()
    assert not ward.is_lifted("mr1")
    stored = read_bypasses(ward.state).bypasses[bypass_id]
    (alert,) = ward.events
    assert isinstance(alert, SecurityAlert)
    assert (alert.device, alert.operator, alert.reason) == ("ct1", "anna", "bypass-opened")
    assert alert.state_sha256 == state_digest(stored)
    assert alert.detail is not None
    assert "night" in alert.detail
    assert ward.open(device=None, site="north") == "20260302-2"
    assert ward.is_lifted("mr1", "north")


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": None, "site": None},
        {"device": "ct1", "site": "north"},
        {"minutes": 0},
        {"minutes": 481},
        {"reason": " "},
    ],
)
def test_what_makes_no_sense_opens_nothing(ward: Ward, wrong: dict[str, object]) -> None:
    values: dict[str, object] = {"device": "ct1", "site": None, "minutes": 5, "reason": "x", "operator": "anna"}
    with pytest.raises(BypassError, match="one device or one site"):
        ward.keeper.open(**values | wrong)  # type: ignore[arg-type]
    assert ward.table is NO_BYPASS


def test_nothing_opens_without_a_record(ward: Ward) -> None:
    ward.log_works = False
    with pytest.raises(BypassError, match="neither the audit log nor its second sink"):
        ward.open()
    assert not ward.is_lifted()
    assert read_bypasses(ward.state).bypasses == {}


def test_file_that_cannot_be_written_keeps_it_from_nothing_but_a_restart(ward: Ward) -> None:
    (ward.state / "bypass").write_text("in the way")
    changed = ward.keeper.open(device="ct1", site=None, minutes=5, reason="night", operator="anna")
    assert "a restart of the gateway forgets it" in changed.problem
    assert ward.is_lifted()


def test_it_ends_by_itself_and_says_so(ward: Ward) -> None:
    ward.open(minutes=10)
    ward.clocks.pass_by(minutes=10)
    assert not ward.is_lifted()
    ward.keeper.tick()
    assert ward.table is NO_BYPASS
    assert ward.alarms == ["bypass-opened", "bypass-ended"]
    (ended,) = ward.keeper.all()
    assert describe(ended).endswith(
        "ended by time at 2026-03-02 12:10 UTC, not reviewed (dicomward bypass review 20260302-1 --note TEXT)"
    )


def test_it_survives_a_restart_and_still_ends_at_its_time(ward: Ward) -> None:
    ward.open(minutes=10)
    ward.clocks.pass_by(minutes=9)
    ward.again()
    assert ward.is_lifted()
    ward.clocks.pass_by(minutes=1)
    assert not ward.is_lifted()
    ward.keeper.tick()
    assert ward.alarms[-1] == "bypass-ended"


def test_clock_that_is_set_back_lengthens_nothing_not_even_over_a_reboot(ward: Ward) -> None:
    ward.open(minutes=10)
    for _ in range(8):
        ward.clocks.pass_by(minutes=1)
        ward.keeper.tick()
    ward.clocks.pass_by(days=-1)
    ward.clocks.boot, ward.clocks.boot_seconds = "boot-2", 12.0
    ward.again()
    assert ward.is_lifted()
    ward.clocks.pass_by(minutes=2)
    assert not ward.is_lifted()


def test_it_alarms_while_it_is_open_and_until_it_is_reviewed(ward: Ward) -> None:
    bypass_id = ward.open(minutes=40)
    for _ in range(40):
        ward.clocks.pass_by(minutes=1)
        ward.keeper.tick()
    assert ward.alarms == ["bypass-opened", "bypass-open", "bypass-open", "bypass-ended"]
    for _ in range(48):
        ward.clocks.pass_by(hours=1)
        ward.keeper.tick()
    assert ward.alarms[4:] == ["bypass-not-reviewed"] * 2
    ward.keeper.review(bypass_id, "bert", "fine")
    ward.clocks.pass_by(days=2)
    ward.keeper.tick()
    assert len(ward.alarms) == 6


def test_closed_one_lifts_nothing_and_cannot_be_closed_again(ward: Ward) -> None:
    bypass_id = ward.open()
    changed = ward.keeper.close(bypass_id, "bert")
    assert (changed.bypass.ended_by, changed.problem) == ("bert", "")
    assert not ward.is_lifted()
    assert "closed by bert" in describe(changed.bypass)
    with pytest.raises(BypassError, match="has ended already, at 2026-03-02 12:00 UTC"):
        ward.keeper.close(bypass_id, "bert")


def test_closing_is_never_refused_for_want_of_a_record(ward: Ward) -> None:
    bypass_id = ward.open()
    ward.log_works = False
    changed = ward.keeper.close(bypass_id, "anna")
    assert changed.problem == "the audit log could not be written"
    assert not ward.is_lifted()


def test_another_operator_reviews_it_and_the_record_proves_the_file(ward: Ward) -> None:
    bypass_id = ward.open()
    with pytest.raises(BypassError, match="still open"):
        ward.keeper.review(bypass_id, "bert", "fine")
    ward.keeper.close(bypass_id, "anna")
    with pytest.raises(BypassError, match="somebody else must review it"):
        ward.keeper.review(bypass_id, "anna", "fine")
    changed = ward.keeper.review(bypass_id, "bert", "one prior was read")
    event = ward.events[-1]
    assert isinstance(event, BypassReviewed)
    assert (event.operator, event.detail) == ("bert", "one prior was read")
    assert event.state_sha256 == state_digest(read_bypasses(ward.state).bypasses[bypass_id])
    assert "reviewed by bert" in describe(changed.bypass)


def test_only_operator_may_review_alone(ward: Ward) -> None:
    bypass_id = ward.open()
    ward.keeper.close(bypass_id, "anna")
    assert ward.keeper.review(bypass_id, "anna", "fine", is_only_operator=True).bypass.is_reviewed


def test_review_when_its_time_is_over_but_nobody_has_looked(ward: Ward) -> None:
    bypass_id = ward.open(minutes=1)
    ward.clocks.pass_by(minutes=2)
    assert ward.keeper.review(bypass_id, "bert", "fine").bypass.is_reviewed
    assert ward.alarms == ["bypass-opened", "bypass-ended"]


def test_unknown_one_is_named_with_the_known(ward: Ward) -> None:
    with pytest.raises(BypassError, match="there is no bypass '7'; the known ones: none"):
        ward.keeper.close("7", "anna")


def test_start_alarms_for_what_is_open_and_what_is_wrong_and_ends_what_is_due(ward: Ward) -> None:
    ward.open()
    ward.open(device="mr1", minutes=1)
    (ward.state / "bypass" / "20260302-9.json").write_text("{")
    ward.clocks.pass_by(minutes=2)
    ward.events.clear()
    keeper = module.BypassKeeper(ward.state, ward.audit, ward.record, ward.use, clocks=ward.clocks)
    is_through = threading.Event()
    real = keeper.tick

    def tick() -> None:
        real()
        is_through.set()

    keeper.tick = tick  # type: ignore[method-assign]
    keeper.start()
    assert is_through.wait(10)
    keeper.stop()
    assert ward.alarms[0] == "bypass-record-wrong"
    # The log of this test is in memory, so both files have no record.
    assert ward.alarms[1:3] == ["bypass-record-wrong"] * 2
    assert sorted(ward.alarms[3:]) == ["bypass-ended", "bypass-open"]


def test_log_that_cannot_be_read_is_an_alarm(ward: Ward) -> None:
    ward.audit.rmdir()
    ward.keeper._check_evidence()
    assert ward.alarms == ["bypass-record-wrong"]


def test_start_without_a_place_for_the_lock_still_starts(ward: Ward) -> None:
    (ward.state / "bypass").write_text("in the way")
    ward.keeper.start()
    ward.keeper.stop()
    assert ward.table is NO_BYPASS
