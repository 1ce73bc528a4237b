"""The standard's audit messages, from real traffic through the gateway into a real rsyslog."""

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
