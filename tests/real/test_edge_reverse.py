"""A device behind its agent, which nobody can reach: the gateway calls it over connections of the agent's own."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID

from tests.real.clients import Outcome, Pynetdicom, Route
from tests.real.edge import Edge, Site, edge_site
from tests.real.gateway import dicomward
from tests.real.hospital import TESTER, open_association
from tests.real.processes import LOOPBACK
from tests.real.recording_archive import COMMITMENT, COMMITMENT_INSTANCE, RecordingArchive
from tests.real.samples import sample
from tests.real.servers import StoreScp
from tests.real.site import study_of

CT, MR = sample("CT_small.dcm"), sample("MR_small.dcm")
STANDS = re.compile("a reverse connection stands")
TRANSACTION = "1.2.826.0.1.3680043.10.543.77.1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("reverse")) as here:
        here.gateway.must("device", "address", "ct1", "reverse")
        here.archive.hold(CT)
        here.archive.hold(MR)
        here.archive.destinations["CT1"] = here.gateway.archive_port
        yield here


@pytest.fixture(scope="module")
def reader(site: Site) -> Route:
    return site.gateway.route(site.gateway.add_device("reader", "READER", role=TESTER), "READER")


@contextmanager
def behind(site: Site, directory: Path, port: int) -> Iterator[Edge]:
    """Run an agent whose device listens at this port of its own machine."""
    edge = site.edge(directory / "edge", more=f'address = "{LOOPBACK}:{port}"\n')
    assert edge.child is not None
    edge.child.wait_until_it_says(STANDS)
    try:
        yield edge
    finally:
        edge.stop()


def reverse(site: Site, action: str, device: str = "ct1") -> list[dict[str, Any]]:
    events = site.gateway.audit("--code", "DW-REVERSE", "--device", device)
    return [each for each in events if each["action"] == action]


def test_images_arrive_at_a_device_that_has_no_reachable_port(site: Site, reader: Route, tmp_path: Path) -> None:
    listener = StoreScp("CT1", tmp_path / "received")
    try:
        with behind(site, tmp_path, listener.port) as edge:
            for image in (CT, MR):
                outcome = Pynetdicom().move(reader, study_of(image), "CT1")
                assert outcome == Outcome(succeeded=True, statuses=("0000",))
            assert {kept.sop_instance_uid for kept in listener.kept()} == {CT.sop_instance_uid, MR.sop_instance_uid}
            # The device itself asks for it as well, through the same agent.
            assert Pynetdicom().move(edge.route(), study_of(CT), "CT1").succeeded
            # A mini-PC that loses its power, and comes back: what was parked is dead.
            assert edge.child is not None
            edge.child.process.kill()
            edge.child.process.wait()
            edge.start()
            assert Pynetdicom().move(reader, study_of(CT), "CT1").succeeded
    finally:
        listener.stop()
    used = reverse(site, "used")
    assert len(used) >= 4
    allowed = site.gateway.audit("--code", "DW-ASSOC-ALLOW")
    assert {each["association"] for each in used} <= {each["association"] for each in allowed}
    done = dicomward("edge", "status", "--config", edge.configuration)
    assert re.search(r"ct1: .* reverse connections: \d parked, \d used", done.stdout), done.stdout


def test_report_of_storage_commitment_comes_on_a_reverse_association(site: Site, tmp_path: Path) -> None:
    with RecordingArchive("CT1") as listener, behind(site, tmp_path, listener.port) as edge:
        site.archive.commitment_reports_to = ("CT1", site.gateway.archive_port)
        association = open_association(edge.route(), COMMITMENT)
        item, request = Dataset(), Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT.sop_class_uid, CT.sop_instance_uid
        request.TransactionUID, request.ReferencedSOPSequence = TRANSACTION, [item]
        status, _ = association.send_n_action(request, 1, UID(COMMITMENT), UID(COMMITMENT_INSTANCE))
        assert status.Status == 0x0000
        association.release()
        assert listener.wait_until(lambda: listener.messages)
        site.archive.commitment_reports_to = None
        (report,) = listener.messages
        assert (report.operation, report.called_ae_title) == ("N-EVENT-REPORT", "CT1")
        assert TRANSACTION.encode() in report.data_set
        assert site.archive.wait_until(lambda: site.archive.report_statuses)
        assert site.archive.report_statuses[-1] == 0x0000


def test_without_an_agent_a_move_fails_as_at_a_device_that_does_not_answer(site: Site, reader: Route) -> None:
    outcome = Pynetdicom().move(reader, study_of(CT), "CT1")
    assert not outcome.succeeded
    denied = site.gateway.audit("--code", "DW-ASSOC-DENY", "--reason", "upstream-unreachable")
    assert "no reverse connection of 'ct1' within 5 s" in denied[-1]["detail"]


def test_nobody_else_gets_what_is_for_the_device(site: Site, reader: Route, tmp_path: Path) -> None:
    other = site.gateway.add_device("ct2", "CT2", role=TESTER)
    site.gateway.must("device", "address", "ct2", "reverse")
    listener = StoreScp("CT1", tmp_path / "received")
    known, site.credentials = site.credentials, other
    try:
        # It calls itself CT1, as its settings may say, and shows its own certificate.
        with behind(site, tmp_path, listener.port):
            assert not Pynetdicom().move(reader, study_of(CT), "CT1").succeeded
            assert listener.kept() == []
    finally:
        site.credentials = known
        listener.stop()
    assert reverse(site, "parked", "ct2")
    assert not reverse(site, "used", "ct2")


def test_device_that_is_not_registered_for_it_parks_nothing(site: Site, tmp_path: Path) -> None:
    known, site.credentials = site.credentials, site.gateway.add_device("ct3", "CT3", role=TESTER)
    try:
        with behind(site, tmp_path, 9) as edge:
            assert edge.child is not None
            edge.child.wait_until_it_says(re.compile("the gateway has ended it at once"))
    finally:
        site.credentials = known
    assert "reverse-not-registered" in site.gateway.reasons()
    assert not reverse(site, "parked", "ct3")


def test_suspending_closes_what_is_parked_before_the_command_returns(site: Site, tmp_path: Path) -> None:
    with behind(site, tmp_path, 9) as edge:
        before = len(reverse(site, "closed"))
        site.gateway.must("device", "suspend", "ct1")
        closed = reverse(site, "closed")[before:]
        assert len(closed) == 2
        assert {each["reason"] for each in closed} == {"device-suspended"}
        assert edge.child is not None
        edge.child.wait_until_it_says(re.compile("TLS closed|connection closed"))
        site.gateway.must("device", "resume", "ct1")
        deadline = time.monotonic() + 20
        while "2 parked" not in dicomward("edge", "status", "--config", edge.configuration).stdout:
            assert time.monotonic() < deadline, edge.child.tail()
