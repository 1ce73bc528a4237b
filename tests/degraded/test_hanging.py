"""An archive that hangs in the middle of an operation: that association ends in its time, all others go on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAbort, AAssociateAc
from tests.degraded.place import Place, application, with_settings
from tests.io.world import Peer, RawArchive, device, raw_archive
from tests.relay.wire import (
    CT_IMAGE,
    STUDY_FIND,
    STUDY_MOVE,
    VERIFICATION,
    a_associate_rq,
    c_echo_rq,
    c_find_rq,
    c_move_rq,
    c_store_rq,
    fragments,
    identifier,
    image,
    message,
    response_to,
)

CONTEXTS = {1: VERIFICATION, 3: CT_IMAGE, 5: STUDY_FIND, 7: STUDY_MOVE}
PENDING = 0xFF00


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive(serves=False) as played:
        yield played


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    with raw_archive() as listener:
        made = Place(tmp_path / "gateway", archive)
        made.register(device("ct1", made.scanner, address=listener.endpoint, plain=True))
        with_settings(made, idle_seconds=0.5, stalled_seconds=2.0)
        yield made
        made.close()


def association(place: Place, archive: RawArchive) -> tuple[Peer, Peer]:
    """Return both ends of a new association of the scanner."""
    peer = place.peer()
    peer.send(encode_pdu(a_associate_rq(CONTEXTS)))
    theirs, _ = archive.take_association()
    assert isinstance(peer.next(), AAssociateAc)
    return peer, theirs


def store(peer: Peer, theirs: Peer) -> None:
    """The archive takes half of an image, and no more."""
    data = image(pixels=b"p" * 60_000)
    peer.send(message(3, c_store_rq(2)), fragments(3, data[:30_000], command=False, size=4096, ends=False))
    theirs.socket.recv(1000)


def find(peer: Peer, theirs: Peer) -> None:
    """The archive sends a match, and then nothing."""
    peer.send(message(5, c_find_rq(2), identifier()))
    request = theirs.next_message()
    theirs.send(message(5, response_to(request.command, PENDING, has_data_set=True), identifier(study="1.2")))
    assert peer.next_message().command.status == PENDING


def move(peer: Peer, theirs: Peer) -> None:
    """The archive says that it goes on, and then nothing."""
    peer.send(message(7, c_move_rq(2, "CT1"), identifier(study="1.2")))
    request = theirs.next_message()
    theirs.send(message(7, response_to(request.command, PENDING)))
    assert peer.next_message().command.status == PENDING


@pytest.mark.parametrize(("operate", "operation"), [(store, "c-store"), (find, "c-find"), (move, "c-move")])
def test_an_archive_that_hangs_costs_its_own_association_only(
    place: Place, archive: RawArchive, operate: Callable[[Peer, Peer], None], operation: str
) -> None:
    with application(place):
        peer, theirs = association(place, archive)
        operate(peer, theirs)
        # Another association of the same device, with the same archive, works while the first one hangs.
        other, behind = association(place, archive)
        other.send(message(1, c_echo_rq(1)))
        request = behind.next_message()
        behind.send(message(1, response_to(request.command)))
        assert other.next_message().command.status == 0
        # Never a success: an abort, when nothing at all has moved for `stalled_seconds`.
        assert isinstance(peer.next(), AAbort)
    ends = [r for r in place.records() if r["code"] == "DW-OP-END" and r["operation"] == operation]
    assert [(each["reason"], each.get("status")) for each in ends] == [("idle", None)]
    assert "idle" in {r.get("reason") for r in place.records() if r["code"] == "DW-ASSOC-END"}
