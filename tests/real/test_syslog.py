"""The standard's audit messages, from real traffic through the gateway into a real rsyslog."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from tests.audit.schema import assert_valid
from tests.real.clients import Dcmtk, Pynetdicom
from tests.real.gateway import Gateway
from tests.real.pki import Authority, Credentials
from tests.real.processes import LOOPBACK
from tests.real.recording_archive import RecordingArchive
from tests.real.rsyslog import Rsyslog
from tests.real.samples import sample
from tests.real.servers import need
from tests.real.site import ARCHIVE, study_of

DICOM = "DICOM+RFC3881"


@dataclass(slots=True)
class Place:
    """A gateway that sends its audit messages to an rsyslog."""

    gateway: Gateway
    archive: RecordingArchive
    rsyslog: Rsyslog
    ours: Credentials

    def messages(self, event_id: str) -> list[Any]:
        found = [etree.fromstring(each.msg.encode()) for each in self.rsyslog.of(DICOM)]
        return [each for each in found if each.find("EventIdentification/EventID").get("csd-code") == event_id]

    def wait_for(self, event_id: str, count: int = 1) -> list[Any]:
        self.rsyslog.wait_until(lambda: len(self.messages(event_id)) >= count, f"{count} messages {event_id}")
        return self.messages(event_id)


def send_to(gateway: Gateway, rsyslog: Rsyslog, ours: Credentials, **values: str) -> None:
    """Let a gateway send its audit messages, before it starts."""
    lines = {
        "address": f"{LOOPBACK}:{rsyslog.port}",
        "ca": str(ours.authority),
        "certificate": str(ours.certificate),
        "key": str(ours.key),
        **values,
    }
    with gateway.configuration.open("a", encoding="utf-8") as configuration:
        configuration.write("\n[[audit.syslog]]\n" + "".join(f'{key} = "{value}"\n' for key, value in lines.items()))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    need(Path("/usr/sbin/rsyslogd"), "rsyslog rsyslog-gnutls")
    authority = Authority("Audit CA", tmp_path / "pki")
    rsyslog = Rsyslog(tmp_path / "rsyslog", authority.issue("receiver", key="rsa"))
    ours = authority.issue("gateway")
    with ExitStack() as stack:
        stack.callback(rsyslog.stop)
        rsyslog.start()
        archive = stack.enter_context(RecordingArchive(ARCHIVE))
        gateway = Gateway(tmp_path / "gateway", archive=ARCHIVE, archive_port=archive.port)
        stack.callback(gateway.stop)
        gateway.permit_everything_to("tester")
        send_to(gateway, rsyslog, ours)
        yield Place(gateway, archive, rsyslog, ours)


def test_a_day_of_traffic_arrives_as_valid_messages(place: Place) -> None:
    scanner = place.gateway.add_device("ct1", "CT1", role="modality")
    reader = place.gateway.add_device("ws1", "WS1", role="tester")
    place.gateway.start()
    images = [sample("CT_small.dcm"), sample("MR_small.dcm")]
    assert Dcmtk().store(place.gateway.route(scanner, "CT1"), images).succeeded
    study = study_of(images[0])
    for image in images:
        place.archive.hold(image)
    route = place.gateway.route(reader, "WS1")
    Pynetdicom().find(route, {"QueryRetrieveLevel": "STUDY", "PatientID": "1CT1", "StudyInstanceUID": ""})
    assert Pynetdicom().get(route, study).succeeded
    assert not Pynetdicom().find(place.gateway.route(scanner, "CT1"), {"QueryRetrieveLevel": "STUDY"}).succeeded
    place.gateway.stop()
    place.wait_for("110100", 2)

    for each in place.rsyslog.of(DICOM):
        assert_valid(each.msg.encode())
        assert each.pri in ("85", "84")
    told = place.messages("110104")
    patients = [each.xpath("ParticipantObjectIdentification[@ParticipantObjectTypeCode='1']") for each in told]
    assert all(len(each) == 1 for each in patients)
    stored = {
        each[0].get("ParticipantObjectID")
        for each, message in zip(patients, told, strict=True)
        if message.find("EventIdentification").get("EventActionCode") == "C"
    }
    assert stored == {"1CT1", "4MR1"}
    assert place.messages("110102")
    assert len(place.messages("110112")) == 1
    assert [each.find("EventIdentification/EventTypeCode").get("csd-code") for each in place.messages("110113")]
    assert place.rsyslog.of("DICOMWARD+HEAD")


def test_an_hour_without_the_receiver_loses_nothing_and_keeps_the_order(place: Place) -> None:
    scanner = place.gateway.add_device("ct1", "CT1", role="modality")
    place.gateway.start()
    route = place.gateway.route(scanner, "CT1")
    assert Dcmtk().echo(route).succeeded
    place.wait_for("110114", 2)
    place.rsyslog.stop()
    # What an hour brings: many records, of which the log's own disk is the spool.
    for _ in range(30):
        assert Pynetdicom().echo(route).succeeded
    # The gateway is killed as well, and starts while the receiver is still away.
    place.gateway.signal(signal.SIGKILL)
    place.gateway.stop()
    place.gateway.start()
    assert Pynetdicom().echo(route).succeeded
    place.rsyslog.start()
    place.wait_for("110114", 64)
    place.gateway.stop()
    place.wait_for("110100", 3)
    allowed = [each["time"] for each in place.gateway.audit("--code", "DW-ASSOC-ALLOW")]
    arrived = [
        each.find("EventIdentification").get("EventDateTime")
        for each in place.messages("110114")
        if each.find("EventIdentification/EventTypeCode").get("csd-code") == "110122"
    ]
    # At least once: what was in doubt may be there again, but in order, and nothing is missing.
    assert list(dict.fromkeys(arrived)) == allowed
    status = place.gateway.audit("--code", "DW-AUDIT-LOST")
    assert len(status) <= 1


def test_who_is_not_the_receiver_gets_nothing(place: Place, tmp_path: Path) -> None:
    text = place.gateway.configuration.read_text("utf-8")
    place.gateway.configuration.write_text(text + 'server_name = "other.example"\n', "utf-8")
    place.gateway.start()
    place.rsyslog.wait_until(lambda: "certificate" in _first_error(place), "the name was found to be wrong")
    place.gateway.stop()
    assert place.rsyslog.received() == []


def _first_error(place: Place) -> str:
    status = json.loads(place.gateway.must("audit", "status", "--json"))
    return str(status["destinations"][0]["error"])


def test_root_who_rewrites_the_log_with_its_key_is_found_out_by_the_heads(place: Place, tmp_path: Path) -> None:
    place.gateway.add_device("ct1", "CT1", role="modality")
    place.gateway.start()
    place.gateway.stop()
    place.rsyslog.wait_for(1, "DICOMWARD+HEAD")
    verify = ("audit", "verify", "--heads", place.rsyslog.output)
    assert "good" in place.gateway.must(*verify)

    directory = place.gateway.directory / "audit"
    rewrite_with_the_key(directory)
    # The log proves itself, since it was signed with its own key ...
    assert place.gateway.run("audit", "verify").returncode == 0
    # ... but not against what has left the machine.
    done = place.gateway.run(*verify)
    assert done.returncode == 1
    assert "BAD rewritten" in done.stdout


def rewrite_with_the_key(directory: Path) -> None:
    """Do what root can: take one device out of the story, and sign the new log with the old key."""
    from dicomward.audit.chain import decode_record
    from dicomward.audit.encode_json import decode_event
    from dicomward.audit.event import RegistryChanged
    from dicomward.io.audit.log import append_offline
    from dicomward.io.audit.read import list_segments, read_lines

    records = [decode_record(line[:-1]) for each in list_segments(directory) for line in read_lines(each.path)]
    key = (directory / "checkpoint.key").read_bytes()
    shutil.rmtree(directory)
    directory.mkdir(mode=0o700)
    (directory / "checkpoint.key").write_bytes(key)
    (directory / "checkpoint.key").chmod(0o600)
    kept = [event for each in records if not isinstance(event := decode_event(each.members), RegistryChanged)]
    assert len(kept) < len(records)
    for event in [*kept, *kept]:
        append_offline(directory, event)


def test_an_incident_is_told_with_patients_and_a_lockdown_leaves_the_floor(place: Place) -> None:
    gateway = place.gateway
    scanner = gateway.add_device("ct1", "CT1", role="modality")
    reader = gateway.add_device("ws1", "WS1", role="workstation")
    gateway.start()
    image = sample("CT_small.dcm")
    assert Dcmtk().store(gateway.route(scanner, "CT1"), [image]).succeeded
    place.archive.hold(image)
    route = gateway.route(reader, "WS1")
    assert Pynetdicom().get(route, study_of(image)).succeeded
    report = json.loads(gateway.must("incident", "--device", "ws1", "--from", "1h", "--json"))
    assert {(each["patient_id"], each["direction"]) for each in report["touched"] if each["instances"]} == {
        ("1CT1", "received")
    }
    sent = json.loads(gateway.must("incident", "--device", "ct1", "--from", "1h", "--to", "0s", "--json"))
    assert [(each["patient_id"], each["study_instance_uid"], each["direction"]) for each in sent["touched"]] == [
        ("1CT1", study_of(image), "sent")
    ]

    locked = gateway.must("lockdown", "--site", "all", "--reason", "stolen workstation")
    assert "only the clinical floor is left to site all; in force" in locked
    keys = {"QueryRetrieveLevel": "STUDY", "PatientID": "1CT1", "StudyInstanceUID": ""}
    assert not Pynetdicom().find(route, keys).succeeded
    assert Dcmtk().store(gateway.route(scanner, "CT1"), [sample("MR_small.dcm")]).succeeded
    gateway.stop()
    gateway.start()
    assert not Pynetdicom().find(route, keys).succeeded
    gateway.must("lockdown", "--site", "all", "--lift")
    assert Pynetdicom().find(route, keys).succeeded
    assert [each["action"] for each in gateway.audit("--code", "DW-LOCKDOWN")] == ["lock", "lift"]


def test_a_full_disk_leaves_the_receiver_with_every_record(place: Place, tmp_path: Path) -> None:
    """A small file system of its own holds the log, and something else fills it."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", mount], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode()}")
    try:
        gateway = place.gateway
        reader = gateway.add_device("ws1", "WS1", role="tester")
        # What was recorded so far stays with the old directory.
        gateway.configure("audit", directory=str(mount / "audit"))
        gateway.start()
        route = gateway.route(reader, "WS1")
        assert Pynetdicom().echo(route).succeeded
        place.wait_for("110114", 2)
        (mount / "filler").write_bytes(b"x" * _free_bytes(mount))
        # The reserve takes thousands of records; without it the second sink has them, and the receiver as well.
        (mount / "audit" / "reserve").unlink()
        (mount / "filler").write_bytes(b"x" * ((mount / "filler").stat().st_size + _free_bytes(mount)))
        Pynetdicom().echo(route)
        place.rsyslog.wait_until(lambda: len(_types(place, "110133")) >= 1, "the receiver hears of the full disk")
        (mount / "filler").unlink()
        place.rsyslog.wait_until(lambda: len(_types(place, "110134")) >= 1, "and of the end of it", 30.0)
        assert Pynetdicom().echo(route).succeeded
        gateway.stop()
        assert "good" in gateway.must("audit", "verify")
    finally:
        place.gateway.stop()
        subprocess.run(["umount", mount], check=False)


def _free_bytes(directory: Path) -> int:
    space = os.statvfs(directory)
    return space.f_bavail * space.f_frsize


def _types(place: Place, kind: str) -> list[Any]:
    found = [each.findall("EventIdentification/EventTypeCode") for each in place.messages("110113")]
    return [each for codes in found for each in codes if each.get("csd-code") == kind]
