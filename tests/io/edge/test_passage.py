"""The association of a device's other services, from the agent's side: what comes back, and how it ends."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.pdu import AAssociateRq, PresentationContextRq, UserInformation
from dicomward.io.edge.passage import Passage, PassageClosed
from dicomward.vocab.dimse import Operation
from dicomward.vocab.services import VERIFICATION
from dicomward.vocab.uid import IMPLICIT_VR_LITTLE_ENDIAN
from tests.io.edge.place import spliced
from tests.real.recording_archive import RecordingArchive
from tests.real.site import ARCHIVE


def request(*classes: str) -> AAssociateRq:
    return AAssociateRq(
        called_ae_title=ARCHIVE,
        calling_ae_title="CT1",
        presentation_contexts=tuple(
            PresentationContextRq(
                context_id=2 * number + 1, abstract_syntax=each, transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,)
            )
            for number, each in enumerate(classes)
        ),
        user_information=UserInformation(maximum_length=16384, implementation_class_uid="1.2.3"),
    )


ECHO = CommandSet(command_field=Operation.C_ECHO, message_id=1, affected_sop_class_uid=VERIFICATION)


class _Device:
    def __init__(self) -> None:
        self.writing = threading.RLock()
        self.changed = threading.Condition()
        self.sent: list[bytes] = []
        self.losses = 0

    def send(self, data: bytes) -> None:
        with self.changed:
            self.sent.append(data)
            self.changed.notify_all()

    def passage_lost(self) -> None:
        with self.changed:
            self.losses += 1
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 20)


@pytest.fixture(scope="module")
def archive() -> Iterator[RecordingArchive]:
    with RecordingArchive(ARCHIVE) as running:
        yield running


def opened(archive: RecordingArchive, device: _Device) -> Passage:
    passage = Passage(spliced(archive.port), request(VERIFICATION, "1.2.3"), device, seconds=10.0)
    accept = passage.open()
    assert [each.result for each in accept.presentation_contexts] == [0, 3]
    return passage


def test_answer_comes_back_and_the_end_is_passed_on(archive: RecordingArchive) -> None:
    device = _Device()
    passage = opened(archive, device)
    passage.command(1, ECHO)
    device.wait_for(lambda: len(device.sent) == 1)
    assert device.sent[0][:1] == b"\x04"
    released = len(archive.associations.released)
    passage.release()
    assert archive.wait_until(lambda: len(archive.associations.released) == released + 1)
    assert device.losses == 0
    # Whoever ends it twice does no harm.
    passage.release()
    passage.abort()


def test_abort_of_the_device_reaches_the_archive(archive: RecordingArchive) -> None:
    aborted = len(archive.associations.aborted)
    passage = opened(archive, _Device())
    passage.abort()
    assert archive.wait_until(lambda: len(archive.associations.aborted) == aborted + 1)


def test_only_who_waits_for_an_answer_is_told_of_the_end(archive: RecordingArchive) -> None:
    idle, asking = _Device(), _Device()
    first, second = opened(archive, idle), opened(archive, asking)
    assert second._inner is not None
    # An operation that nobody will answer.
    second._inner._pending.add(9)
    with archive.away():
        asking.wait_for(lambda: asking.losses == 1)
        assert first._inner is not None
        first._inner._thread.join(20)
    assert idle.losses == 0
    # A request opens it anew; an answer to what was asked on the old one has no place on it.
    first.command(1, ECHO)
    idle.wait_for(lambda: len(idle.sent) == 1)
    first.abort()
    first._inner._thread.join(20)
    answer = CommandSet(command_field=0x8030, message_id_being_responded_to=1, status=0)
    with pytest.raises(PassageClosed):
        first.command(1, answer)


def test_archive_that_is_not_there_or_says_no(archive: RecordingArchive) -> None:
    device = _Device()
    with pytest.raises(PassageClosed):
        Passage(socket.socket.close, request(VERIFICATION), device, seconds=5.0).open()
    unopened = Passage(socket.socket.close, request(VERIFICATION), device, seconds=5.0)
    answer = CommandSet(command_field=0x8030, message_id_being_responded_to=1, status=0)
    with pytest.raises(PassageClosed, match="never open"):
        unopened.command(1, answer)
    unopened.release()
    unopened.abort()
    silent: list[socket.socket] = []
    with pytest.raises(PassageClosed, match="timed out"):
        Passage(silent.append, request(VERIFICATION), device, seconds=0.1).open()
    silent[0].close()


def test_archive_that_accepts_less_the_second_time_is_not_asked(archive: RecordingArchive) -> None:
    passage = opened(archive, _Device())
    passage.abort()
    assert passage._inner is not None
    passage._inner._thread.join(20)
    passage._accepted[3] = IMPLICIT_VR_LITTLE_ENDIAN
    with pytest.raises(PassageClosed, match="no longer accepts"):
        passage.command(1, ECHO)
    passage.abort()
