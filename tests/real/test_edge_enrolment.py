"""From a one-time code to a stored object in one command; and what a device is told before there is a certificate."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.clients import Dcmtk, Route
from tests.real.edge import Site, edge_site
from tests.real.gateway import COMMAND, dicomward
from tests.real.processes import LOOPBACK, Child, free_port
from tests.real.site import ARCHIVE
from tests.real.test_edge_spool import copies, wait_for

SETTINGS = """
[upstream]
address = "{host}:{gateway}"
ae_titles = ["{archive}"]
[enrolment]
server = "{server}"
{root}
[[devices]]
name = "ct7"
ae_titles = ["CT7"]
listen = "{host}:{port}"
code_file = "ct7.code"
[spool]
directory = "spool"
key = "{server}"
free_bytes = 0
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with edge_site(tmp_path) as here:
        passphrase, port = tmp_path / "passphrase", free_port()
        passphrase.write_text("correct horse battery staple\n")
        here.gateway.must("ca", "init", "--passphrase-file", passphrase)
        here.gateway.must("reload")
        configuration = here.gateway.configuration
        where = f'listen = "{LOOPBACK}:{port}"\nqueue = true\ngateway = "{LOOPBACK}:{here.gateway.port}"'
        configuration.write_text(configuration.read_text().replace('listen = "127.0.0.1:8443"', where, 1))
        serve: list[str | Path] = [*COMMAND, "enrolment", "serve", "--config", configuration]
        server = Child("enrolment", serve, tmp_path / "server.log")
        here.stack.callback(server.stop)
        server.wait_until_listening(port)
        yield here


def write(site: Site, directory: Path, *, root: str = "") -> Route:
    """Write the settings of an agent; return the way of its device."""
    directory.mkdir()
    port, where = (
        free_port(),
        re.search(r'listen = "(127\.0\.0\.1:\d+)"\nqueue', site.gateway.configuration.read_text()),
    )
    assert where is not None
    text = SETTINGS.format(
        host=LOOPBACK,
        gateway=site.gateway.port,
        archive=ARCHIVE,
        server=f"https://{where[1]}",
        root=root,
        port=port,
    )
    (directory / "edge.toml").write_text(text, "utf-8")
    return Route(port=port, calling_ae_title="CT7", called_ae_title=ARCHIVE)


def start(site: Site, directory: Path, *more: str) -> Child:
    log = directory / f"{len(list(directory.glob('*.log')))}.log"
    edge = Child("edge", [*COMMAND, "edge", "--config", directory / "edge.toml", *more], log)
    site.stack.callback(edge.stop)
    return edge


def certificate(directory: Path) -> tuple[int, dict[str, Any]]:
    done = dicomward("edge", "status", "--config", directory / "edge.toml", "--json")
    return done.returncode, json.loads(done.stdout)["certificates"].get("ct7", {})


def wait_until(directory: Path, standing: str) -> tuple[int, dict[str, Any]]:
    deadline = time.monotonic() + 20
    while (told := certificate(directory))[1].get("standing") != standing:
        assert time.monotonic() < deadline, told
        time.sleep(0.1)
    return told


def test_from_the_code_to_a_stored_object_in_one_command(site: Site, tmp_path: Path) -> None:
    invited = json.loads(
        site.gateway.must("device", "invite", "ct7", "--aet", "CT7", "--role", "tester", "--expires", "2h", "--json")
    )
    directory = tmp_path / "edge"
    route = write(site, directory)
    edge = start(site, directory, "--code", f"ct7={invited['code']}")
    edge.wait_until_it_says(re.compile(r"^listening on (\S+):(\d+) for ct7", re.MULTILINE))
    samples = copies(tmp_path / "images", 1)
    assert Dcmtk().store(route, samples).succeeded
    wait_for(site, samples)
    own = directory / "state" / "ct7" / "credential"
    assert (own / "key.pem").stat().st_mode & 0o777 == 0o600
    code, told = wait_until(directory, "valid")
    assert (code, told["problem"]) == (0, False)
    assert invited["code"] not in (directory / "0.log").read_text("utf-8")
    assert edge.stop() == 0
    # The same command again, as a service manager gives it: the code was used, and that does no harm.
    edge = start(site, directory, "--code", invited["code"].lower())
    edge.wait_until_it_says(re.compile(r"^listening on (\S+):(\d+) for ct7", re.MULTILINE))
    assert Dcmtk().echo(route).succeeded
    # Its certificate is revoked: the agent says so, with an alarm.
    site.gateway.must("device", "compromised", "ct7")
    edge.stop()
    edge = start(site, directory)
    edge.wait_until_it_says(re.compile(r"ALARM ct7 \(certificate\): refused: .*It is revoked, suspended, or"))
    assert wait_until(directory, "refused")[0] == 1
    # A new code, put where the settings say, and the device is welcome again.
    invited = json.loads(
        site.gateway.must("device", "invite", "ct7", "--aet", "CT7", "--role", "tester", "--expires", "2h", "--json")
    )
    (directory / "ct7.code").write_text(invited["code"] + "\n")
    wait_until(directory, "valid")
    assert not (directory / "ct7.code").exists()
    edge.wait_until_it_says(re.compile("a renewed certificate is in use from now on"))
    assert Dcmtk().echo(route).succeeded


def test_device_is_rejected_until_its_request_is_approved(site: Site, tmp_path: Path) -> None:
    directory = tmp_path / "edge"
    route = write(site, directory, root=f'ca = "{tmp_path / "gateway" / "issuing-ca" / "root.cert.pem"}"')
    edge = start(site, directory)
    edge.wait_until_it_says(re.compile("ct7: certificate: waits-for-approval: "))
    outcome = Dcmtk().echo(route)
    assert not outcome.succeeded
    edge.wait_until_it_says(re.compile("association from 127.0.0.1 rejected: there is no certificate yet"))
    code, told = wait_until(directory, "waits-for-approval")
    assert (code, told["problem"]) == (0, False)
    (request,) = json.loads(site.gateway.must("enrolment", "list", "--json"))["requests"]
    assert request["id"] in told["text"]
    site.gateway.must("enrolment", "approve", request["id"], "--aet", "CT7", "--role", "tester")
    edge.wait_until_it_says(re.compile(r"^listening on (\S+):(\d+) for ct7", re.MULTILINE))
    assert Dcmtk().echo(route).succeeded
