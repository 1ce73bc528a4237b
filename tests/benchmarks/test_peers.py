"""The own peers of the benchmark speak the standard: judged by pynetdicom and by each other."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from bench import peers, wire
from bench.datasets import CT_IMAGE_STORAGE, make_images, make_multi_frame
from bench.measure import BenchError, Meter, cpu_seconds, memory_bytes, process_tree, server
from bench.pki import make_pki
from bench.rivals import direct
from pynetdicom import AE
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.sop_class import CTImageStorage, Verification


def test_association_request_is_read_by_pynetdicom() -> None:
    request = A_ASSOCIATE_RQ()
    request.decode(wire.associate_rq("ARCHIVE", "BENCH"))
    assert request.called_ae_title == "ARCHIVE"
    assert request.calling_ae_title == "BENCH"
    assert [context.abstract_syntax for context in request.presentation_context] == [Verification, CTImageStorage]


def test_association_answer_is_read_by_pynetdicom() -> None:
    request = wire.associate_rq("ARCHIVE", "BENCH")[6:]
    answer = A_ASSOCIATE_AC()
    answer.decode(wire.associate_ac(request))
    assert [context.result for context in answer.presentation_context] == [0, 0]
    assert wire.is_accepted(wire.associate_ac(request)[6:])


def test_rejected_context_is_not_taken_for_accepted() -> None:
    context = wire.item(0x21, b"\x01\0\x03\0" + wire.item(0x40, wire.IMPLICIT_LITTLE_ENDIAN))
    assert not wire.is_accepted(bytes(68) + wire.item(0x10, wire.APPLICATION_CONTEXT) + context)


def test_echo_is_read_back() -> None:
    data = P_DATA_TF()
    data.decode(wire.echo_rq(7))
    elements = wire.command_elements(wire.echo_rq(7)[6:])
    assert struct.unpack("<H", elements[0x0110]) == (7,)
    assert struct.unpack("<H", elements[0x0100]) == (wire.C_ECHO_RQ,)
    assert wire.command_elements(wire.echo_rsp(1, 7)[6:])[0x0900] == b"\0\0"


def test_store_is_read_back() -> None:
    data = b"".join(part[12:] for part in wire.image_parts(b"1.2.3", 300_000))
    assert data.startswith(b"\x08\0\x16\0")
    assert data.endswith(struct.pack("<HHI", 0x7FE0, 0x0010, 300_000) + bytes(300_000))
    parts = list(wire.image_parts(b"1.2.3", 300_000))
    assert [part[11] for part in parts] == [0] * (len(parts) - 1) + [wire.LAST]
    assert max(map(len, parts)) <= wire.MAXIMUM_LENGTH + 6
    request = wire.command_elements(wire.store_rq(5, b"1.2.3")[6:])
    answer = wire.command_elements(wire.store_rsp(3, request)[6:])
    assert (answer[0x0120], answer[0x0900], answer[0x1000]) == (b"\5\0", b"\0\0", b"1.2.3\0")


@pytest.mark.real
def test_light_archive_takes_a_store_of_pynetdicom_and_the_load_client(tmp_path: Path) -> None:
    with peers.echo_archive(tmp_path) as archive:
        entity = AE("TESTER")
        entity.add_requested_context(CTImageStorage)
        association = entity.associate("127.0.0.1", archive.port)
        assert association.is_established
        (path,) = make_images(tmp_path / "one", count=1, rows=8, columns=8).path.iterdir()
        assert association.send_c_store(path).Status == 0
        association.release()
        command = peers.load_command(direct(archive.port), "store", "--threads", "2", "--megabytes", "1")
        done = subprocess.run(command, capture_output=True, cwd=peers.ROOT, timeout=60, check=False)
    assert json.loads(done.stdout)["stored"] == 2


@pytest.mark.real
def test_light_archive_answers_pynetdicom_and_the_load_client(tmp_path: Path) -> None:
    with peers.echo_archive(tmp_path) as archive:
        entity = AE("TESTER")
        entity.add_requested_context(Verification)
        association = entity.associate("127.0.0.1", archive.port)
        assert association.is_established
        assert association.send_c_echo().Status == 0
        association.release()
        assert association.is_released
        done = peers.associate(direct(archive.port), threads=2, seconds=0.2, resume=False)
    assert done.run.amount > 0
    assert done.protocol == "plaintext"


@pytest.mark.real
def test_failure_of_the_archive_makes_the_run_void(tmp_path: Path) -> None:
    with peers.echo_archive(tmp_path) as archive:
        port = archive.port
    with pytest.raises(BenchError, match="load client failed"):
        peers.associate(direct(port), threads=2, seconds=0.2, resume=False)


def test_images_have_their_size_and_their_own_uids(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "ct", count=3, rows=16, columns=32)
    images = [pydicom.dcmread(path) for path in sorted(folder.path.iterdir())]
    assert folder.files == len(images) == 3
    assert folder.size == sum(path.stat().st_size for path in folder.path.iterdir())
    assert {image.SOPClassUID for image in images} == {CT_IMAGE_STORAGE}
    assert len({image.SOPInstanceUID for image in images}) == 3
    assert len({image.StudyInstanceUID for image in images}) == 1
    assert {len(image.PixelData) for image in images} == {1024}


def test_multi_frame_is_a_whole_image(tmp_path: Path) -> None:
    folder = make_multi_frame(tmp_path / "multi", frames=3)
    image = pydicom.dcmread(next(folder.path.iterdir()))
    assert image.NumberOfFrames == 3
    assert len(image.PixelData) == 3 * 512 * 1024


def test_certificates_chain_to_their_authority(tmp_path: Path) -> None:
    from cryptography import x509

    made = make_pki(tmp_path / "pki")
    authority = x509.load_pem_x509_certificate(made.ca.read_bytes())
    for path in (made.server_certificate, made.client.certificate):
        x509.load_pem_x509_certificate(path.read_bytes()).verify_directly_issued_by(authority)
    assert made.server_bundle.read_bytes().count(b"-----BEGIN") == 2


@pytest.mark.real
def test_meter_counts_the_tree_with_its_children(tmp_path: Path) -> None:
    # The child works, then listens; its parent only waits for it.
    child = (
        "import socket, sys\n"
        "sum(i * i for i in range(2_000_000))\n"
        "s = socket.socket(); s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen()\n"
        "s.accept(); s.accept()\n"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, sys.argv[1]])"
    from bench.measure import free_port

    port = free_port()
    with server("worker", [sys.executable, "-c", parent, str(port)], port=port, directory=tmp_path) as running:
        assert len(process_tree(running.pid)) == 2
        assert cpu_seconds(running.pid) > 0.05
        assert memory_bytes(running.pid) > 1_000_000
        with Meter(running.pid) as meter:
            pass
        assert 0 <= meter.cpu_seconds < 0.5
        assert meter.peak_bytes > 1_000_000


def test_meter_without_a_process_reads_zero() -> None:
    with Meter(None) as meter:
        pass
    assert (meter.cpu_seconds, meter.peak_bytes) == (0.0, 0)


@pytest.mark.real
def test_server_that_does_not_start_is_an_error_with_its_log(tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "raise SystemExit('no licence')"]
    with pytest.raises(BenchError, match="no licence"), server("broken", failing, port=1, directory=tmp_path):
        pass
