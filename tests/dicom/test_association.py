"""One end of an association: the state table obeyed, for the requestor and the acceptor, in every state."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.dicom.association import Association
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.errors import LocalProtocolError
from dicomward.dicom.events import (
    AssociationAccepted,
    AssociationRejected,
    AssociationRequested,
    CommandReceived,
    Event,
    PeerAborted,
    ProtocolBroken,
    ReleaseConfirmed,
    ReleaseRequested,
)
from dicomward.dicom.framing import HEADROOM, DataRun, encode_p_data
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import (
    AAbort,
    AAssociateAc,
    AAssociateRj,
    AAssociateRq,
    AReleaseRp,
    AReleaseRq,
    ControlPdu,
    PresentationContextAc,
    PresentationContextRq,
    UserInformation,
)
from dicomward.dicom.state_table import Action, Evt, Sta, transition
from dicomward.vocab.association import AbortReason, AbortSource
from dicomward.vocab.dimse import Operation
from dicomward.vocab.uid import IMPLICIT_VR_LITTLE_ENDIAN

LIMITS = Limits()
USER = UserInformation(maximum_length=16384, implementation_class_uid="1.2.3")
RQ = AAssociateRq(
    called_ae_title="PACS",
    calling_ae_title="CT1",
    presentation_contexts=(
        PresentationContextRq(
            context_id=1, abstract_syntax="1.2.840.10008.1.1", transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,)
        ),
    ),
    user_information=USER,
)
AC = AAssociateAc(
    called_ae_title="PACS",
    calling_ae_title="CT1",
    presentation_contexts=(PresentationContextAc(context_id=1, result=0, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN),),
    user_information=USER,
)
RJ = AAssociateRj(result=1, source=1, reason=1)
RELEASE_RQ, RELEASE_RP, ABORT = AReleaseRq(), AReleaseRp(), AAbort(source=0, reason=0)

ECHO = CommandSet(command_field=Operation.C_ECHO, message_id=1, affected_sop_class_uid="1.2.840.10008.1.1")
STORE = CommandSet(
    command_field=Operation.C_STORE,
    has_data_set=True,
    message_id=2,
    affected_sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    affected_sop_instance_uid="1.2.3",
    priority=0,
)
ECHO_WIRE = encode_p_data(1, encode_command_set(ECHO), 16384, command=True)
STORE_WIRE = encode_p_data(1, encode_command_set(STORE), 16384, command=True)
DATA_WIRE = encode_p_data(1, b"data", 16384, command=False)
INVALID = b"\x09\0\0\0\0\0"


def receive(association: Association, data: bytes, cuts: Sequence[int] = ()) -> list[Event]:
    events: list[Event] = []
    edges = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(edges):
        buffer = bytearray(HEADROOM) + data[start:end]
        events += association.receive(memoryview(buffer), HEADROOM, len(buffer))
    return events


# A way into each state that has a connection, as (is requestor, inputs): PDUs are sent if they stand in a tuple.
WAYS: dict[tuple[Sta, bool], tuple[object, ...]] = {
    (Sta.STA2, False): (),
    (Sta.STA3, False): (RQ,),
    (Sta.STA4, True): (),
    (Sta.STA5, True): ((RQ,),),
    (Sta.STA6, True): ((RQ,), AC),
    (Sta.STA6, False): (RQ, (AC,)),
    (Sta.STA7, True): ((RQ,), AC, (RELEASE_RQ,)),
    (Sta.STA7, False): (RQ, (AC,), (RELEASE_RQ,)),
    (Sta.STA8, True): ((RQ,), AC, RELEASE_RQ),
    (Sta.STA8, False): (RQ, (AC,), RELEASE_RQ),
    (Sta.STA9, True): ((RQ,), AC, (RELEASE_RQ,), RELEASE_RQ),
    (Sta.STA10, False): (RQ, (AC,), (RELEASE_RQ,), RELEASE_RQ),
    (Sta.STA11, True): ((RQ,), AC, (RELEASE_RQ,), RELEASE_RQ, (RELEASE_RP,)),
    (Sta.STA12, False): (RQ, (AC,), (RELEASE_RQ,), RELEASE_RQ, RELEASE_RP),
    (Sta.STA13, True): ((RQ,), (ABORT,)),
    (Sta.STA13, False): (RQ, (RJ,)),
    (Sta.STA1, True): ((RQ,), RJ),
    (Sta.STA1, False): (ABORT,),
}


def in_state(state: Sta, is_requestor: bool) -> Association:
    association = Association(is_requestor=is_requestor, limits=LIMITS)
    for step in WAYS[state, is_requestor]:
        if isinstance(step, tuple):
            association.send(step[0])
        else:
            receive(association, encode_pdu(step))  # type: ignore[arg-type]
    assert association.state is state
    return association


def test_every_state_with_a_connection_is_reached() -> None:
    assert {state for state, _ in WAYS} == set(Sta)


RECEIVED: dict[Evt, tuple[ControlPdu, type[Event]]] = {
    Evt.EVT3: (AC, AssociationAccepted),
    Evt.EVT4: (RJ, AssociationRejected),
    Evt.EVT6: (RQ, AssociationRequested),
    Evt.EVT12: (RELEASE_RQ, ReleaseRequested),
    Evt.EVT13: (RELEASE_RP, ReleaseConfirmed),
    Evt.EVT16: (ABORT, PeerAborted),
}
SENT: dict[Evt, ControlPdu] = {
    Evt.EVT2: RQ,
    Evt.EVT7: AC,
    Evt.EVT8: RJ,
    Evt.EVT11: RELEASE_RQ,
    Evt.EVT14: RELEASE_RP,
    Evt.EVT15: ABORT,
}
EVERY_STATE = pytest.mark.parametrize(
    ("state", "is_requestor"), list(WAYS), ids=[f"{state.name}-{'rq' if rq else 'ac'}" for state, rq in WAYS]
)


@EVERY_STATE
@pytest.mark.parametrize("event", list(RECEIVED), ids=lambda event: event.name)
def test_every_pdu_in_every_state(state: Sta, is_requestor: bool, event: Evt) -> None:
    association = in_state(state, is_requestor)
    pdu, kind = RECEIVED[event]
    events = receive(association, encode_pdu(pdu))
    if state in (Sta.STA1, Sta.STA13):
        # Table 9-10 ignores PDUs in Sta13, or aborts once more, which nobody needs.
        assert events == []
        return
    step = transition(event, state, is_requestor=is_requestor)
    (happened,) = events
    if step is None or step[0] in (Action.AA_1, Action.AA_8):
        assert isinstance(happened, ProtocolBroken)
        assert happened.abort == encode_pdu(AAbort(source=2, reason=AbortReason.UNEXPECTED_PDU))
        assert association.state is Sta.STA13
    else:
        assert isinstance(happened, kind)
        assert association.state is step[1]
    assert association.is_over is (association.state in (Sta.STA1, Sta.STA13))


@EVERY_STATE
@pytest.mark.parametrize("event", list(SENT), ids=lambda event: event.name)
def test_only_what_the_table_allows_is_sent(state: Sta, is_requestor: bool, event: Evt) -> None:
    association = in_state(state, is_requestor)
    step = transition(event, state, is_requestor=is_requestor)
    if step is None:
        with pytest.raises(LocalProtocolError):
            association.send(SENT[event])
        assert association.state is state
    else:
        assert association.send(SENT[event]) == encode_pdu(SENT[event])
        assert association.state is step[1]


@EVERY_STATE
@pytest.mark.parametrize("wire", [ECHO_WIRE, STORE_WIRE + DATA_WIRE], ids=["command", "with data set"])
def test_data_in_every_state(state: Sta, is_requestor: bool, wire: bytes) -> None:
    association = in_state(state, is_requestor)
    events = receive(association, wire)
    if state in (Sta.STA1, Sta.STA13):
        assert events == []
    elif state in (Sta.STA6, Sta.STA7):
        expected = [CommandReceived, DataRun] if wire != ECHO_WIRE else [CommandReceived]
        assert [type(event) for event in events] == expected
        assert association.state is state
    else:
        (happened,) = events
        assert isinstance(happened, ProtocolBroken)
        assert happened.error.abort_reason is AbortReason.UNEXPECTED_PDU


@EVERY_STATE
def test_an_invalid_pdu_in_every_state(state: Sta, is_requestor: bool) -> None:
    """Evt19."""
    association = in_state(state, is_requestor)
    events = receive(association, INVALID)
    if state in (Sta.STA1, Sta.STA13):
        assert events == []
        return
    (happened,) = events
    assert isinstance(happened, ProtocolBroken)
    assert happened.abort == encode_pdu(AAbort(source=2, reason=AbortReason.UNRECOGNISED_PDU))
    assert association.state is Sta.STA13
    assert receive(association, ECHO_WIRE) == []


@EVERY_STATE
def test_an_abort_of_ours_in_every_state(state: Sta, is_requestor: bool) -> None:
    association = in_state(state, is_requestor)
    abort = association.abort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED)
    if state in (Sta.STA1, Sta.STA13):
        assert abort == b""
        assert association.state is state
    else:
        assert abort == encode_pdu(AAbort(source=2, reason=0))
        assert association.state is Sta.STA13


@EVERY_STATE
def test_a_closed_connection_in_every_state(state: Sta, is_requestor: bool) -> None:
    association = in_state(state, is_requestor)
    association.connection_closed()
    assert association.state is Sta.STA1
    assert association.is_over


def test_what_the_events_hold() -> None:
    acceptor = Association(is_requestor=False, limits=LIMITS)
    assert receive(acceptor, encode_pdu(RQ)) == [AssociationRequested(RQ)]
    established = [acceptor.is_established]
    acceptor.send(AC)
    established.append(acceptor.is_established)
    assert established == [False, True]
    command, run = receive(acceptor, STORE_WIRE + DATA_WIRE)
    assert command == CommandReceived(1, STORE)
    assert isinstance(run, DataRun)
    assert (run.payload_bytes, run.last) == (4, True)
    requestor = in_state(Sta.STA5, True)
    assert receive(requestor, encode_pdu(AC)) == [AssociationAccepted(AC)]
    requestor = in_state(Sta.STA5, True)
    assert receive(requestor, encode_pdu(RJ)) == [AssociationRejected(RJ)]
    assert receive(acceptor, encode_pdu(AAbort(source=2, reason=5))) == [PeerAborted(2, 5)]


def test_an_abort_in_the_middle_of_a_message_is_one() -> None:
    association = in_state(Sta.STA6, False)
    events = receive(association, STORE_WIRE + encode_pdu(ABORT))
    assert events[1:] == [PeerAborted(0, 0)]


@pytest.mark.parametrize(
    "wire",
    [
        encode_p_data(1, b"no command set", 16384, command=True),
        encode_p_data(1, encode_command_set(STORE), 16384, command=True)[:-4] + b"\xff" * 4,
    ],
    ids=["nonsense", "bad UID"],
)
def test_a_command_set_that_is_none_breaks_the_protocol(wire: bytes) -> None:
    association = in_state(Sta.STA6, False)
    (happened,) = receive(association, wire)
    assert isinstance(happened, ProtocolBroken)
    assert association.is_over


def test_a_command_that_becomes_whole_outside_of_data_transfer_is_unexpected() -> None:
    """The handler of an event may change the state while more data is in the buffer."""
    association = in_state(Sta.STA6, False)
    buffer = bytearray(HEADROOM) + ECHO_WIRE[:10]
    assert list(association.receive(memoryview(buffer), HEADROOM, len(buffer))) == []
    half = bytearray(HEADROOM) + ECHO_WIRE + STORE_WIRE + DATA_WIRE[:14]
    fresh = in_state(Sta.STA6, False)
    events = fresh.receive(memoryview(half), HEADROOM, len(half))
    assert isinstance(next(events), CommandReceived)
    assert isinstance(next(events), CommandReceived)
    fresh.state = Sta.STA8
    (broken,) = events
    assert isinstance(broken, ProtocolBroken)
    assert broken.error.abort_reason is AbortReason.UNEXPECTED_PDU


def test_nothing_is_read_after_the_association_has_ended_in_the_same_buffer() -> None:
    association = in_state(Sta.STA6, False)
    assert receive(association, encode_pdu(ABORT) + ECHO_WIRE) == [PeerAborted(0, 0)]


def test_the_announced_maximum_length_is_passed_on() -> None:
    association = in_state(Sta.STA6, False)
    association.announce_maximum_length(len(ECHO_WIRE) - 6)
    assert len(receive(association, ECHO_WIRE)) == 1
    assert len(STORE_WIRE) > len(ECHO_WIRE) + 12
    (happened,) = receive(association, STORE_WIRE)
    assert isinstance(happened, ProtocolBroken)


def test_pdus_within_the_tolerance_are_counted() -> None:
    association = in_state(Sta.STA6, False)
    association.announce_maximum_length(len(ECHO_WIRE) - 6 - 12)
    assert len(receive(association, ECHO_WIRE)) == 1
    assert association.oversize_pdus == 1


# -- any cut, any order ------------------------------------------------------------------------------------------------

PIECES = [encode_pdu(p) for p in (RQ, AC, RJ, RELEASE_RQ, RELEASE_RP, ABORT)] + [
    ECHO_WIRE,
    STORE_WIRE + DATA_WIRE,
    STORE_WIRE,
    DATA_WIRE,
    INVALID,
    b"\4\0\0\0\0\x0a",
]


def summary(events: list[Event]) -> list[object]:
    out: list[object] = []
    for event in events:
        if isinstance(event, DataRun):
            payload = (event.context_id, event.payload_bytes, event.last)
            if out and isinstance(out[-1], tuple) and not out[-1][2]:
                previous = out.pop()
                assert isinstance(previous, tuple)
                payload = (event.context_id, previous[1] + event.payload_bytes, event.last)
            out.append(payload)
        elif isinstance(event, ProtocolBroken):
            out.append((str(event.error), event.abort, True))
        else:
            out.append(event)
    return out


@given(st.sampled_from(list(WAYS)), st.lists(st.sampled_from(PIECES), max_size=6), st.data())
def test_any_cut_gives_the_same_events(way: tuple[Sta, bool], pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    whole, single, cut = (in_state(*way) for _ in range(3))
    expected = summary(receive(whole, stream))
    assert summary(receive(single, stream, range(1, len(stream)))) == expected
    assert summary(receive(cut, stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))) == expected
    assert single.state is cut.state is whole.state


@given(st.sampled_from(list(WAYS)), st.binary(max_size=300))
def test_any_bytes_give_events_and_never_raise(way: tuple[Sta, bool], data: bytes) -> None:
    association = in_state(*way)
    broken = [event for event in receive(association, data) if isinstance(event, ProtocolBroken)]
    assert len(broken) <= 1
    assert not broken or association.is_over
