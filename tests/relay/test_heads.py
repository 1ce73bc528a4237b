"""Heads of data sets: what may still come is not taken for absent. Mismatches are in test_operations."""

from dicomward.audit.event import OperationDenied
from dicomward.relay.inputs import Leg
from dicomward.vocab.reason import ReasonCode
from tests.relay.wire import c_store_rq, data_set
from tests.relay.world import established


def _out_of_order() -> bytes:
    """The first tags fall, so nothing says that the UIDs don't come after the patient's."""
    return data_set({0x00080012: "20200101"}) + data_set({0x00080008: "ORIGINAL"}) + data_set({0x00100020: "4711"})


def test_data_set_out_of_order_without_uids_in_its_head_is_refused() -> None:
    line = established()
    line.say(Leg.REQUESTOR, 3, c_store_rq(1), _out_of_order())
    assert line.said(Leg.REQUESTOR) == ["C-STORE-RSP 1 on 3 status C000"]
    assert line.said(Leg.ACCEPTOR) == []
    denied = next(event for event in reversed(line.records) if isinstance(event, OperationDenied))
    assert denied.reason is ReasonCode.DATA_SET_UNREADABLE
    assert "out of order" in (denied.detail or "")


def test_data_set_in_order_without_uids_passes() -> None:
    line = established()
    line.say(Leg.REQUESTOR, 3, c_store_rq(1), data_set({0x00080060: "CT", 0x00100020: "4711"}))
    assert len(line.said(Leg.ACCEPTOR)) == 1
