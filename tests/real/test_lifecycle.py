"""What happens to open associations: suspension, revocation, draining, and neighbours on the same gateway."""

import signal
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_STORE

from tests.real.clients import Pynetdicom, data_set_of
from tests.real.gateway import Gateway
from tests.real.hospital import Hospital, hospital, open_association
from tests.real.processes import free_port
from tests.real.raw_store import send_raw_store
from tests.real.recording_archive import STUDY_FIND, VERIFICATION, storage_contexts
from tests.real.samples import Sample, sample

CT, MR = sample("CT_small.dcm"), sample("MR_small.dcm")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hospital]:
    with hospital(tmp_path) as running:
        yield running


@pytest.mark.parametrize("command", ["suspend", "revoke"])
def test_association_is_aborted_before_the_command_returns(here: Hospital, command: str) -> None:
    victim = here.device("victim", "VICTIM")
    neighbour = here.device("neighbour", "NEIGHBOUR")
    open_one = open_association(victim, VERIFICATION)
    other = open_association(neighbour, VERIFICATION)
    assert open_one.send_c_echo().get("Status") == 0
    here.gateway.must("device", command, "victim")
    # Both sides have their A-ABORT already; pynetdicom needs a moment to read what lies in its socket.
    assert here.archive.wait_until(lambda: "VICTIM" in here.archive.associations.aborted)
    open_one.join(timeout=20)
    assert open_one.is_aborted
    assert other.send_c_echo().get("Status") == 0
    other.release()
    assert not Pynetdicom().echo(victim).succeeded
    assert f"device-{'suspended' if command == 'suspend' else 'revoked'}" in here.gateway.reasons()


def test_suspended_device_comes_back_with_resume_and_a_revoked_one_does_not(here: Hospital) -> None:
    scanner = here.device("scanner", "SCANNER")
    here.gateway.must("device", "suspend", "scanner")
    assert not Pynetdicom().echo(scanner).succeeded
    here.gateway.must("device", "resume", "scanner")
    assert Pynetdicom().echo(scanner).succeeded
    here.gateway.must("device", "revoke", "scanner")
    assert here.gateway.run("device", "resume", "scanner").returncode == 1
    assert not Pynetdicom().echo(scanner).succeeded


def test_device_added_while_it_runs_comes_in_at_once(here: Hospital) -> None:
    assert Pynetdicom().echo(here.device("late", "LATE")).succeeded


def test_suspension_in_the_middle_of_an_image_stops_it(here: Hospital) -> None:
    """The rest of the image never reaches the archive, and what it got ends with an abort."""
    victim = here.device("victim", "VICTIM")
    association = Pynetdicom().associate(victim, storage_contexts([CT]))
    assert association.is_established
    here.archive.before_store_answer = threading.Event()
    statuses: list[int | None] = []
    sender = threading.Thread(target=lambda: statuses.append(send_raw_store(association, CT, 1)))
    sender.start()
    assert here.archive.wait_until(lambda: here.archive.stored)
    here.gateway.must("device", "suspend", "victim")
    here.archive.before_store_answer.set()
    sender.join(timeout=30)
    assert statuses == [None]


def test_sigterm_drains_open_associations_and_takes_no_new_ones(here: Hospital) -> None:
    scanner = here.device("scanner", "SCANNER")
    association = Pynetdicom().associate(scanner, storage_contexts([CT]))
    assert association.is_established
    here.archive.before_store_answer = threading.Event()
    statuses: list[int | None] = []
    sender = threading.Thread(target=lambda: statuses.append(send_raw_store(association, CT, 1)))
    sender.start()
    assert here.archive.wait_until(lambda: here.archive.stored)
    here.gateway.signal(signal.SIGTERM)
    assert _refuses_soon(here, scanner)
    here.archive.before_store_answer.set()
    sender.join(timeout=30)
    assert statuses == [0x0000]
    association.release()
    assert here.gateway.child.process.wait(timeout=20) == 0


def _refuses_soon(here: Hospital, route: Any) -> bool:
    """Say if new associations are turned away (the signal needs a moment to arrive)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not Pynetdicom().echo(route).succeeded:
            return True
    return False


def test_second_sigterm_stops_at_once(here: Hospital) -> None:
    scanner = here.device("scanner", "SCANNER")
    association = open_association(scanner, VERIFICATION)
    here.gateway.signal(signal.SIGTERM)
    with pytest.raises(Exception, match="timed out"):
        here.gateway.child.process.wait(timeout=1.0)
    here.gateway.signal(signal.SIGTERM)
    here.gateway.child.process.wait(timeout=10)
    assert here.archive.wait_until(lambda: "SCANNER" in here.archive.associations.aborted)
    association.abort()


def test_gateway_stops_and_starts_on_the_same_state(here: Hospital) -> None:
    scanner = here.device("scanner", "SCANNER")
    assert here.gateway.stop() == 0
    assert not Pynetdicom().echo(scanner).succeeded
    here.gateway.start()
    assert Pynetdicom().echo(scanner).succeeded
    assert here.gateway.run("audit", "verify").returncode == 0


def test_gateway_that_was_killed_starts_again_and_its_log_is_whole(here: Hospital) -> None:
    """SIGKILL in the middle of an image: nothing to repair by hand, and every durable record is there."""
    scanner = here.device("scanner", "SCANNER")
    association = Pynetdicom().associate(scanner, storage_contexts([CT]))
    here.archive.before_store_answer = threading.Event()
    sender = threading.Thread(target=lambda: send_raw_store(association, CT, 1))
    sender.start()
    assert here.archive.wait_until(lambda: here.archive.stored)
    here.gateway.signal(signal.SIGKILL)
    here.gateway.child.process.wait(timeout=10)
    here.archive.before_store_answer.set()
    sender.join(timeout=30)
    here.gateway.start()
    assert Pynetdicom().echo(scanner).succeeded
    assert here.gateway.run("audit", "verify").returncode == 0
    allowed = [record for record in here.gateway.audit("--code", "DW-ASSOC-ALLOW") if record["device"] == "scanner"]
    assert len(allowed) == 2


def test_two_gateways_on_one_directory_are_not_possible(here: Hospital) -> None:
    done = here.gateway.run("gateway", seconds=20)
    assert done.returncode in {1, 2}
    assert done.stderr.strip()


def test_tagged_data_sets_of_two_devices_never_mix(here: Hospital) -> None:
    """Two devices, the same message IDs and SOP classes, PDUs interleaved: each object arrives under its own title."""
    routes = {letter: here.device(f"scanner{letter}", f"SCANNER{letter}") for letter in "AB"}
    context = build_context(CT.sop_class_uid, [CT.transfer_syntax_uid])
    count = 30
    failures: list[str] = []

    def send(letter: str) -> None:
        association = Pynetdicom().associate(routes[letter], [context])
        for number in range(1, count + 1):
            status = send_raw_store(association, _tagged(letter, number), number)
            if status != 0:
                failures.append(f"{letter}{number}: {status}")
        association.release()

    threads = [threading.Thread(target=send, args=letter) for letter in "AB"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=90)
    assert failures == []
    assert len(here.archive.stored) == 2 * count
    for stored in here.archive.stored:
        letter = stored.calling_ae_title[-1]
        number = int(stored.sop_instance_uid.rsplit(".", 1)[1])
        assert stored.data_set == _tagged(letter, number).data_set


def _tagged(letter: str, number: int) -> Sample:
    """Return an object of 64 KiB whose every byte says whose it is; Explicit VR Little Endian."""
    uid = f"1.2.826.0.1.3680043.10.543.{ord(letter)}.{number}"
    head = b"\x08\x00\x16\x00UI" + _value(CT.sop_class_uid.encode()) + b"\x08\x00\x18\x00UI" + _value(uid.encode())
    filler = f"{letter}{number:07d}".encode() * 8192
    pixels = b"\xe0\x7f\x10\x00OB\0\0" + len(filler).to_bytes(4, "little") + filler
    return Sample(
        path=Path(f"{letter}{number}"),
        sop_class_uid=CT.sop_class_uid,
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        data_set=head + pixels,
        in_data_set=True,
    )


def _value(value: bytes) -> bytes:
    padded = value + b"\0" * (len(value) % 2)
    return len(padded).to_bytes(2, "little") + padded


def test_abort_of_one_device_costs_its_neighbour_nothing(here: Hospital) -> None:
    rude = here.device("rude", "RUDE")
    polite = here.device("polite", "POLITE")
    context = build_context(CT.sop_class_uid, [CT.transfer_syntax_uid])
    neighbour = Pynetdicom().associate(polite, [context])
    for number in range(1, 6):
        association = Pynetdicom().associate(rude, [context])
        assert association.is_established
        request = C_STORE()
        request.MessageID = number
        request.Priority = 2
        request.AffectedSOPClassUID = UID(CT.sop_class_uid)
        request.AffectedSOPInstanceUID = UID(CT.sop_instance_uid)
        request.DataSet = BytesIO(CT.data_set)
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        association.abort()
        assert send_raw_store(neighbour, _tagged("N", number), number) == 0
    neighbour.release()
    assert [one.data_set for one in here.archive.stored if one.calling_ae_title == "POLITE"] == [
        _tagged("N", number).data_set for number in range(1, 6)
    ]


def test_cancel_reaches_the_archive_and_ends_the_query(here: Hospital) -> None:
    """C-CANCEL ends a query with FE00 on both routes; without it the archive would go on after the tenth match."""
    here.archive.matches_before_cancel = 10
    for number in range(400):
        record = data_set_of({"PatientID": "1CT1", "StudyInstanceUID": f"1.2.826.0.1.3680043.10.543.3.{number}"})
        here.archive.instances[str(number)] = record
    reader = here.device("reader", "READER")
    query = data_set_of({"QueryRetrieveLevel": "STUDY", "PatientID": "1CT1", "StudyInstanceUID": ""})
    for route in (here.direct, reader):
        association = open_association(route, STUDY_FIND)
        statuses = []
        for number, (status, _) in enumerate(association.send_c_find(query, UID(STUDY_FIND), msg_id=7)):
            statuses.append(status.get("Status"))
            if number == 3:
                association.send_c_cancel(7, query_model=UID(STUDY_FIND))
        # It is sent after the fourth match and seen before any of the next; the archive waits for it at the eleventh.
        assert 4 <= len(statuses) - 1 <= 10
        assert statuses == [0xFF00] * (len(statuses) - 1) + [0xFE00]
        association.release()


def test_start_to_listening_is_fast(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "gateway", archive="ARCHIVE", archive_port=free_port())
    times = []
    for _ in range(3):
        began = time.monotonic()
        gateway.start()
        times.append(time.monotonic() - began)
        gateway.stop()
    # The target is 0.5 s (make bench measures it); twice that leaves room for a busy machine.
    assert min(times) < 1.0, times
