"""Several archives, archives that are away, and archives behind TLS."""

import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.real import raw_peer as raw
from tests.real.clients import Dcmtk, Outcome, Pynetdicom, Route
from tests.real.gateway import Gateway, dicomward
from tests.real.hospital import Hospital, credentials_of, hospital, open_association
from tests.real.pki import Authority, Credentials
from tests.real.processes import LOOPBACK, free_port
from tests.real.recording_archive import VERIFICATION, RecordingArchive
from tests.real.samples import sample
from tests.real.servers import Orthanc
from tests.real.site import ARCHIVE, study_of, worklist_item

CT = sample("CT_small.dcm")
# PS3.8 §9.3.4: transient, by the presentation provider, temporary congestion: "try again later".
TRY_LATER = Outcome(succeeded=False, statuses=("rejected 2/3/1",))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hospital]:
    with hospital(tmp_path) as running:
        yield running


def test_archive_is_chosen_by_the_called_ae_title(here: Hospital) -> None:
    """A worklist broker beside the PACS, added while the gateway runs, under a name that devices type for it."""
    scanner = here.device("scanner", "SCANNER")
    with RecordingArchive("BROKER") as broker:
        broker.worklist = [worklist_item(1)]
        target = f"BROKER@{LOOPBACK}:{broker.port}"
        here.gateway.must("archive", "add", "broker", target, "--called", "WORKLIST", "--called", "RIS")
        for title in ("WORKLIST", "RIS"):
            found = Pynetdicom().worklist(replace(scanner, called_ae_title=title))
            assert found.succeeded
            assert len(found.matches) == 1
        assert Pynetdicom().store(scanner, [CT]).succeeded
        assert [stored.sop_instance_uid for stored in here.archive.stored] == [CT.sop_instance_uid]
        assert broker.stored == []
        # The broker sees its own title, whatever the devices call it; the PACS was never called.
        assert set(broker.associations.requested) == {("SCANNER", "BROKER")}
        assert set(here.archive.associations.requested) == {("SCANNER", ARCHIVE)}

        here.gateway.must("archive", "remove", "broker")
        gone = Pynetdicom().worklist(replace(scanner, called_ae_title="WORKLIST"))
        assert gone.statuses == ("rejected 1/1/7",)
        assert Pynetdicom().echo(scanner).succeeded


def test_archive_that_is_away_gets_the_device_a_transient_rejection_and_the_log_says_why(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "gateway", archive=ARCHIVE, archive_port=free_port())
    try:
        scanner = gateway.route(gateway.add_device("scanner", "SCANNER", role="modality"), "SCANNER")
        gateway.start()
        assert Pynetdicom().echo(scanner) == TRY_LATER
        denied = [record for record in gateway.audit() if record.get("reason") == "upstream-unreachable"]
        assert denied
        assert "refused" in str(denied[0]["detail"]).lower()
        assert "upstream-unreachable" in gateway.must("audit", "search")

        files = credentials_of(scanner)
        options: list[str | Path] = ["--cert", files.certificate, "--key", files.key, "--ca", files.authority]
        done = dicomward("echo", LOOPBACK, str(scanner.port), "-aet", "SCANNER", "-aec", ARCHIVE, *options)
        assert done.returncode == 1
        assert "2/3/1" in done.stderr or "congestion" in done.stderr, done.stderr
    finally:
        gateway.stop()


def test_archive_that_goes_away_and_comes_back(here: Hospital) -> None:
    scanner = here.device("scanner", "SCANNER")
    open_one = open_association(scanner, VERIFICATION)
    assert open_one.send_c_echo().get("Status") == 0
    with here.archive.away():
        open_one.join(timeout=20)
        assert open_one.is_aborted
        assert Pynetdicom().echo(scanner) == TRY_LATER
    assert Pynetdicom().echo(scanner).succeeded


@pytest.mark.parametrize("way", ["silent", "closes", "aborts"])
def test_archive_that_does_not_answer_the_request_is_not_waited_for_for_ever(tmp_path: Path, way: str) -> None:
    with raw.RawArchive() as archive, ExitStack() as stack:
        gateway = Gateway(tmp_path / "gateway", archive=ARCHIVE, archive_port=archive.port)
        try:
            gateway.configure("gateway", upstream_connect_seconds=1.0, artim_seconds=1.0)
            scanner = gateway.route(gateway.add_device("scanner", "SCANNER", role="modality"), "SCANNER")
            gateway.start()
            device = stack.enter_context(raw.connect(scanner))
            device.send(raw.request_on(scanner, {1: (VERIFICATION, [raw.IMPLICIT])}))
            behind = stack.enter_context(archive.accept())
            behind.expect(raw.ASSOCIATE_RQ)
            if way == "closes":
                behind.socket.close()
            elif way == "aborts":
                behind.send(raw.pdu(raw.ABORT, b"\0\0\2\0"))
            assert device.expect(raw.ASSOCIATE_RJ).numbers == "2/3/1"
            assert {"upstream-unreachable", "upstream-aborted"} & gateway.reasons()
        finally:
            gateway.stop()


class SecureSite:
    """What an archive behind TLS needs: its own certificate, and trust in the gateway's authority."""

    def __init__(self, directory: Path) -> None:
        self._authority = Authority("Archive CA", directory / "pki")
        self.archive = self._authority.issue("archive")
        self.port = free_port()
        self.gateway_directory = directory / "gateway"

    def gateway(self, pin: Path) -> Gateway:
        """Make a gateway that takes the archive for what shows this certificate."""
        options: list[str | Path] = ["--pacs-tls", "--pacs-pin", pin]
        return Gateway(self.gateway_directory, archive=ARCHIVE, archive_port=self.port, options=options)

    def listening(self, gateway: Gateway) -> Credentials:
        """Return what the archive listens with: its certificate, and the gateway's authority as the one to trust."""
        return replace(self.archive, authority=gateway.directory / "ca" / "ca.cert.pem")

    def another_certificate(self) -> Path:
        """Return a certificate of the archive's own authority that is not the archive's."""
        return self._authority.issue("somebody-else").certificate


def _scanner(gateway: Gateway) -> Route:
    return gateway.route(gateway.add_device("scanner", "SCANNER", role="tester"), "SCANNER")


def test_orthanc_behind_mutual_tls_is_reached_with_its_pinned_certificate(tmp_path: Path) -> None:
    secure = SecureSite(tmp_path)
    gateway = secure.gateway(secure.archive.certificate)
    with ExitStack() as stack:
        stack.callback(gateway.stop)
        gateway.permit_everything_to("tester")
        orthanc = Orthanc(
            ARCHIVE, tmp_path / "orthanc", modalities={}, credentials=secure.listening(gateway), port=secure.port
        )
        stack.callback(orthanc.stop)
        scanner = _scanner(gateway)
        gateway.start()
        assert Dcmtk().store(scanner, [CT]).succeeded
        assert Pynetdicom().find(scanner, {"QueryRetrieveLevel": "STUDY", "PatientID": "1CT1"}).succeeded
        # Nobody without the gateway's certificate gets in at the archive itself.
        direct = Route(port=secure.port, calling_ae_title="SCANNER", called_ae_title=ARCHIVE)
        assert not Pynetdicom().echo(direct).succeeded


def _nested(depth: int) -> bytes:
    """Return a data set of an image with sequences in sequences, all without a length."""
    opened = struct.pack("<HHIHHI", 0x0008, 0x1140, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    closed = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    head = raw.element(0x0008, 0x0016, f"{CT.sop_class_uid}\0") + raw.element(0x0008, 0x0018, "1.2.3.4\0")
    names = raw.element(0x0010, 0x0020, "P1") + raw.element(0x0020, 0x000D, "1.2.3\0")
    return head + opened * depth + closed * depth + names + raw.element(0x0020, 0x000E, "1.2.3.1\0")


def test_orthanc_does_not_see_what_is_nested_too_deep(tmp_path: Path) -> None:
    """An Orthanc 1.10.1 that gets it ends by SIGSEGV, here and without the gateway."""
    with ExitStack() as stack:
        orthanc = Orthanc(ARCHIVE, tmp_path / "orthanc", modalities={})
        stack.callback(orthanc.stop)
        gateway = Gateway(tmp_path / "gateway", archive=ARCHIVE, archive_port=orthanc.port)
        stack.callback(gateway.stop)
        gateway.configure("gateway", most_nested_sequences=64)
        scanner = gateway.route(gateway.add_device("scanner", "SCANNER", role="modality"), "SCANNER")
        gateway.start()
        for depth, kinds in ((64, {raw.P_DATA}), (20_000, {raw.ABORT})):
            device = stack.enter_context(raw.connect(scanner))
            device.send(raw.request_on(scanner, {1: (CT.sop_class_uid, [raw.IMPLICIT])}))
            device.expect(raw.ASSOCIATE_AC)
            data = _nested(depth)
            chunks = [data[at : at + 8000] for at in range(0, len(data), 8000)]
            device.send(raw.store_rq(1, CT.sop_class_uid, "1.2.3.4"))
            with suppress(OSError):
                for chunk in chunks:
                    device.send(raw.p_data(1, chunk, command=False, last=chunk is chunks[-1]))
            received = device.receive()
            assert received is not None
            assert {received.kind} == kinds
        assert "nested more than 64 deep" in str(gateway.audit("--code", "DW-ASSOC-END"))
        assert orthanc.child.process.poll() is None


def test_archive_that_shows_another_certificate_than_the_pinned_one_gets_nothing(tmp_path: Path) -> None:
    secure = SecureSite(tmp_path)
    gateway = secure.gateway(secure.another_certificate())
    try:
        gateway.permit_everything_to("tester")
        with RecordingArchive(ARCHIVE, credentials=secure.listening(gateway), port=secure.port) as archive:
            scanner = _scanner(gateway)
            gateway.start()
            assert Pynetdicom().store(scanner, [CT]) == TRY_LATER
            assert archive.associations.requested == []
            assert "upstream-not-trusted" in gateway.reasons()
    finally:
        gateway.stop()


def test_archive_that_speaks_no_tls_although_it_should_gets_nothing(tmp_path: Path) -> None:
    secure = SecureSite(tmp_path)
    gateway = secure.gateway(secure.archive.certificate)
    try:
        gateway.permit_everything_to("tester")
        with RecordingArchive(ARCHIVE, port=secure.port) as archive:
            scanner = _scanner(gateway)
            gateway.start()
            assert Pynetdicom().echo(scanner) == TRY_LATER
            assert archive.associations.requested == []
    finally:
        gateway.stop()


def test_move_from_an_archive_whose_both_ways_are_tls(tmp_path: Path) -> None:
    """The archive calls the gateway's archive side over TLS, with the certificate that is pinned for it."""
    secure = SecureSite(tmp_path)
    gateway = secure.gateway(secure.archive.certificate)
    with ExitStack() as stack:
        stack.callback(gateway.stop)
        gateway.permit_everything_to("tester")
        gateway.trust(secure.archive.authority)
        gateway.configure("gateway", archive_listen_tls=True)
        own = secure.listening(gateway)
        archive = RecordingArchive(ARCHIVE, credentials=own, port=secure.port, calls_with=own)
        archive.destinations["STATION"] = gateway.archive_port
        archive.hold(CT)
        stack.enter_context(archive)
        port = free_port()
        station = gateway.add_device("station", "STATION", role="tester", address=port)
        destination = stack.enter_context(RecordingArchive("STATION", credentials=station, port=port))
        scanner = _scanner(gateway)
        gateway.start()
        assert Pynetdicom().move(scanner, study_of(CT), "STATION") == Outcome(succeeded=True, statuses=("0000",))
        assert [stored.sop_instance_uid for stored in destination.stored] == [CT.sop_instance_uid]
        # The archive's title is not enough: a device's certificate doesn't make it the archive.
        pretender = replace(scanner, port=gateway.archive_port, calling_ae_title=ARCHIVE, called_ae_title="STATION")
        assert not Pynetdicom().echo(pretender).succeeded
        assert len(destination.stored) == 1
