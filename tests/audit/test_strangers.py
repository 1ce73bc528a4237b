"""Strangers can't fill the disk (trap 14), and no failure of theirs is lost uncounted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.audit.encode_json import format_time
from dicomward.audit.event import AuditEvent, ConnectionFailed, StrangersCoalesced
from dicomward.audit.strangers import Coalescer, CoalescingLimits
from dicomward.vocab.reason import ReasonCode

SECOND = 1_000_000_000


def failure(
    address: str = "192.0.2.1", reason: ReasonCode = ReasonCode.TLS_FAILED, detail: str | None = None
) -> ConnectionFailed:
    return ConnectionFailed(address=address, reason=reason, detail=detail)


def offer(coalescer: Coalescer, event: ConnectionFailed, second: float) -> bool:
    return coalescer.offer(event, now=second, time_ns=int(second * SECOND))


def due(coalescer: Coalescer) -> float | None:
    return coalescer.due


def test_the_first_failure_is_written_and_the_next_are_counted() -> None:
    coalescer = Coalescer(CoalescingLimits())
    assert due(coalescer) is None
    assert offer(coalescer, failure(), 100)
    assert due(coalescer) == 110
    assert not offer(coalescer, failure(), 101)
    assert not offer(coalescer, failure(), 105)
    assert coalescer.flush(109.9) == []
    assert coalescer.flush(110) == [
        StrangersCoalesced(
            address="192.0.2.1",
            reason=ReasonCode.TLS_FAILED,
            count=2,
            first=format_time(101 * SECOND),
            last=format_time(105 * SECOND),
        )
    ]


def test_who_goes_on_gets_one_record_a_window_and_who_stops_is_forgotten() -> None:
    coalescer = Coalescer(CoalescingLimits())
    assert offer(coalescer, failure(), 0)
    assert not offer(coalescer, failure(), 1)
    assert len(coalescer.flush(10)) == 1
    assert not offer(coalescer, failure(), 11)
    assert len(coalescer.flush(20)) == 1
    assert coalescer.flush(30) == []
    assert due(coalescer) is None
    assert offer(coalescer, failure(), 31)


def test_another_address_and_another_reason_are_records_of_their_own() -> None:
    coalescer = Coalescer(CoalescingLimits())
    assert offer(coalescer, failure(), 0)
    assert offer(coalescer, failure("192.0.2.2"), 0)
    assert offer(coalescer, failure(reason=ReasonCode.NOT_TLS), 0)
    assert not offer(coalescer, failure("192.0.2.2"), 1)
    (record,) = coalescer.flush(10)
    assert record.address == "192.0.2.2"


def test_each_way_in_which_tls_fails_is_a_record_of_its_own() -> None:
    coalescer = Coalescer(CoalescingLimits())
    assert offer(coalescer, failure(detail="certificate has expired"), 0)
    assert offer(coalescer, failure(detail="unsuitable certificate purpose"), 1)
    assert not offer(coalescer, failure(detail="unsuitable certificate purpose"), 2)
    (record,) = coalescer.flush(11)
    assert isinstance(record, StrangersCoalesced)
    assert (record.count, record.detail) == (1, "unsuitable certificate purpose")


def test_details_above_their_number_count_as_one_until_others_are_forgotten() -> None:
    coalescer = Coalescer(CoalescingLimits(details=2))
    assert [offer(coalescer, failure(detail=f"byte {n}"), 0) for n in range(6)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert not offer(coalescer, failure(detail="byte 1"), 0)
    assert [(each.detail, each.count) for each in coalescer.flush(10) if isinstance(each, StrangersCoalesced)] == [
        ("byte 1", 1),
        (None, 3),
    ]
    assert coalescer.flush(30) == []
    assert offer(coalescer, failure(detail="byte 7"), 30)


def test_trap_14_strangers_from_many_addresses_stay_within_the_quota() -> None:
    limits = CoalescingLimits(records_per_minute=60, max_keys=1024)
    coalescer = Coalescer(limits)
    firsts = records = counted = 0
    for second in range(200):
        firsts += sum(offer(coalescer, failure(f"2001:db8::{second:x}:{number:x}"), second) for number in range(200))
        for record in coalescer.flush(second):
            assert isinstance(record, StrangersCoalesced)
            counted += record.count
            records += 1
    # 60 at the beginning, one a second after that, and one record of totals in ten seconds.
    assert firsts + records <= 60 + 200 + 20
    counted += sum(each.count for each in coalescer.drain() if isinstance(each, StrangersCoalesced))
    assert firsts + counted == 200 * 200


def test_what_is_above_the_quota_becomes_one_record_of_totals() -> None:
    coalescer = Coalescer(CoalescingLimits(records_per_minute=1))
    assert offer(coalescer, failure(), 0)
    assert not offer(coalescer, failure("192.0.2.2"), 1)
    assert not offer(coalescer, failure("192.0.2.2"), 2)
    assert not offer(coalescer, failure("192.0.2.3", ReasonCode.NOT_TLS), 3)
    assert coalescer.flush(13) == []
    assert due(coalescer) == 23
    (record,) = coalescer.flush(23)
    assert record == StrangersCoalesced(
        count=3,
        first=format_time(1 * SECOND),
        last=format_time(3 * SECOND),
        detail="tls-failed: 2, not-tls: 1",
    )


def test_a_full_table_counts_into_the_totals() -> None:
    coalescer = Coalescer(CoalescingLimits(max_keys=1))
    assert offer(coalescer, failure(), 0)
    assert not offer(coalescer, failure("192.0.2.2"), 1)
    assert due(coalescer) == 10
    assert coalescer.flush(10) == []
    (record,) = coalescer.flush(11)
    assert isinstance(record, StrangersCoalesced)
    assert (record.count, record.address, record.detail) == (1, None, "tls-failed: 1")


def test_the_quota_refills() -> None:
    coalescer = Coalescer(CoalescingLimits(records_per_minute=60))
    assert sum(offer(coalescer, failure(f"192.0.2.{n}"), 0) for n in range(100)) == 60
    assert sum(offer(coalescer, failure(f"198.51.100.{n}"), 2) for n in range(100)) == 2


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    coalescer = Coalescer(CoalescingLimits(records_per_minute=1))
    assert offer(coalescer, failure(), 100)
    assert not offer(coalescer, failure("192.0.2.2"), 0)


def test_draining_writes_what_was_counted_and_forgets_all() -> None:
    coalescer = Coalescer(CoalescingLimits(records_per_minute=2))
    assert offer(coalescer, failure(), 0)
    assert not offer(coalescer, failure(), 1)
    assert offer(coalescer, failure("192.0.2.2"), 2)
    assert not offer(coalescer, failure("192.0.2.3"), 3)
    coalescer.flush(13)
    drained = coalescer.drain()
    assert [(each.address, each.count) for each in drained if isinstance(each, StrangersCoalesced)] == [(None, 2)]
    assert due(coalescer) is None
    assert coalescer.drain() == []


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(min_value=0, max_value=3), st.sampled_from("abcdefgh"), st.booleans()), max_size=120
    ),
    st.integers(min_value=1, max_value=5),
    st.integers(min_value=1, max_value=4),
)
def test_no_failure_is_lost_or_counted_twice(steps: list[tuple[int, str, bool]], quota: int, keys: int) -> None:
    coalescer = Coalescer(CoalescingLimits(records_per_minute=quota, max_keys=keys))
    now, accounted = 0, 0
    records: list[AuditEvent] = []
    for wait, address, flushes in steps:
        now += wait
        accounted += offer(coalescer, failure(address), now)
        if flushes:
            records += coalescer.flush(now)
    records += coalescer.drain()
    for each in records:
        assert isinstance(each, StrangersCoalesced)
        assert each.first <= each.last
        accounted += each.count
    assert accounted == len(steps)


@pytest.mark.parametrize(
    "changed",
    [{"window_seconds": 0}, {"records_per_minute": 0}, {"max_keys": 0}, {"details": 0}, {"window_seconds": -1}],
)
def test_no_limit_can_be_switched_off(changed: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="can't be switched off"):
        CoalescingLimits(**changed)
