"""Every other degraded state, made to happen: what stops, what goes on, and how it is left."""

import itertools
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAssociateAc, AAssociateRj
from dicomward.identity.registry import DeviceStatus
from dicomward.io.audit.verify import verify_directory
from dicomward.io.gateway import session as session_module
from dicomward.io.gateway.session_clock import Clock
from dicomward.relay.inputs import Instant
from tests.degraded.place import Application, Place, application, process
from tests.directory_helpers import now
from tests.io.world import (
    ALL,
    SECONDS,
    Credentials,
    GoneError,
    Peer,
    RawArchive,
    device,
    issue,
    raw_archive,
)
from tests.relay.wire import (
    COMMITMENT,
    Message,
    a_associate_rq,
    c_find_rq,
    c_store_rq,
    identifier,
    image,
    message,
    n_action_rq,
    n_event_report_rq,
    response_to,
    transaction,
)

FLOOR_ONLY = 0x0124


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "gateway", archive)
    yield made
    made.close()


def find(peer: Peer, message_id: int = 50) -> int | None:
    peer.send(message(5, c_find_rq(message_id), identifier()))
    return peer.next_message().command.status


def accepted_contexts(answer: object) -> set[int]:
    assert isinstance(answer, AAssociateAc), answer
    return {context.context_id for context in answer.presentation_contexts if context.result == 0}


# -- the database of commitments ---------------------------------------------------------------------------------------


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[tuple[Place, RawArchive]]:
    """A place in front of an archive that the test plays."""
    with raw_archive(serves=False) as played:
        made = Place(tmp_path / "gateway", played)
        yield made, played
        made.close()


def ask_for_commitment(peer: Peer, archive: RawArchive, uid: str) -> Peer:
    """Ask on a new association; return the archive's end of it."""
    peer.send(encode_pdu(a_associate_rq({1: COMMITMENT})))
    theirs, _ = archive.take_association()
    assert isinstance(peer.next(), AAssociateAc)
    peer.send(message(1, n_action_rq(1), transaction(uid)))
    request = theirs.next_message()
    theirs.send(message(1, response_to(request.command)))
    assert peer.next_message().command.status == 0
    return theirs


def report(theirs: Peer, uid: str, message_id: int = 5) -> None:
    theirs.send(message(1, n_event_report_rq(message_id), transaction(uid)))


def test_storage_commitment_goes_on_without_its_database(scripted: tuple[Place, RawArchive]) -> None:
    place, archive = scripted
    blocker = place.settings.gateway.state_directory / "correlations.db"
    blocker.mkdir(parents=True)
    with application(place):
        peer = place.peer()
        theirs = ask_for_commitment(peer, archive, "1.2.7.1")
        report(theirs, "1.2.7.1")
        assert peer.next_message().name == "N-EVENT-REPORT-RQ"
        blocker.rmdir()
        second = place.peer()
        ask_for_commitment(second, archive, "1.2.7.2").close()
    told = [(record["code"], record.get("component")) for record in place.records()]
    assert told.count(("DW-DEGR-ENTER", "correlations")) == 1
    assert told.count(("DW-DEGR-LEAVE", "correlations")) == 1


# -- certificates that have expired ------------------------------------------------------------------------------------


def registered(place: Place, name: str, *, born_days_ago: float, days: int) -> Credentials:
    credentials = issue(place.settings, name, born=now() - timedelta(days=born_days_ago), days=days)
    place.register(device("ct1", place.scanner), device(name, credentials))
    return credentials


def request_of(name: str) -> object:
    return a_associate_rq(ALL, calling=name.upper())


def test_just_expired_certificate_keeps_the_floor(place: Place) -> None:
    late = registered(place, "late", born_days_ago=31, days=30)
    with application(place):
        peer = place.peer(late)
        assert accepted_contexts(peer.associate(a_associate_rq(ALL, calling="LATE"))) == {1, 3, 7}
        assert peer.echo() == 0
        peer.send(message(3, c_store_rq(2), image()))
        assert peer.next_message().command.status == 0
        assert place.peer().established().echo() == 0
    (allowed,) = [r for r in place.records() if r["code"] == "DW-ASSOC-ALLOW" and r["device"] == "late"]
    assert allowed["reason"] == "certificate-just-expired"


def test_certificate_beyond_the_grace_is_rejected(place: Place) -> None:
    gone = registered(place, "gone", born_days_ago=60, days=30)
    with application(place):
        answer = place.peer(gone).associate(a_associate_rq(ALL, calling="GONE"))
        assert isinstance(answer, AAssociateRj), answer
    assert "certificate-expired" in {record.get("reason") for record in place.records()}


def test_revoked_certificate_has_no_floor(place: Place) -> None:
    late = issue(place.settings, "late", born=now() - timedelta(days=31), days=30)
    place.register(device("late", late, status=DeviceStatus.REVOKED))
    with application(place):
        answer = place.peer(late).associate(a_associate_rq(ALL, calling="LATE"))
        assert isinstance(answer, AAssociateRj), answer


class LaterClock:
    """The clocks of the sessions, with a wall clock that a test moves on."""

    def __init__(self) -> None:
        self.days = 0.0
        self._real = Clock()

    def now(self) -> Instant:
        instant = self._real.now()
        later: datetime = instant.local + timedelta(days=self.days)
        return Instant(instant.monotonic, later)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> LaterClock:
    made = LaterClock()
    monkeypatch.setattr(session_module, "_clock", made)
    return made


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_resumed_session_is_judged_by_the_clock_of_now(
    place: Place, clock: LaterClock, version: ssl.TLSVersion
) -> None:
    """Trap 13: OpenSSL resumes a session whose certificate has expired meanwhile, and asks nobody."""
    short = registered(place, "short", born_days_ago=0, days=1)
    context = short.context(maximum=version)

    def resume(session: ssl.SSLSession | None) -> tuple[Peer, ssl.SSLSession | None, object]:
        connection = socket.create_connection(("127.0.0.1", place.port), SECONDS)
        secured = context.wrap_socket(connection, server_hostname="127.0.0.1", session=session)
        peer = Peer(secured)
        place.peers.append(peer)
        answer = peer.associate(a_associate_rq(ALL, calling="SHORT"))
        assert secured.session_reused is (session is not None)
        return peer, secured.session, answer

    with application(place):
        peer, session, answer = resume(None)
        assert accepted_contexts(answer) == {1, 3, 5, 7}
        assert find(peer) == 0
        assert session is not None
        clock.days = 3
        _, session, answer = resume(session)
        assert accepted_contexts(answer) == {1, 3, 7}
        clock.days = 20
        _, _, answer = resume(session)
        assert isinstance(answer, AAssociateRj)
    reasons = [record.get("reason") for record in place.records()]
    assert "certificate-just-expired" in reasons
    assert "certificate-expired" in reasons


def test_certificate_that_expires_during_an_association_does_not_cut_it(place: Place, clock: LaterClock) -> None:
    with application(place):
        peer = place.peer().established()
        clock.days = 31
        assert peer.echo() == 0


# -- the registry's database -------------------------------------------------------------------------------------------


def test_gateway_starts_and_serves_without_the_registry_database(place: Place) -> None:
    (place.settings.directory / "registry.db").unlink()
    with process(place) as started:
        peer = place.peer().established()
        assert peer.echo() == 0
        assert find(peer) == 0
        place.close()
        assert started.stop() == 0


# -- killed ------------------------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_killed_gateway_starts_again_with_its_commitments_and_a_log_that_verifies(
    scripted: tuple[Place, RawArchive],
) -> None:
    place, archive = scripted
    archive_side = _free_port()
    place.configure(archive_listen=f"127.0.0.1:{archive_side}")
    with raw_archive(serves=False) as scanner:
        place.register(device("ct1", place.scanner, address=scanner.endpoint, plain=True))
        with process(place) as started:
            ask_for_commitment(place.peer(), archive, "1.2.7.1")
            started.kill()
        with process(place) as started:
            assert place.peer() is not None
            # The archive reports on an association of its own, under its own title.
            connection = socket.create_connection(("127.0.0.1", archive_side), SECONDS)
            theirs = Peer(connection)
            theirs.send(encode_pdu(a_associate_rq({1: COMMITMENT}, calling="PACS", called="CT1")))
            at_scanner, request = scanner.take_association()
            assert request.calling_ae_title == "PACS"
            assert isinstance(theirs.next(), AAssociateAc)
            report(theirs, "1.2.7.1")
            told = at_scanner.next_message()
            assert told.name == "N-EVENT-REPORT-RQ"
            at_scanner.send(message(1, response_to(told.command)))
            assert theirs.next_message().command.status == 0
            report(theirs, "1.2.7.99", 6)
            refused = theirs.next_message().command.status
            assert refused != 0
            for peer in (theirs, at_scanner):
                peer.close()
            place.close()
            assert started.stop() == 0
    report_on_log = verify_directory(place.settings.audit.directory).report
    assert report_on_log.findings == ()
    codes = [record["code"] for record in place.records()]
    assert codes.count("DW-GW-START") == 2
    assert codes.count("DW-GW-STOP") == 1


def test_what_the_archive_got_before_the_kill_is_on_record(scripted: tuple[Place, RawArchive]) -> None:
    """An operation is written to the log before it is forwarded; the operating system keeps what was written."""
    place, archive = scripted
    with process(place) as started:
        peer = place.peer()
        peer.send(encode_pdu(a_associate_rq(ALL)))
        theirs, _ = archive.take_association()
        assert isinstance(peer.next(), AAssociateAc)
        received: list[int | None] = []
        enough = threading.Event()

        def answer() -> None:
            try:
                while True:
                    item = theirs.next()
                    assert isinstance(item, Message)
                    received.append(item.message_id)
                    theirs.send(message(item.context_id, response_to(item.command)))
                    if len(received) == 200:
                        enough.set()
            except (GoneError, OSError, AssertionError):
                return

        answering = threading.Thread(target=answer)
        answering.start()
        try:
            for number in itertools.count(1):
                if enough.is_set():
                    started.kill()
                peer.send(message(3, c_store_rq(number % 60_000 + 1), image()))
                peer.next_message()
        except (GoneError, OSError):
            pass
        theirs.socket.close()
        answering.join(SECONDS)
    with process(place) as started:
        assert started.stop() == 0
    allowed = [r for r in place.records() if r["code"] == "DW-OP-ALLOW"]
    assert len(received) >= 200
    assert len(allowed) >= len(received)
    assert verify_directory(place.settings.audit.directory).report.findings == ()


# -- file descriptors --------------------------------------------------------------------------------------------------


def _with_descriptors(count: int) -> list[str]:
    prlimit = shutil.which("prlimit")
    if prlimit is None or subprocess.run([prlimit, "--version"], check=False, capture_output=True).returncode:
        pytest.skip("prlimit (util-linux) is missing")
    return [prlimit, f"--nofile={count}:{count}"]


def test_silent_strangers_take_no_descriptor_from_a_device(place: Place) -> None:
    """128 descriptors in all: strangers get a quarter of them, and the oldest goes."""
    with process(place, before=_with_descriptors(128)) as started:
        peer = place.peer().established()
        silent = []
        for number in range(400):
            connection = socket.socket()
            connection.bind((f"127.0.1.{1 + number % 200}", 0))
            connection.connect(("127.0.0.1", place.port))
            silent.append(connection)
        assert peer.echo() == 0
        assert place.peer().established().echo() == 0
        for connection in silent:
            connection.close()
        place.close()
        assert started.stop() == 0
    records = place.records()
    assert "address-delay" in {record.get("reason") for record in records}
    assert "new connections" not in {record.get("component") for record in records}, "they were used up"


def test_used_up_descriptors_cost_nobody_who_is_connected(place: Place) -> None:
    """Devices themselves use them all up: who comes late waits or is told to try again, and then gets in."""
    with process(place, before=_with_descriptors(64)) as started:
        first = place.peer().established()
        established: list[Peer] = []
        late: list[socket.socket] = []
        while not late:
            connection = socket.create_connection(("127.0.0.1", place.port), SECONDS)
            connection.settimeout(1.0)
            try:
                connection = place.scanner.context().wrap_socket(connection, server_hostname="127.0.0.1")
                peer = Peer(connection)
                answer = peer.associate()
            except (OSError, GoneError):
                late.append(connection)
                break
            if isinstance(answer, AAssociateAc):
                established.append(peer)
            else:
                assert isinstance(answer, AAssociateRj)
                assert answer.result == 2, "it is no device's fault for good"
                late.append(connection)
                peer.close()
        assert len(established) >= 4
        for peer in (first, *established):
            assert peer.echo(7) == 0
        for peer in established:
            peer.release()
            peer.close()
        for connection in late:
            connection.close()
        assert place.peer().established().echo() == 0
        assert started.process.poll() is None


__all__ = ["Application"]
