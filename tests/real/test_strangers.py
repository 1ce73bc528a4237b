"""Connections that say nothing, and keys that keep failing: what they cost others, and what they get."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.real import raw_peer as raw
from tests.real.clients import Pynetdicom, Route
from tests.real.gateway import Gateway
from tests.real.hospital import credentials_of
from tests.real.processes import LOOPBACK
from tests.real.recording_archive import STUDY_FIND, VERIFICATION, RecordingArchive
from tests.real.samples import sample
from tests.real.site import ARCHIVE

DEADLINE_SECONDS = 6.0
SILENT = 200
ECHO: raw.Contexts = {1: (VERIFICATION, [raw.IMPLICIT])}


class Here:
    """An archive, a gateway with a short deadline, and a device."""

    def __init__(self, archive: RecordingArchive, gateway: Gateway, scanner: Route) -> None:
        self.archive, self.gateway, self.scanner = archive, gateway, scanner

    def echo_seconds(self) -> float:
        """Do a C-ECHO from connecting to releasing; return how long it took."""
        began = time.monotonic()
        with raw.connect(self.scanner) as connection:
            connection.send(raw.request_on(self.scanner, ECHO))
            connection.expect(raw.ASSOCIATE_AC)
            connection.send(raw.echo_rq(1, 1))
            assert connection.message()[raw.STATUS] == 0
            connection.send(raw.pdu(raw.RELEASE_RQ, bytes(4)))
            connection.expect(raw.RELEASE_RP)
        return time.monotonic() - began


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with RecordingArchive(ARCHIVE) as archive:
        gateway = Gateway(tmp_path / "gateway", archive=ARCHIVE, archive_port=archive.port)
        try:
            deadline = {"handshake_deadline_registered_seconds": DEADLINE_SECONDS}
            gateway.configure("gateway", handshake_deadline_unknown_seconds=DEADLINE_SECONDS, **deadline)
            gateway.permit_everything_to("tester")
            scanner = gateway.route(gateway.add_device("scanner", "SCANNER", role="tester"), "SCANNER")
            gateway.start()
            yield Here(archive, gateway, scanner)
        finally:
            gateway.stop()


def _say_nothing(route: Route, kind: int, context: ssl.SSLContext) -> socket.socket:
    """Open a connection that stops talking: at once, inside its ClientHello, or after the TLS handshake."""
    plain = socket.create_connection((LOOPBACK, route.port), timeout=20)
    if kind == 0:
        return plain
    if kind == 1:
        # A TLS record of 512 bytes of which the first 40 come.
        plain.sendall(b"\x16\x03\x01\x02\x00" + b"\x01\x00\x01\xfc\x03\x03" + bytes(29))
        return plain
    return context.wrap_socket(plain, server_hostname="localhost")


def test_silent_connections_delay_nobody_and_never_reach_the_archive(here: Here) -> None:
    context = credentials_of(here.scanner).client_context()
    with ExitStack() as stack:
        began = time.monotonic()
        silent = [stack.enter_context(_say_nothing(here.scanner, number % 3, context)) for number in range(SILENT)]
        took = [here.echo_seconds() for _ in range(10)]
        held = time.monotonic() - began
        assert max(took) < 1.0, took
        # Else they were not open meanwhile, and nothing is shown.
        assert held < DEADLINE_SECONDS, "this machine is too slow to show anything"
        assert here.archive.associations.requested == [("SCANNER", ARCHIVE)] * 10

        for connection in silent:
            connection.settimeout(max(0.1, began + held + DEADLINE_SECONDS + 5.0 - time.monotonic()))
            assert _ends(connection)
        assert here.echo_seconds() < 1.0
    assert "deadline" in here.gateway.reasons()
    assert len(here.archive.associations.requested) == 11


def _ends(connection: socket.socket) -> bool:
    """Say if the other side closes (after an alert, or after nothing) before the connection's timeout."""
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_request_that_trickles_in_has_the_same_deadline(here: Here) -> None:
    """One byte after the other is no way to hold a place: the deadline is for all of it."""
    request = raw.request_on(here.scanner, ECHO)
    began = time.monotonic()
    with raw.connect(here.scanner) as connection:
        connection.socket.settimeout(0.25)
        for byte in request:
            try:
                connection.send(bytes([byte]))
                # Waiting for an answer is the pause between two bytes.
                if not connection.socket.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert DEADLINE_SECONDS - 1.0 < time.monotonic() - began < DEADLINE_SECONDS + 3.0
    assert here.archive.associations.requested == []


def test_failures_after_proof_of_a_key_lead_to_back_off_and_the_floor_goes_on(here: Here) -> None:
    """A scanner that is set up with a wrong title may not query for a while, and still stores its images."""
    wrong = Route(
        port=here.scanner.port,
        calling_ae_title="TYPO",
        called_ae_title=ARCHIVE,
        credentials=here.scanner.credentials,
    )
    for _ in range(8):
        assert Pynetdicom().echo(wrong).statuses == ("rejected 1/1/3",)
    keys = {"QueryRetrieveLevel": "STUDY", "PatientID": "1CT1"}
    assert Pynetdicom().find(here.scanner, keys).statuses == ("rejected 2/3/2",)
    assert "certificate-back-off" in here.gateway.reasons()
    assert Pynetdicom().echo(here.scanner).succeeded
    assert Pynetdicom().store(here.scanner, [sample("CT_small.dcm")]).succeeded
    client = Pynetdicom()
    mixed = client.associate(here.scanner, client.contexts(VERIFICATION, STUDY_FIND))
    assert [context.abstract_syntax for context in mixed.accepted_contexts] == [VERIFICATION]
    mixed.release()


def test_failures_of_strangers_never_stop_a_device_at_the_same_address(here: Here) -> None:
    """Everybody here calls from 127.0.0.1, as behind one NAT."""
    with ExitStack() as stack:
        for _ in range(40):
            plain = stack.enter_context(socket.create_connection((LOOPBACK, here.scanner.port), timeout=20))
            plain.sendall(raw.request_on(here.scanner, ECHO))
        took = [here.echo_seconds() for _ in range(5)]
    assert max(took) < 1.0, took
    assert "not-tls" in here.gateway.reasons()
