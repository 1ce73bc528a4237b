"""The spool's key, fetched from the enrolment server: an agent that starts without network accepts all the same."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.clients import Dcmtk
from tests.real.edge import Edge, Site, edge_site
from tests.real.gateway import COMMAND, dicomward
from tests.real.line import Line
from tests.real.pki import Credentials
from tests.real.processes import LOOPBACK, Child, free_port
from tests.real.test_edge_spool import copies, files, wait_for, wait_until_empty

SPOOL = '\n[spool]\ndirectory = "spool"\nkey = "https://{host}:{port}"\nkey_ca = "{ca}"\nfree_bytes = 0\n'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with edge_site(tmp_path) as here:
        yield here


def test_agent_that_starts_without_network_accepts_and_sends_later(site: Site, tmp_path: Path) -> None:
    gateway = site.gateway
    port = free_port()
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse battery staple\n")
    gateway.must("ca", "init", "--passphrase-file", passphrase)
    gateway.must("reload")
    configuration = gateway.configuration
    where = f'listen = "{LOOPBACK}:{port}"\ngateway = "{LOOPBACK}:{gateway.port}"'
    configuration.write_text(configuration.read_text().replace('listen = "127.0.0.1:8443"', where, 1))
    server = Child("enrolment", [*COMMAND, "enrolment", "serve", "--config", configuration], tmp_path / "server.log")
    site.stack.callback(server.stop)
    server.wait_until_listening(port)
    invited = json.loads(
        gateway.must("device", "invite", "ct2", "--aet", "CT1B", "--role", "tester", "--expires", "2h", "--json")
    )
    done = dicomward("enroll", "--server", invited["server"], "--code", invited["code"], "--out", tmp_path / "ct2")
    assert done.returncode == 0, done.stderr
    own = Credentials(
        key=tmp_path / "ct2" / "key.pem",
        certificate=tmp_path / "ct2" / "cert.pem",
        authority=tmp_path / "ct2" / "ca.pem",
    )
    enrolment, line = Line(port), Line(gateway.port)
    site.stack.callback(enrolment.close)
    site.stack.callback(line.close)
    more = SPOOL.format(host=LOOPBACK, port=enrolment.port, ca=own.authority)
    edge = Edge(tmp_path / "edge", line.port, own, store="spool", more=more)
    edge.configuration.write_text(edge.configuration.read_text().replace('["CT1"]', '["CT1B"]'))
    site.stack.callback(edge.stop)
    # The first start needs the server.
    enrolment.cut()
    done = dicomward("edge", "--config", edge.configuration)
    assert done.returncode == 1
    assert "The first start needs the enrolment server" in done.stderr
    enrolment.mend()
    edge.start()
    samples = copies(tmp_path / "images", 2)
    assert Dcmtk().store(edge.route("CT1B"), samples[:1]).succeeded
    wait_for(site, samples[:1])
    wait_until_empty(edge)
    edge.stop()
    # The power comes back before the network does.
    enrolment.cut()
    line.cut()
    edge.start()
    assert Dcmtk().store(edge.route("CT1B"), samples[1:]).succeeded
    assert len(files(edge, "ready")) == 1
    line.mend()
    enrolment.mend()
    wait_for(site, samples, seconds=60.0)
    wait_until_empty(edge)
    assert gateway.audit("--code", "DW-ENROL", "--device", "ct2")
