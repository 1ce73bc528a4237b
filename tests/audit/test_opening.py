"""Nothing is repaired in silence: what was found at the opening becomes records."""

from dicomward.audit.chain import GENESIS, Checkpoint, Head
from dicomward.audit.event import AuditEvent, AuditRecordsLost, SecurityAlert
from dicomward.audit.opening import Opened, Torn, opening_events
from dicomward.vocab.reason import ReasonCode

HEAD = Head(10, "a" * 64)


def checkpoint(seq: int, hash_: str = "a" * 64) -> Checkpoint:
    return Checkpoint(seq=seq, hash=hash_, time="2026-01-31T23:59:59.123456Z", key="b" * 64)


def found(
    *,
    head: Head = HEAD,
    newest: Checkpoint | None = None,
    torn: Torn | None = None,
    vanished: int = 0,
    is_new: bool = False,
    key_is_exposed: bool = False,
    is_reopened: bool = False,
) -> list[AuditEvent]:
    opened = Opened(
        head=head, checkpoint=newest, torn=torn, vanished=vanished, is_new=is_new, key_is_exposed=key_is_exposed
    )
    return opening_events(opened, is_reopened=is_reopened)


def test_a_new_log_and_one_that_was_closed_in_order_need_no_word() -> None:
    assert found(head=GENESIS, is_new=True) == []
    assert found(newest=checkpoint(10)) == []


def test_a_torn_end_is_a_loss_with_its_number() -> None:
    (event,) = found(newest=checkpoint(10), torn=Torn("audit-1.torn-1", 120, 2))
    assert isinstance(event, AuditRecordsLost)
    assert (event.count, event.reason) == (2, ReasonCode.AUDIT_RECORD_TORN)
    assert event.detail == "120 bytes after record 10 weren't whole records: they are kept in audit-1.torn-1"


def test_a_log_that_was_not_closed_may_lack_records() -> None:
    (event,) = found(newest=checkpoint(8))
    assert isinstance(event, AuditRecordsLost)
    assert (event.count, event.reason) == (None, ReasonCode.AUDIT_NOT_CLOSED)


def test_after_a_failure_of_this_process_the_newest_records_have_no_checkpoint() -> None:
    assert found(newest=checkpoint(8), is_reopened=True) == []


def test_a_cut_tail_is_an_alert() -> None:
    (event,) = found(newest=checkpoint(15))
    assert isinstance(event, SecurityAlert)
    assert (event.count, event.reason) == (5, ReasonCode.AUDIT_TAIL_MISSING)


def test_a_replaced_record_is_an_alert() -> None:
    (event,) = found(newest=checkpoint(10, "f" * 64))
    assert isinstance(event, SecurityAlert)
    assert event.reason is ReasonCode.AUDIT_REWRITTEN


def test_missing_checkpoints_are_an_alert() -> None:
    (event,) = found()
    assert isinstance(event, SecurityAlert)
    assert event.reason is ReasonCode.AUDIT_CHECKPOINT_MISSING


def test_records_that_vanished_under_a_running_gateway_are_an_alert() -> None:
    (event,) = found(vanished=4, is_reopened=True)
    assert isinstance(event, SecurityAlert)
    assert (event.count, event.reason) == (4, ReasonCode.AUDIT_TAIL_MISSING)


def test_an_exposed_key_is_an_alert() -> None:
    (event,) = found(newest=checkpoint(10), key_is_exposed=True)
    assert isinstance(event, SecurityAlert)
    assert event.reason is ReasonCode.AUDIT_KEY_EXPOSED
