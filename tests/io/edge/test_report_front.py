"""What the gateway opens towards a device: the agent's own reports are taken, everything else reaches the device."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role

from dicomward.edge.commitment import Report
from dicomward.io.edge.report_front import ReportFront
from dicomward.settings import ListenAddress
from tests.io.world import Peer
from tests.real.clients import rejection_of
from tests.real.processes import LOOPBACK
from tests.real.recording_archive import COMMITMENT, COMMITMENT_INSTANCE, VERIFICATION, RecordingArchive

OURS, THEIRS = "2.25.1", "2.25.2"
SUCCESS = 0x0000
IMPLICIT = "1.2.840.10008.1.2"


@contextmanager
def front(port: int | None, *, is_device_told: bool = True) -> Iterator[tuple[ReportFront, list[Report]]]:
    taken: list[Report] = []

    def take(report: Report) -> bool:
        if report.transaction_uid == OURS:
            taken.append(report)
        return report.transaction_uid == OURS

    device = ListenAddress(host=LOOPBACK, port=port) if port is not None else None
    made = ReportFront("ct1", device, take, is_device_told=is_device_told)
    made.start()
    try:
        yield made, taken
    finally:
        made.stop()


@contextmanager
def archive(front: ReportFront, *classes: str, syntax: str = IMPLICIT) -> Iterator[object]:
    """Call as an archive that reports does."""
    caller = AE(ae_title="PACS")
    caller.acse_timeout = caller.dimse_timeout = caller.network_timeout = 20
    for each in classes or (COMMITMENT, VERIFICATION):
        caller.add_requested_context(each, [syntax])
    role = build_role(UID(COMMITMENT), scu_role=False, scp_role=True)
    association = caller.associate(LOOPBACK, front.address.port, ae_title="CT1", ext_neg=[role])
    try:
        yield association
    finally:
        association.release()


def report(association: object, transaction: str) -> int | None:
    item, information = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    information.TransactionUID, information.ReferencedSOPSequence = transaction, [item]
    told, _ = association.send_n_event_report(  # type: ignore[attr-defined]
        information, 1, UID(COMMITMENT), UID(COMMITMENT_INSTANCE)
    )
    status: int | None = told.get("Status")
    return status


def test_own_report_is_taken_and_the_devices_goes_to_the_device() -> None:
    with RecordingArchive("CT1") as device, front(device.port) as (made, taken), archive(made) as association:
        assert report(association, OURS) == SUCCESS
        assert [(each.transaction_uid, each.committed) for each in taken] == [(OURS, frozenset({"1.2.3"}))]
        assert device.messages == []
        assert report(association, THEIRS) == SUCCESS
        (told,) = device.messages
        assert (told.operation, told.calling_ae_title, told.called_ae_title) == ("N-EVENT-REPORT", "PACS", "CT1")
        assert THEIRS.encode() in told.data_set
        assert association.send_c_echo().Status == SUCCESS  # type: ignore[attr-defined]


def test_what_is_not_a_report_goes_to_the_device_byte_by_byte() -> None:
    with RecordingArchive("CT1") as device, front(device.port) as (made, _taken), archive(made, VERIFICATION) as link:
        assert link.send_c_echo().Status == SUCCESS  # type: ignore[attr-defined]
        assert device.associations.requested == [("PACS", "CT1")]


def test_without_a_device_other_associations_are_rejected() -> None:
    with front(None) as (made, _taken), archive(made, VERIFICATION) as association:
        assert rejection_of(association) is not None


def test_who_sends_anything_else_goes_to_the_device_or_nowhere() -> None:
    with front(None) as (made, _taken):
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\x00\x00\x00\x04abcd", b"\x01"):
            with socket.create_connection((LOOPBACK, made.address.port)) as peer:
                peer.sendall(data)
                with contextlib.suppress(OSError):
                    # Unless it has been reset already.
                    peer.shutdown(socket.SHUT_WR)
                assert Peer(peer).is_gone()


def test_stop_ends_associations_that_are_open() -> None:
    with RecordingArchive("CT1") as device:
        with front(device.port) as (made, _taken):
            peer = socket.create_connection((LOOPBACK, made.address.port))
            peer.sendall(b"\x01")

            def until_it_ends() -> None:
                # It is shut where it was accepted, and reset where it still waited for that.
                with contextlib.suppress(ConnectionResetError):
                    peer.recv(1)

            thread = threading.Thread(target=until_it_ends)
            thread.start()
        thread.join(20)
        assert not thread.is_alive()
        peer.close()
