"""The edge agent in front of a real gateway: plaintext devices get every service over its mutual TLS."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.real.clients import Dcmtk, Pynetdicom, Route
from tests.real.gateway import COMMAND, Gateway, dicomward
from tests.real.hospital import TESTER
from tests.real.pki import Credentials
from tests.real.processes import LOOPBACK, Child, free_port
from tests.real.recording_archive import RecordingArchive
from tests.real.samples import sample
from tests.real.site import ARCHIVE

SETTINGS = """
[edge]
state_directory = "state"

[upstream]
address = "{host}:{upstream}"
name = "{name}"
ca = "{ca}"
ae_titles = ["{archive}"]
seconds = 5

[[devices]]
name = "ct1"
ae_titles = ["CT1"]
listen = "{host}:{port}"
certificate = "{certificate}"
key = "{key}"
store = "{store}"
"""


class Edge:
    """One agent, as a process."""

    def __init__(
        self,
        directory: Path,
        upstream: int,
        credentials: Credentials,
        *,
        store: str,
        name: str = LOOPBACK,
        more: str = "",
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.configuration = directory / "edge.toml"
        self._starts = 0
        self.configuration.write_text(
            SETTINGS.format(
                host=LOOPBACK,
                upstream=upstream,
                name=name,
                ca=credentials.authority,
                certificate=credentials.certificate,
                key=credentials.key,
                archive=ARCHIVE,
                port=self.port,
                store=store,
            )
            + more,
            "utf-8",
        )
        self.child: Child | None = None

    def start(self) -> None:
        self._starts += 1
        command: list[str | Path] = [*COMMAND, "edge", "--config", self.configuration]
        self.child = Child("dicomward edge", command, self.directory / f"{self._starts}.log")
        self.child.wait_until_it_says(re.compile(r"^listening on (\S+):(\d+) for ct1", re.MULTILINE))

    def stop(self) -> int:
        return self.child.stop() if self.child is not None else 0

    def route(self, title: str = "CT1") -> Route:
        return Route(port=self.port, calling_ae_title=title, called_ae_title=ARCHIVE)


@dataclass(slots=True)
class Site:
    archive: RecordingArchive
    gateway: Gateway
    credentials: Credentials
    stack: ExitStack

    def edge(self, directory: Path, *, upstream: int = 0, store: str = "pass-through", **options: str) -> Edge:
        edge = Edge(directory, upstream or self.gateway.port, self.credentials, store=store, **options)
        self.stack.callback(edge.stop)
        edge.start()
        return edge


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("edge")
    with ExitStack() as stack:
        archive = stack.enter_context(RecordingArchive(ARCHIVE))
        gateway = Gateway(directory / "gateway", archive=ARCHIVE, archive_port=archive.port)
        stack.callback(gateway.stop)
        gateway.permit_everything_to(TESTER)
        gateway.start()
        credentials = gateway.add_device("ct1", "CT1", role=TESTER)
        yield Site(archive, gateway, credentials, stack)


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
