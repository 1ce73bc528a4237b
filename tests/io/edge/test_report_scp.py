"""Associations that bring reports, and what becomes of those that nobody takes."""

import socket
import threading
from collections.abc import Callable

import pytest

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.dimse import CommandSet
from dicomward.edge.commitment import MOST_REPORT_BYTES
from dicomward.io.edge.report_scp import ReportScp
from dicomward.settings import ListenAddress
from dicomward.vocab.dimse import Operation
from tests.io.edge.test_report_front import OURS, THEIRS, archive, front, report
from tests.io.world import Peer
from tests.real.processes import LOOPBACK, free_port
from tests.real.recording_archive import COMMITMENT, RecordingArchive
from tests.relay.wire import COMMITMENT_INSTANCE, VERIFICATION, a_associate_rq, c_store_rq, message

SUCCESS, FAILURE = 0x0000, 0x0110
EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("why", ["no device", "not for it", "away", "rejects"])
def test_report_that_nobody_takes_is_refused(why: str) -> None:
    with RecordingArchive("CT1") as device:
        port = {"no device": None, "not for it": device.port, "away": free_port(), "rejects": device.port}[why]
        if why == "rejects":
            device._ae.remove_supported_context(COMMITMENT)
            device._server.shutdown()
            device.__enter__()
        with front(port, is_device_told=why != "not for it") as (made, taken), archive(made) as association:
            assert report(association, THEIRS) == FAILURE
            assert report(association, OURS) == SUCCESS
            assert len(taken) == 1
            assert device.messages == []


def test_syntax_that_can_not_be_read_is_not_accepted() -> None:
    with front(None) as (made, _taken), archive(made, COMMITMENT, syntax=EXPLICIT) as association:
        assert not association.is_established  # type: ignore[attr-defined]


def event_report(*, has_data_set: bool = True) -> CommandSet:
    return CommandSet(
        command_field=Operation.N_EVENT_REPORT,
        has_data_set=has_data_set,
        message_id=1,
        affected_sop_class_uid=COMMITMENT,
        affected_sop_instance_uid=COMMITMENT_INSTANCE,
        event_type_id=1,
    )


def served(device: ListenAddress | None, talk: Callable[[Peer], None]) -> list[str]:
    """Talk to a ReportScp; return why it ended."""
    near, far = socket.socketpair()
    why: list[str] = []

    def run() -> None:
        with far:
            try:
                ReportScp("ct1", far, device, lambda _report: False).serve(b"")
            except OSError as error:
                why.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    with Peer(near) as peer:
        peer.established(a_associate_rq({1: VERIFICATION, 3: COMMITMENT}))
        talk(peer)
    thread.join(20)
    assert not thread.is_alive()
    return why


def test_report_that_can_not_be_read_is_refused() -> None:
    def talk(peer: Peer) -> None:
        for command, data in ((event_report(), b"nothing"), (event_report(has_data_set=False), None)):
            peer.send(message(3, command, data))
            assert peer.next_message().command.status == FAILURE
        peer.release()

    assert served(None, talk) == []


def test_anything_else_ends_the_association() -> None:
    def other(peer: Peer) -> None:
        peer.send(message(1, c_store_rq(1), b"image"))

    def too_long(peer: Peer) -> None:
        peer.send(message(3, event_report(), bytes(MOST_REPORT_BYTES + 2)))
        assert peer.is_gone()

    def within(peer: Peer) -> None:
        peer.send(message(3, event_report()) + encode_pdu(a_associate_rq({1: VERIFICATION})))

    assert served(None, other) == ["command 0001H"]
    assert served(None, too_long) == ["a report that is too long"]
    assert served(None, within) == ["ProtocolBroken within a data set"]


@pytest.mark.parametrize("answer", ["nothing", "no association", "no answer"])
def test_device_that_does_not_answer_has_not_taken_it(answer: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as device:

        def be_device() -> None:
            connection, _peer = device.accept()
            with connection:
                connection.recv(4096)
                if answer == "no association":
                    connection.sendall(b"\x03\x00\x00\x00\x00\x04\x00\x02\x03\x01")
                elif answer == "no answer":
                    connection.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00")

        thread = threading.Thread(target=be_device)
        thread.start()

        def talk(peer: Peer) -> None:
            peer.send(message(3, event_report(has_data_set=False)))
            assert peer.next_message().command.status == FAILURE
            peer.release()

        assert served(ListenAddress(host=LOOPBACK, port=device.getsockname()[1]), talk) == []
        thread.join(20)
