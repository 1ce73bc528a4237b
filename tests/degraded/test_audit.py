"""The audit log can't be written: the gateway narrows to the clinical floor, and stops only where no sink is left."""

import errno
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from io import FileIO
from pathlib import Path

import pytest

from dicomward.dicom.pdu import AAbort, AAssociateAc, AAssociateRj
from dicomward.io.audit.engine import AuditState
from dicomward.io.audit.files import AuditFiles
from dicomward.io.audit.verify import verify_directory
from dicomward.vocab.reason import ReasonCode
from tests.degraded.place import Application, Place, application, process
from tests.io.world import Peer, RawArchive, raw_archive
from tests.relay.wire import c_find_rq, c_store_rq, identifier, image, message

FLOOR_ONLY = 0x0124


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "gateway", archive)
    audit = replace(made.settings.audit, second_sink=tmp_path / "second.jsonl")
    made.settings = replace(made.settings, audit=audit)
    yield made
    made.close()


def find(peer: Peer, message_id: int = 50) -> int | None:
    """Ask for studies, which is reading."""
    peer.send(message(5, c_find_rq(message_id), identifier()))
    return peer.next_message().command.status


def worklist(peer: Peer, message_id: int = 60) -> int | None:
    peer.send(message(7, c_find_rq(message_id, affected_sop_class_uid="1.2.840.10008.5.1.4.31"), identifier()))
    return peer.next_message().command.status


def store(peer: Peer, message_id: int = 70) -> int | None:
    peer.send(message(3, c_store_rq(message_id), image()))
    return peer.next_message().command.status


def has_the_floor_only(peer: Peer) -> bool:
    """Do each service of the floor that has a context here, and reading."""
    assert peer.echo() == 0
    assert store(peer) == 0
    assert worklist(peer) == 0
    return find(peer) == FLOOR_ONLY


def accepted_contexts(answer: object) -> set[int]:
    assert isinstance(answer, AAssociateAc), answer
    return {context.context_id for context in answer.presentation_contexts if context.result == 0}


class Disk(AuditFiles):
    """The real files, until they fail or hang."""

    def __init__(self) -> None:
        self.fails = False
        self.answers = threading.Event()
        self.answers.set()

    def write(self, descriptor: int, data: bytes) -> None:
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        assert self.answers.wait(60)
        super().sync(descriptor)


class Failing:
    """The application on a disk, and with a second sink, that fail when they are told."""

    is_protected = False

    def __init__(self, running: Application) -> None:
        self.running = running
        self.disk = Disk()
        running.gateway._audit._engine._store._files = self.disk
        diversion = running.gateway._audit._engine._diversion
        assert diversion is not None
        self._real = diversion._sink
        self.sink_fails = False
        self._diversion = diversion
        diversion._sink = self

    def fail(self) -> None:
        self.disk.fails = True

    def work(self) -> None:
        self.disk.fails = False

    # -- the second sink --

    def write(self, lines: bytes) -> None:
        if self.sink_fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._real.write(lines)

    def close(self) -> None:
        self._real.close()


@pytest.fixture
def running(place: Place) -> Iterator[Application]:
    with application(place) as made:
        yield made


@pytest.fixture
def failing(running: Application) -> Failing:
    return Failing(running)


def degrade(failing: Failing, peer: Peer) -> None:
    """Let the log fail, and something happen that has to be recorded."""
    failing.fail()
    peer.echo(99)
    failing.running.wait_for_audit(AuditState.DEGRADED)


def test_open_association_keeps_the_floor_and_reading_is_refused(
    place: Place, running: Application, failing: Failing
) -> None:
    peer = place.peer().established()
    assert find(peer) == 0
    degrade(failing, peer)
    assert has_the_floor_only(peer)


def test_new_association_gets_the_contexts_of_the_floor(place: Place, running: Application, failing: Failing) -> None:
    degrade(failing, place.peer().established())
    peer = place.peer()
    assert accepted_contexts(peer.associate()) == {1, 3, 7}
    assert peer.echo() == 0
    assert store(peer) == 0


def test_records_of_that_time_are_in_the_second_sink(
    place: Place, running: Application, failing: Failing, tmp_path: Path
) -> None:
    peer = place.peer().established()
    degrade(failing, peer)
    assert find(peer) == FLOOR_ONLY
    assert store(peer) == 0
    peer.release()
    peer.close()
    place.close()
    assert running.gateway._gate.wait_until_empty(20)
    told = [json.loads(line) for line in (tmp_path / "second.jsonl").read_text().splitlines()]
    assert "DW-DEGR-ENTER" in {each["code"] for each in told}
    assert ReasonCode.CLINICAL_FLOOR_ONLY in {each.get("reason") for each in told}
    assert {("DW-OP-ALLOW", "c-store")} <= {(each["code"], each.get("operation")) for each in told}


def test_everything_comes_back_with_the_log(place: Place, running: Application, failing: Failing) -> None:
    peer = place.peer().established()
    degrade(failing, peer)
    assert find(peer) == FLOOR_ONLY
    failing.work()
    peer.echo(98)
    running.wait_for_audit(AuditState.OK)
    assert find(peer) == 0
    peer.close()


def test_no_sink_ends_what_is_open_and_admits_nobody(place: Place, running: Application, failing: Failing) -> None:
    """What can't be recorded must not happen (trap 8)."""
    peer = place.peer().established()
    failing.sink_fails = True
    failing.fail()
    peer.send(message(3, c_store_rq(1), image()))
    assert isinstance(peer.next(), AAbort)
    running.wait_for_audit(AuditState.NO_SINK)
    answer = place.peer().associate()
    assert isinstance(answer, AAssociateRj), answer
    assert (answer.result, answer.source, answer.reason) == (2, 3, 1)
    failing.sink_fails = False
    failing.work()
    running.wait_for_audit(AuditState.OK)
    assert place.peer().established().echo() == 0


def test_idle_association_ends_too_where_no_sink_is_left(
    place: Place, running: Application, failing: Failing, archive: RawArchive
) -> None:
    idle = place.peer().established()
    other = place.peer().established()
    failing.sink_fails = True
    failing.fail()
    other.send(message(3, c_store_rq(1), image()))
    assert isinstance(other.next(), AAbort)
    assert isinstance(idle.next(), AAbort)
    assert running.gateway._gate.wait_until_empty(20) or running.gateway._gate.sessions()


def test_disk_that_hangs_is_left_for_the_second_sink(
    place: Place, running: Application, failing: Failing, tmp_path: Path
) -> None:
    """It neither writes nor fails: nobody may wait for it for longer than two seconds."""
    peer = place.peer().established()
    failing.disk.answers.clear()
    other = place.peer()
    assert isinstance(other.associate(), AAssociateAc)
    assert running.gateway._audit.health.state is AuditState.DEGRADED
    assert has_the_floor_only(peer)
    failing.disk.answers.set()
    running.wait_for_audit(AuditState.OK)
    assert find(peer) == 0
    assert "DW-ASSOC-ALLOW" in (tmp_path / "second.jsonl").read_text()


# -- a disk that is full in earnest ------------------------------------------------------------------------------------


def _namespace() -> list[str]:
    """Return what starts a process with mounts of its own, or skip."""
    unshare = shutil.which("unshare")
    prefix = [str(unshare), "--user", "--map-root-user", "--mount"]
    if unshare is None or subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespace of one's own")
    return prefix


def _fill(path: Path) -> None:
    """Write until there is no space left."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        _write_without_end(file)


def _write_without_end(file: FileIO) -> None:
    while True:
        file.write(bytes(1 << 16))


def test_full_disk_in_a_process_of_its_own(place: Place, tmp_path: Path) -> None:
    audit = place.settings.audit.directory
    mount = f'mount -t tmpfs -o size=12m,mode=700 tmpfs "{audit}" && exec "$@"'
    place.configure(second_sink=tmp_path / "second.jsonl")
    with process(place, before=[*_namespace(), "sh", "-c", mount, "sh"]) as started:
        disk = Path(f"/proc/{started.process.pid}/root{audit}")
        peer = place.peer().established()
        assert find(peer) == 0
        filler = disk / "filler"
        _fill(filler)
        # The reserve holds for a while, and the floor with it.
        message_id = 100
        while find(peer, message_id) != FLOOR_ONLY:
            message_id += 1
            assert message_id < 20_000
        assert has_the_floor_only(peer)
        assert accepted_contexts(place.peer().associate()) == {1, 3, 7}
        filler.unlink()
        for message_id in range(100, 60_000):
            if find(peer, message_id) == 0:
                break
        else:
            pytest.fail("it never comes back")
        place.close()
        assert started.stop() == 0


def test_full_disk_leaves_a_log_that_verifies(place: Place) -> None:
    """Half a record at the end is repaired, and said."""
    with application(place) as running:
        failing = Failing(running)
        peer = place.peer().established()
        degrade(failing, peer)
        failing.work()
        peer.echo(97)
        running.wait_for_audit(AuditState.OK)
        peer.close()
    report = verify_directory(place.settings.audit.directory).report
    assert report.findings == ()
    assert {"DW-DEGR-ENTER", "DW-DEGR-LEAVE"} <= {str(record["code"]) for record in place.records()}
