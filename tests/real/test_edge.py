"""The edge agent in front of a real gateway: plaintext devices get every service over its mutual TLS."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.clients import Dcmtk, Pynetdicom
from tests.real.edge import Edge, Site, edge_site
from tests.real.gateway import dicomward
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
