"""The storage SCP where a device breaks the rules of the association: byte for byte, so that nobody's library helps."""

import fcntl
import socket
import termios
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import cast

import pytest

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.framing import encode_p_data
from dicomward.dicom.pdu import AAbort, AAssociateRq, PresentationContextRq, UserInformation
from dicomward.identity.zone import LegacyZone
from dicomward.io.edge.learned import Learned
from dicomward.io.edge.passage import connected_pair
from dicomward.io.edge.scp import StoreScp
from dicomward.vocab.dimse import Operation
from dicomward.vocab.services import VERIFICATION
from tests.io.edge.place import CT, files, make_spool
from tests.io.edge.test_front import PAIR, REGISTRY, _Learned
from tests.real.site import ARCHIVE

REQUEST = AAssociateRq(
    called_ae_title=ARCHIVE,
    calling_ae_title="CT1",
    presentation_contexts=(
        PresentationContextRq(context_id=1, abstract_syntax=PAIR[0], transfer_syntaxes=(PAIR[1],)),
        PresentationContextRq(context_id=3, abstract_syntax=VERIFICATION, transfer_syntaxes=(PAIR[1],)),
    ),
    user_information=UserInformation(maximum_length=16384, implementation_class_uid="1.2.3"),
)
STORE = CommandSet(
    command_field=Operation.C_STORE,
    has_data_set=True,
    message_id=1,
    affected_sop_class_uid=PAIR[0],
    affected_sop_instance_uid=CT.sop_instance_uid,
    priority=0,
)
FIND = CommandSet(
    command_field=Operation.C_FIND, has_data_set=True, message_id=1, affected_sop_class_uid=PAIR[0], priority=0
)
ECHO = CommandSet(command_field=Operation.C_ECHO, has_data_set=False, message_id=1, affected_sop_class_uid=VERIFICATION)
ABORT = b"\x07"
# What the kernel waits at least, if it waits before it acknowledges.
_DELAYED_SECONDS = 0.04


class Conversation:
    """One association with the SCP, in its own thread."""

    def __init__(self, directory: Path) -> None:
        self._device, served = connected_pair()
        self._device.settimeout(20)
        scp = StoreScp(
            name="ct1",
            registry=REGISTRY,
            zone=LegacyZone(name="ct1", networks=("127.0.0.1/32",), end_date=date.max),
            spool=make_spool(directory),
            learned=cast("Learned", _Learned()),
            accepted=lambda _waiting: None,
            delivered=lambda _seconds: True,
            admit=lambda _connection, _address: None,
            idle_seconds=20.0,
        )
        self._thread = threading.Thread(target=scp.serve, args=(served, "127.0.0.1"))
        self._thread.start()

    def say(self, *parts: bytes) -> None:
        self._device.sendall(b"".join(parts))

    def open(self) -> None:
        self.say(encode_pdu(REQUEST))
        assert self.hear()[0] == 2

    def seconds_until_acknowledged(self) -> float:
        """Wait until nothing that was said is without TCP's acknowledgement."""
        began = time.monotonic()
        while any(fcntl.ioctl(self._device, termios.TIOCOUTQ, bytes(4))):
            assert time.monotonic() < began + 20
        return time.monotonic() - began

    def hear(self) -> bytes:
        return self._device.recv(65536)

    def end(self) -> None:
        try:
            self._device.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._device.close()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Conversation]:
    conversation = Conversation(tmp_path)
    yield conversation
    conversation.end()


def command(context_id: int, what: CommandSet) -> bytes:
    return encode_p_data(context_id, encode_command_set(what), 16384, command=True)


def data(context_id: int, content: bytes) -> bytes:
    return encode_p_data(context_id, content, 16384, command=False)


@pytest.mark.parametrize(
    "said",
    [
        command(5, STORE),
        command(1, FIND),
        data(1, b"x" * 8),
        encode_pdu(REQUEST),
        b"\x09\0\0\0\0\4abcd",
    ],
    ids=["unknown context", "query", "data alone", "second request", "unknown PDU"],
)
def test_what_nobody_may_send_here_aborts(talk: Conversation, said: bytes) -> None:
    talk.open()
    talk.say(said)
    assert talk.hear()[:1] == ABORT
    assert talk.hear() == b""


def test_half_an_object_is_not_kept(talk: Conversation, tmp_path: Path) -> None:
    talk.open()
    half = data(1, CT.data_set)[:16390]
    talk.say(command(1, STORE), half, encode_pdu(AAbort(source=0, reason=0)))
    assert talk.hear() == b""
    assert files(tmp_path, "ready") == []
    assert list((tmp_path / "spool" / "incoming").iterdir()) == []


def test_class_of_another_context_is_refused(talk: Conversation, tmp_path: Path) -> None:
    talk.open()
    talk.say(command(3, STORE), data(3, CT.data_set))
    answer = talk.hear()
    assert answer[0] == 4
    assert b"\0\0\0\x09\2\0\0\0\x18\1" in answer
    assert files(tmp_path, "ready") == []


def test_device_with_nagles_algorithm_never_waits_for_an_acknowledgement(talk: Conversation) -> None:
    talk.open()
    request = command(3, ECHO)
    waits = []
    # In the first exchanges of a connection the kernel acknowledges at once by itself.
    for _ in range(40):
        # As DCMTK does: the header, and then the rest, for which Nagle's algorithm waits.
        talk.say(request[:12])
        waits.append(talk.seconds_until_acknowledged())
        talk.say(request[12:])
        assert talk.hear()[0] == 4
    assert min(waits[20:]) < _DELAYED_SECONDS / 2
