"""Store and forward: what the agent has accepted arrives, whatever happens to the line, the disk and the agent."""

import json
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid

from tests.real.clients import Dcmtk, Pynetdicom
from tests.real.edge import Edge, Site, edge_command, edge_site
from tests.real.gateway import dicomward
from tests.real.hospital import direct_route, open_association
from tests.real.line import Line
from tests.real.recording_archive import COMMITMENT
from tests.real.samples import Sample, read_sample, sample

# `make edge-soak` says 10000 and 20.
OBJECTS = int(os.environ.get("DICOMWARD_EDGE_OBJECTS", "60"))
ROUNDS = int(os.environ.get("DICOMWARD_EDGE_ROUNDS", "3"))
SPOOL = """
[spool]
directory = "spool"
key = "../spool-key"
alarm_minutes = {alarm}
free_bytes = 0
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("spool")) as here:
        yield here


@pytest.fixture
def line(site: Site) -> Iterator[Line]:
    line = Line(site.gateway.port)
    yield line
    line.close()


def spooling(site: Site, directory: Path, line: Line, *, alarm: float = 15, more: str = "") -> Edge:
    (directory / "spool-key").write_bytes(bytes(range(32)))
    return site.edge(directory / "edge", upstream=line.port, store="spool", more=SPOOL.format(alarm=alarm) + more)


def copies(directory: Path, count: int) -> list[Sample]:
    """Return so many different images."""
    directory.mkdir()
    image = pydicom.dcmread(sample("CT_small.dcm").path)
    made = []
    for number in range(count):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            prefix="1.2.826.0.1.3680043.10.543.7."
        )
        image.InstanceNumber = number
        image.save_as(directory / f"{number:05}.dcm")
        read = read_sample(directory / f"{number:05}.dcm")
        assert read is not None
        made.append(read)
    return made


def arrived(site: Site) -> Counter[tuple[str, bytes]]:
    return Counter((each.sop_instance_uid, each.data_set) for each in site.archive.stored)


def wait_for(site: Site, samples: list[Sample], *, seconds: float = 20.0) -> None:
    wanted = {each.sop_instance_uid for each in samples}
    assert site.archive.wait_until(
        lambda: wanted <= {each.sop_instance_uid for each in site.archive.stored}, seconds=seconds
    ), f"not all have arrived: {len(wanted - {each.sop_instance_uid for each in site.archive.stored})} are missing"


def status(edge: Edge) -> tuple[int, dict[str, Any]]:
    done = dicomward("edge", "status", "--config", edge.configuration, "--json")
    return done.returncode, json.loads(done.stdout)


def files(edge: Edge, folder: str) -> list[Path]:
    return sorted((edge.directory / "spool" / folder).iterdir())


def wait_until_empty(edge: Edge, *, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while any(files(edge, folder) for folder in ("ready", "quarantine", "stored")):
        assert time.monotonic() < deadline, "the spool does not get empty"
        time.sleep(0.02)


def test_object_arrives_bit_identical_and_nothing_is_left(site: Site, line: Line, tmp_path: Path) -> None:
    edge = spooling(site, tmp_path, line)
    samples = [*copies(tmp_path / "images", 3), sample("MR_small.dcm")]
    compressed = [sample("JPEG2000.dcm"), sample("MR_small_RLE.dcm")]
    assert Dcmtk().store(edge.route(), samples).succeeded
    assert Pynetdicom().store(edge.route(), compressed).succeeded
    samples += compressed
    wait_for(site, samples)
    # The clients encode what they send anew, so what they send to the archive itself is what has to arrive.
    direct = direct_route(site.archive)
    assert Dcmtk().store(direct, samples[:4]).succeeded
    assert Pynetdicom().store(direct, compressed).succeeded
    twice = [(each.sop_instance_uid, each.transfer_syntax_uid, each.data_set) for each in site.archive.stored]
    assert set(Counter(twice).values()) == {2}, sorted(each[:2] for each in twice)
    wait_until_empty(edge)
    code, report = status(edge)
    assert code == 0
    assert report["running"] is True
    assert report["waiting"] == {}


def test_device_does_not_wait_for_a_line_that_is_down(site: Site, line: Line, tmp_path: Path) -> None:
    edge = spooling(site, tmp_path, line, alarm=0.01)
    samples = copies(tmp_path / "images", 4)
    assert Dcmtk().store(edge.route(), samples[:1]).succeeded
    wait_for(site, samples[:1])
    wait_until_empty(edge)
    line.cut()
    assert Dcmtk().store(edge.route(), samples[1:]).succeeded
    # A transfer syntax that the archive was never asked for is not accepted now.
    assert not Pynetdicom().store(edge.route(), [sample("US1_J2KR.dcm")]).succeeded
    content = b"".join(path.read_bytes() for path in files(edge, "ready"))
    assert samples[1].data_set[1000:1100] not in content
    assert samples[1].sop_instance_uid.encode() not in content
    assert edge.child is not None
    edge.child.wait_until_it_says(re.compile(r"ALARM ct1: 3 objects wait \(3 of them in quarantine\)"))
    code, report = status(edge)
    assert (code, report["overdue"]) == (1, ["ct1"])
    assert [each["state"] for each in report["quarantine"]] == ["overdue"] * 3
    assert len(files(edge, "quarantine")) == 3
    # Neither a restart nor an operator is needed, and neither does harm.
    edge.stop()
    edge.start()
    line.mend()
    wait_for(site, samples)
    wait_until_empty(edge)


def test_cuts_and_kills_lose_nothing(site: Site, line: Line, tmp_path: Path) -> None:
    chance = random.Random(20260101)
    edge = spooling(site, tmp_path, line)
    samples = copies(tmp_path / "images", OBJECTS)
    batch = OBJECTS // ROUNDS
    for step in range(ROUNDS):
        assert Dcmtk().store(edge.route(), samples[step * batch : (step + 1) * batch]).succeeded
        line.cut()
        line.mend()
        time.sleep(chance.random() * 0.2)
        assert edge.child is not None
        edge.child.process.kill()
        edge.child.process.wait()
        edge.start()
    wait_for(site, samples, seconds=20.0 + OBJECTS / 20)
    wait_until_empty(edge)
    own = {each.sop_instance_uid: each for each in samples}
    contents: dict[str, set[bytes]] = {}
    received = [each for each in site.archive.stored if each.sop_instance_uid in own]
    for each in received:
        contents.setdefault(each.sop_instance_uid, set()).add(each.data_set)
    assert all(len(versions) == 1 for versions in contents.values())
    # At a cut or kill at most 8 associations had 16 operations each in flight; only those may come twice.
    duplicates = len(received) - len(samples)
    print(f"{len(samples)} objects, {ROUNDS} cuts, {ROUNDS} kills: {duplicates} duplicates")
    assert duplicates <= 2 * ROUNDS * 8 * 16
    assert not files(edge, "quarantine")


def test_refused_object_is_kept_and_told(site: Site, line: Line, tmp_path: Path) -> None:
    edge = spooling(site, tmp_path, line)
    samples = copies(tmp_path / "images", 2)
    assert Dcmtk().store(edge.route(), samples[:1]).succeeded
    wait_for(site, samples[:1])
    wait_until_empty(edge)
    line.cut()
    assert Dcmtk().store(edge.route(), samples[1:]).succeeded
    # A suspended device is rejected: that may pass, so its objects wait.
    site.gateway.must("device", "suspend", "ct1")
    line.mend()
    assert edge.child is not None
    edge.child.wait_until_it_says(re.compile("upstream: .*"))
    assert len(files(edge, "ready")) == 1
    site.gateway.must("device", "resume", "ct1")
    wait_for(site, samples)
    wait_until_empty(edge)
    # A damaged file is nothing that anybody would take: it is kept, and told.
    line.cut()
    (damaged,) = copies(tmp_path / "more", 1)
    assert Dcmtk().store(edge.route(), [damaged]).succeeded
    edge.stop()
    (path,) = files(edge, "ready")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    line.mend()
    edge.start()
    edge.child.wait_until_it_says(re.compile("ALARM ct1: .* was refused for good"))
    code, report = status(edge)
    assert code == 1
    assert "damaged" in str(report["quarantine"])
    assert not files(edge, "ready")
    # What was wrong is mended, and the agent that runs sends it.
    (path,) = (each for each in files(edge, "quarantine") if each.suffix == ".dw")
    content[-1] ^= 1
    path.write_bytes(content)
    done = edge_command("retry", "--config", edge.configuration)
    assert (done.returncode, done.stdout) == (0, "1 objects are sent again\n")
    wait_for(site, [damaged])
    wait_until_empty(edge)


def test_full_spool_refuses_and_keeps_what_was_accepted(site: Site, line: Line, tmp_path: Path) -> None:
    edge = spooling(site, tmp_path, line, more="quota_bytes = 1048576\n")
    samples = copies(tmp_path / "images", 40)
    assert Dcmtk().store(edge.route(), samples[:1]).succeeded
    wait_for(site, samples[:1])
    wait_until_empty(edge)
    line.cut()
    done = Dcmtk().store(edge.route(), samples[1:])
    assert not done.succeeded
    kept = len(files(edge, "ready"))
    assert 20 < kept < 39
    line.mend()
    wait_for(site, samples[1 : 1 + kept])
    wait_until_empty(edge)


def test_queries_of_the_same_device_pass_through(site: Site, line: Line, tmp_path: Path) -> None:
    edge = spooling(site, tmp_path, line)
    assert Dcmtk().echo(edge.route()).succeeded
    assert Dcmtk().worklist(edge.route()).succeeded
    assert Dcmtk().find(edge.route(), {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}).succeeded
    assert not Dcmtk().store(replace(edge.route(), calling_ae_title="OTHER"), [sample("CT_small.dcm")]).succeeded


def test_commitment_is_asked_for_when_the_archive_has_everything(site: Site, line: Line, tmp_path: Path) -> None:
    edge = spooling(site, tmp_path, line)
    samples = copies(tmp_path / "images", 2)
    assert Dcmtk().store(edge.route(), samples[:1]).succeeded
    wait_until_empty(edge)
    line.cut()
    assert Dcmtk().store(edge.route(), samples[1:]).succeeded
    asked = threading.Thread(target=lambda: outcome.append(open_association(edge.route(), COMMITMENT)))
    outcome: list[Any] = []
    asked.start()
    asked.join(0.5)
    assert asked.is_alive()
    line.mend()
    asked.join(20.0)
    # It stands, and the archive had the object by then.
    assert samples[1].sop_instance_uid in {each.sop_instance_uid for each in site.archive.stored}
    outcome[0].release()


def test_second_agent_on_one_spool_does_not_start(site: Site, line: Line, tmp_path: Path) -> None:
    edge = spooling(site, tmp_path, line)
    done = edge_command("--config", edge.configuration)
    assert done.returncode == 1
    assert "another agent uses" in done.stderr
