"""The edge agent in front of a real gateway: plaintext devices get every service over its mutual TLS."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.clients import Dcmtk, Pynetdicom
from tests.real.edge import Edge, Site, edge_site
from tests.real.gateway import dicomward
from tests.real.hospital import TESTER
from tests.real.pki import Credentials
from tests.real.samples import sample


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("edge")) as here:
        yield here


@pytest.fixture(scope="module")
def through(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Edge:
    return site.edge(tmp_path_factory.mktemp("through"))


def test_plaintext_device_has_every_service_through_its_agent(site: Site, through: Edge) -> None:
    device = Dcmtk()
    assert device.echo(through.route()).succeeded
    assert device.store(through.route(), [sample("CT_small.dcm")]).succeeded
    assert device.find(through.route(), {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}).succeeded
    assert device.worklist(through.route()).succeeded
    assert Pynetdicom().echo(through.route()).succeeded
    allowed = site.gateway.audit("--code", "DW-ASSOC-ALLOW", "--device", "ct1")
    assert {each["assurance"] for each in allowed} == {"tls-device"}


def test_nobody_else_may_use_the_agent(through: Edge) -> None:
    assert not Dcmtk().echo(through.route("OTHER")).succeeded


def test_gateway_with_another_name_is_not_trusted(site: Site, tmp_path: Path) -> None:
    assert not Dcmtk().echo(site.edge(tmp_path, name="other.example").route()).succeeded


def test_archive_of_another_authority_is_not_trusted(site: Site, tmp_path: Path) -> None:
    wrong = site.edge(tmp_path / "edge", upstream=site.archive.port)
    assert not Dcmtk().echo(wrong.route()).succeeded


def test_wrong_settings_are_told_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text('[edge]\nstate_directry = "x"\n[upstream]\naddress = "gw:2762"\n', "utf-8")
    done = dicomward("edge", "--config", path)
    assert done.returncode == 2
    assert "edge.state_directry: there is no such setting; did you mean 'state_directory'?" in done.stderr
    assert "upstream.ca: it is missing" in done.stderr
    assert "devices: there is no device" in done.stderr


def test_renewed_certificate_is_used_without_a_restart(site: Site, tmp_path: Path) -> None:
    old = site.credentials
    copy = Credentials(key=tmp_path / "key.pem", certificate=tmp_path / "cert.pem", authority=old.authority)
    copy.key.write_bytes(old.key.read_bytes())
    copy.certificate.write_bytes(old.certificate.read_bytes())
    edge = Edge(tmp_path / "edge", site.gateway.port, copy, store="pass-through")
    site.stack.callback(edge.stop)
    edge.start()
    assert Dcmtk().echo(edge.route()).succeeded
    other = site.gateway.add_device("ct1-next", "CT9", role=TESTER)
    # Half of a pair is no reason to stop.
    copy.certificate.write_bytes(other.certificate.read_bytes())
    assert edge.child is not None
    edge.child.wait_until_it_says(re.compile("the old certificate stays in use"))
    assert Dcmtk().echo(edge.route()).succeeded
    copy.key.write_bytes(other.key.read_bytes())
    edge.child.wait_until_it_says(re.compile("a renewed certificate is in use"))
    # It is the other device's now, to which the title CT1 isn't bound.
    assert not Dcmtk().echo(edge.route()).succeeded
