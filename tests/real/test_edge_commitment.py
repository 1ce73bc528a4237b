"""Deletion follows Storage Commitment: the agent asks for it, and keeps what the archive has not committed to."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from tests.real.clients import Dcmtk
from tests.real.edge import Edge, Site, edge_site
from tests.real.line import Line
from tests.real.samples import Sample
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
