"""A capture of real DCMTK traffic, read from the loopback interface itself, becomes the draft of those who talked."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.clients import Dcmtk, Route
from tests.real.gateway import dicomward
from tests.real.recording_archive import RecordingArchive
from tests.real.samples import sample

_ETH_P_ALL = 0x0003
_PACKET_OUTGOING = 4


@contextmanager
def captured(path: Path, port: int) -> Iterator[None]:
    """Write what goes over loopback from or to a port into a pcap file, as tcpdump does."""
    try:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    except PermissionError:
        pytest.skip("to capture packets needs root (CAP_NET_RAW)")
    # A whole study must fit until it is read.
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024 * 1024)
    tap.bind(("lo", 0))
    tap.settimeout(0.2)
    over = threading.Event()
    packets: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                packet, where = tap.recvfrom(1 << 18)
            except TimeoutError:
                if over.is_set():
                    return
                continue
            # Loopback shows each packet twice.
            if where[2] == _PACKET_OUTGOING and struct.pack(">H", port) in packet[34:38]:
                packets.append(packet)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        tap.close()
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for packet in packets:
            file.write(struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet)


def test_real_traffic_is_drafted_without_a_value_of_a_patient(tmp_path: Path) -> None:
    capture = tmp_path / "lo.pcap"
    with RecordingArchive("OLDPACS") as archive:
        scanner = Route(port=archive.port, calling_ae_title="CT1", called_ae_title="OLDPACS")
        reader = Route(port=archive.port, calling_ae_title="WS1", called_ae_title="OLDPACS")
        with captured(capture, archive.port):
            assert Dcmtk().store(scanner, [sample("CT_small.dcm")]).succeeded
            assert Dcmtk().worklist(scanner).succeeded
            assert Dcmtk().find(reader, {"QueryRetrieveLevel": "STUDY", "PatientID": "1CT1"}).succeeded
    done = dicomward("inventory", "--pcap", capture)
    assert done.returncode == 0, done.stderr
    for expected in (
        'name = "OLDPACS"',
        f'address = "127.0.0.1:{archive.port}"',
        'role = "modality"',
        'role = "workstation"',
        '"CTImageStorage"',
        "# associations: 3",
    ):
        assert expected in done.stdout
    for secret in ("CompressedSamples", "1CT1"):
        assert secret not in done.stdout
