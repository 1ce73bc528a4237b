"""Whatever the cuts of the two byte streams, both peers read the same and the same is on record."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.audit.event import AuditEvent
from dicomward.dicom.codec import encode_pdu
from dicomward.relay.inputs import Leg
from tests.relay.test_operations import WINDOW
from tests.relay.wire import (
    ABORT,
    BOTH,
    RELEASE_RP,
    RELEASE_RQ,
    a_associate_ac,
    a_associate_rq,
    c_cancel_rq,
    c_echo_rq,
    c_find_rq,
    c_get_rq,
    c_move_rq,
    c_store_rq,
    data_set,
    identifier,
    image,
    message,
    response_to,
)
from tests.relay.world import ACCEPTOR, EVERYTHING, REQUESTOR, Line, device_caller

RQ = a_associate_rq(EVERYTHING, calling="WS1", user=WINDOW, transfer_syntaxes=BOTH[1:])
AC = a_associate_ac(RQ)
BIG = image("1.2.9", pixels=b"tag" * 500)

FROM_REQUESTOR = [
    message(1, c_echo_rq(1)),
    message(3, c_store_rq(2, "1.2.9"), BIG, size=200),
    message(3, c_store_rq(3, "1.2.9"), image("1.2.8"), size=50),
    message(5, c_find_rq(4), identifier(), size=30),
    message(5, c_find_rq(4), identifier(), size=9),
    message(5, c_find_rq(5), identifier()[:-3]),
    message(5, c_cancel_rq(4)),
    message(7, c_move_rq(6), identifier()),
    message(9, c_get_rq(7), identifier(), size=11),
    message(3, response_to(c_store_rq(1))),
    message(3, c_store_rq(8, "1.2.9"), data_set({0x00100020: "4711"})),
]
FROM_ACCEPTOR = [
    message(1, response_to(c_echo_rq(1))),
    message(3, response_to(c_store_rq(2))),
    message(5, response_to(c_find_rq(4), 0xFF00, has_data_set=True), identifier(), size=13),
    message(5, response_to(c_find_rq(4))),
    message(9, response_to(c_get_rq(7), 0xFF00)),
    message(9, response_to(c_get_rq(7))),
    message(7, response_to(c_move_rq(6))),
    message(3, c_store_rq(1, "1.2.9"), BIG, size=333),
    message(3, c_store_rq(1, "1.2.9"), image("1.2.8")),
]
ENDS = [RELEASE_RQ, RELEASE_RP, ABORT, b"\x09\0\0\0\0\0", message(99, c_echo_rq(1)), b"\4\0\0\1"]

Script = Sequence[tuple[Leg, bytes]]
SCRIPTS = st.builds(
    lambda steps, ends: [*steps, *ends],
    st.lists(
        st.tuples(st.just(REQUESTOR), st.sampled_from(FROM_REQUESTOR))
        | st.tuples(st.just(ACCEPTOR), st.sampled_from(FROM_ACCEPTOR)),
        max_size=8,
    ),
    st.lists(st.tuples(st.sampled_from(Leg), st.sampled_from(ENDS)), max_size=2),
)


def played(script: Script, cuts: Sequence[Sequence[int]]) -> tuple[list[str], list[str], list[AuditEvent], set[Leg]]:
    line = Line(caller=device_caller("ws1"))
    for (leg, data), sizes in zip(
        [(REQUESTOR, encode_pdu(RQ)), (ACCEPTOR, encode_pdu(AC)), *script], cuts, strict=True
    ):
        line.send(leg, data, chunks=sizes)
    return line.said(REQUESTOR), line.said(ACCEPTOR), line.records, line.closed


@settings(max_examples=150, deadline=None)
@given(SCRIPTS, st.data())
def test_any_cut_gives_the_same(script: Script, data: st.DataObject) -> None:
    count = len(script) + 2
    whole = played(script, [()] * count)
    assert played(script, [[1] * 5000] * count) == whole
    cuts = data.draw(st.lists(st.lists(st.integers(1, 400), max_size=9), min_size=count, max_size=count))
    assert played(script, cuts) == whole
