"""Real DCMTK devices in a legacy zone: plaintext until they move over; after the last day the floor; nobody else."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.real.clients import Dcmtk, Route
from tests.real.gateway import Gateway
from tests.real.hospital import TESTER, Hospital
from tests.real.pki import Credentials
from tests.real.processes import LOOPBACK, free_port
from tests.real.recording_archive import RecordingArchive
from tests.real.samples import sample
from tests.real.site import ARCHIVE

ZONES = """
[[legacy_zones]]
name = "old"
listen = "{host}:{old}"
networks = ["127.0.0.0/8"]
end_date = 2099-12-31

[[legacy_zones]]
name = "over"
listen = "{host}:{over}"
networks = ["127.0.0.0/8"]
end_date = 2020-12-31
"""


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {"old": free_port(), "over": free_port()}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Iterator[Hospital]:
    directory: Path = tmp_path_factory.mktemp("legacy")
    with ExitStack() as stack:
        archive = stack.enter_context(RecordingArchive(ARCHIVE))
        gateway = Gateway(directory / "gateway", archive=ARCHIVE, archive_port=archive.port)
        stack.callback(gateway.stop)
        gateway.permit_everything_to(TESTER)
        with gateway.configuration.open("a", encoding="utf-8") as settings:
            settings.write(ZONES.format(host=LOOPBACK, **ports))
        gateway.start()
        yield Hospital(archive, gateway, stack)


def legacy(here: Hospital, ports: dict[str, int], name: str, title: str, *, zone: str = "old") -> Route:
    """Register a device for a zone; return its plaintext way."""
    options = ("--aet", title, "--role", TESTER, "--network", "127.0.0.1", "--legacy", zone)
    here.gateway.must("device", "add", name, *options)
    return Route(port=ports[zone], calling_ae_title=title, called_ae_title=ARCHIVE)


def test_device_without_a_certificate_works_in_its_zone(here: Hospital, ports: dict[str, int]) -> None:
    route = legacy(here, ports, "ct1", "CT1")
    assert Dcmtk().echo(route).succeeded
    assert Dcmtk().store(route, [sample("CT_small.dcm")]).succeeded
    assert Dcmtk().find(route, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}).succeeded
    allowed = here.gateway.audit("--code", "DW-ASSOC-ALLOW", "--device", "ct1")
    assert {each["assurance"] for each in allowed} == {"network-pin"}


def test_nobody_else_is_let_in(here: Hospital, ports: dict[str, int]) -> None:
    route = legacy(here, ports, "ct2", "CT2")
    assert not Dcmtk().echo(replace(route, calling_ae_title="NOBODY")).succeeded
    assert not Dcmtk().echo(replace(route, port=ports["over"])).succeeded
    here.gateway.must("device", "suspend", "ct2")
    assert not Dcmtk().echo(route).succeeded
    reasons = {each["reason"] for each in here.gateway.audit("--code", "DW-ASSOC-DENY")}
    assert {"calling-ae-title-not-bound", "not-in-legacy-zone", "device-suspended"} <= reasons


def test_zone_that_is_over_has_the_floor_and_a_restart_does_not_close_it(here: Hospital, ports: dict[str, int]) -> None:
    route = legacy(here, ports, "mr1", "MR1", zone="over")
    for _ in range(2):
        assert Dcmtk().store(route, [sample("MR_small.dcm")]).succeeded
        assert not Dcmtk().find(route, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}).succeeded
        here.gateway.stop()
        here.gateway.start()
    (alarm, *_more) = here.gateway.audit("--code", "DW-ZONE-ALARM")
    assert (alarm["zone"], alarm["reason"]) == ("over", "legacy-zone-over")


def test_plaintext_ends_with_the_first_association_over_tls_and_a_rollback_brings_it_back(
    here: Hospital, ports: dict[str, int]
) -> None:
    route = legacy(here, ports, "us1", "US1")
    assert Dcmtk().echo(route).succeeded
    out = here.gateway.directory.parent / "us1"
    here.gateway.must("device", "renew", "us1", "--out", out)
    credentials = Credentials(key=out / "key.pem", certificate=out / "cert.pem", authority=out / "ca.pem")
    assert Dcmtk().echo(route).succeeded
    assert Dcmtk().echo(here.gateway.route(credentials, "US1")).succeeded
    assert not Dcmtk().echo(route).succeeded
    assert here.gateway.audit("--code", "DW-ASSOC-DENY")[-1]["reason"] == "moved-to-tls"
    here.gateway.stop()
    here.gateway.start()
    assert not Dcmtk().echo(route).succeeded
    here.gateway.must("device", "rollback", "us1")
    assert Dcmtk().echo(route).succeeded
    assert not Dcmtk().echo(here.gateway.route(credentials, "US1")).succeeded
