"""Deletion follows Storage Commitment: the agent asks for it, and keeps what the archive has not committed to."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID

from tests.real.clients import Dcmtk, Pynetdicom
from tests.real.edge import Edge, Site, edge_site
from tests.real.gateway import Gateway
from tests.real.hospital import TESTER, open_association
from tests.real.line import Line
from tests.real.processes import LOOPBACK, free_port
from tests.real.recording_archive import COMMITMENT, COMMITMENT_INSTANCE, RecordingArchive
from tests.real.samples import Sample, sample
from tests.real.servers import Orthanc
from tests.real.site import ARCHIVE, study_of
from tests.real.test_edge_spool import SPOOL, arrived, copies, files, status, wait_for, wait_until_empty


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("commitment")) as here:
        yield here


@pytest.fixture
def line(site: Site) -> Iterator[Line]:
    line = Line(site.gateway.port)
    yield line
    line.close()


def spooling(site: Site, directory: Path, line: Line, *, commitment: str = "if-offered") -> Edge:
    (directory / "spool-key").write_bytes(bytes(range(32)))
    more = SPOOL.format(alarm=15) + f'commitment = "{commitment}"\n'
    return site.edge(directory / "edge", upstream=line.port, store="spool", more=more)


def actions(site: Site, samples: list[Sample]) -> int:
    return sum(
        each.operation == "N-ACTION" and any(uid.sop_instance_uid.encode() in each.data_set for uid in samples)
        for each in site.archive.messages
    )


def test_object_is_deleted_when_the_archive_has_committed_to_it(
    site: Site, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_report = threading.Event()
    report_here = site.archive._report_here

    def late(association: Any, report: Dataset) -> None:
        assert may_report.wait(60)
        if association.is_established:
            report_here(association, report)

    monkeypatch.setattr(site.archive, "_report_here", late)
    edge = spooling(site, tmp_path, line)
    samples = copies(tmp_path / "images", 3)
    assert Dcmtk().store(edge.route(), samples).succeeded
    wait_for(site, samples)
    assert site.archive.wait_until(lambda: actions(site, samples) > 0)
    assert len(files(edge, "stored")) == 3
    code, report = status(edge)
    assert (code, report["uncommitted"]["ct1"]["objects"]) == (0, 3)
    # The agent is killed while the archive thinks: it asks again, and sends nothing again.
    assert edge.child is not None
    edge.child.process.kill()
    edge.child.process.wait()
    edge.start()
    may_report.set()
    wait_until_empty(edge)
    own = {each.sop_instance_uid for each in samples}
    assert {uid: count for (uid, _data), count in arrived(site).items() if uid in own} == dict.fromkeys(own, 1)
    assert actions(site, samples) >= 2


def test_report_may_come_on_a_later_association(site: Site, line: Line, tmp_path: Path) -> None:
    samples = copies(tmp_path / "images", 1)
    site.archive.commitment_reports_wait = True
    try:
        edge = spooling(site, tmp_path, line)
        assert Dcmtk().store(edge.route(), samples).succeeded
        assert site.archive.wait_until(lambda: actions(site, samples) > 0)
        line.cut()
        line.mend()
        wait_until_empty(edge)
    finally:
        site.archive.commitment_reports_wait = False
    assert actions(site, samples) == 1


def test_failed_commitment_sends_the_object_again(
    site: Site, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_here = site.archive._report_here
    failures = iter([True, False])

    def first_fails(association: Any, report: Dataset) -> None:
        if next(failures, False):
            report.FailedSOPSequence = report.ReferencedSOPSequence
            for each in report.FailedSOPSequence:
                each.FailureReason = 0x0112
            del report.ReferencedSOPSequence
        report_here(association, report)

    monkeypatch.setattr(site.archive, "_report_here", first_fails)
    edge = spooling(site, tmp_path, line)
    samples = copies(tmp_path / "images", 1)
    assert Dcmtk().store(edge.route(), samples).succeeded
    (uid,) = (each.sop_instance_uid for each in samples)
    assert site.archive.wait_until(lambda: sum(each.sop_instance_uid == uid for each in site.archive.stored) == 2)
    wait_until_empty(edge)


def test_archive_without_commitment_is_taken_at_its_word_unless_it_is_required(
    site: Site, line: Line, tmp_path: Path
) -> None:
    # Who may not ask has no commitment: the gateway's policy is the archive's for the agent.
    policy = site.gateway.directory / "policy.toml"
    before = policy.read_text("utf-8")
    denied = '\n[[rule]]\nid = "nothing-committed"\neffect = "deny"\nservice = ["storage-commitment"]\n'
    policy.write_text(before + denied, "utf-8")
    site.gateway.must("reload")
    try:
        (tmp_path / "offered").mkdir()
        edge = spooling(site, tmp_path / "offered", line)
        samples = copies(tmp_path / "images", 2)
        assert Dcmtk().store(edge.route(), samples[:1]).succeeded
        wait_for(site, samples[:1])
        wait_until_empty(edge)
        (tmp_path / "required").mkdir()
        strict = spooling(site, tmp_path / "required", line, commitment="required")
        assert Dcmtk().store(strict.route(), samples[1:]).succeeded
        assert strict.child is not None
        strict.child.wait_until_it_says(re.compile("commitment: the archive doesn.t offer it, and it is required"))
        assert len(files(strict, "stored")) == 1
    finally:
        policy.write_text(before, "utf-8")
        site.gateway.must("reload")
    wait_until_empty(strict, seconds=40.0)


def own_reports(site: Site, directory: Path, line: Line, more: str) -> Edge:
    """Run an agent that reports on associations of their own reach."""
    (directory / "spool-key").write_bytes(bytes(range(32)))
    edge = site.edge(directory / "edge", upstream=line.port, store="spool", more=more + SPOOL.format(alarm=15))
    assert edge.child is not None
    edge.child.wait_until_it_says(re.compile("a reverse connection stands"))
    return edge


def wait_until_committed(edge: Edge, count: int) -> None:
    deadline = time.monotonic() + 40
    while (told := status(edge)[1]["devices"]["ct1"])["committed"] < count:
        assert time.monotonic() < deadline, (told, edge.child and edge.child.tail())
        time.sleep(0.1)


def test_archive_that_reports_on_an_association_of_its_own_reaches_the_agent(
    site: Site, line: Line, tmp_path: Path
) -> None:
    site.gateway.must("device", "address", "ct1", "reverse")
    site.archive.commitment_reports_to = ("CT1", site.gateway.archive_port)
    try:
        # The device itself listens nowhere.
        edge = own_reports(site, tmp_path, line, "reverse_connections = 1\n")
        before = len(site.archive.report_statuses)
        samples = copies(tmp_path / "images", 3)
        assert Dcmtk().store(edge.route(), samples).succeeded
        wait_for(site, samples)
        wait_until_committed(edge, 3)
        assert files(edge, "stored") == []
        asked = actions(site, samples)
        assert site.archive.wait_until(lambda: len(site.archive.report_statuses) >= before + asked)
        assert set(site.archive.report_statuses[before:]) == {0x0000}
    finally:
        site.archive.commitment_reports_to = None


def test_device_gets_its_own_report_and_images_through_the_same_agent(site: Site, line: Line, tmp_path: Path) -> None:
    site.gateway.must("device", "address", "ct1", "reverse")
    site.archive.commitment_reports_to = ("CT1", site.gateway.archive_port)
    site.archive.destinations["CT1"] = site.gateway.archive_port
    image = sample("CT_small.dcm")
    site.archive.hold(image)
    try:
        with RecordingArchive("CT1") as listener:
            edge = own_reports(site, tmp_path, line, f'address = "{LOOPBACK}:{listener.port}"\n')
            samples = copies(tmp_path / "images", 1)
            assert Dcmtk().store(edge.route(), samples).succeeded
            wait_for(site, samples)
            # The agent's own, and the device's.
            wait_until_empty(edge)
            assert listener.messages == []
            association = open_association(edge.route(), COMMITMENT)
            item, request = Dataset(), Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
            request.TransactionUID, request.ReferencedSOPSequence = "1.2.826.0.1.3680043.10.543.78.1", [item]
            told, _ = association.send_n_action(request, 1, UID(COMMITMENT), UID(COMMITMENT_INSTANCE))
            assert told.Status == 0x0000
            association.release()
            assert listener.wait_until(lambda: listener.messages)
            (report,) = listener.messages
            assert (report.operation, b"543.78.1" in report.data_set) == ("N-EVENT-REPORT", True)
            # What isn't a report goes to the device as it is.
            assert Pynetdicom().move(edge.route(), study_of(image), "CT1").succeeded
            assert [each.sop_instance_uid for each in listener.stored] == [image.sop_instance_uid]
    finally:
        site.archive.commitment_reports_to = None
        del site.archive.destinations["CT1"]


def test_orthanc_reports_on_its_own_association_and_the_object_is_deleted(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port = free_port()
        orthanc = Orthanc(ARCHIVE, tmp_path / "orthanc", modalities={"CT1": port})
        stack.callback(orthanc.stop)
        gateway = Gateway(tmp_path / "gateway", archive=ARCHIVE, archive_port=orthanc.port, archive_listen_port=port)
        stack.callback(gateway.stop)
        gateway.permit_everything_to(TESTER)
        gateway.start()
        credentials = gateway.add_device("ct1", "CT1", role=TESTER)
        gateway.must("device", "address", "ct1", "reverse")
        (tmp_path / "spool-key").write_bytes(bytes(range(32)))
        more = "reverse_connections = 1\n" + SPOOL.format(alarm=15)
        edge = Edge(tmp_path / "edge", gateway.port, credentials, store="spool", more=more)
        stack.callback(edge.stop)
        edge.start()
        assert edge.child is not None
        edge.child.wait_until_it_says(re.compile("a reverse connection stands"))
        assert Dcmtk().store(edge.route(), copies(tmp_path / "images", 2)).succeeded
        wait_until_committed(edge, 2)
        assert files(edge, "stored") == []
