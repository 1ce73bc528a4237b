"""docs/way-back.md, rehearsed: each way is gone with real peers after the gateway was killed, and its time is measured.

The times are printed (`pytest -s`) and must stay below what the page promises.
"""

import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT, read
from tests.real.clients import Outcome, Pynetdicom, Route
from tests.real.gateway import dicomward
from tests.real.hospital import Hospital, direct_route, hospital
from tests.real.processes import LOOPBACK, Child
from tests.real.samples import sample
from tests.real.site import worklist_item

pytestmark = pytest.mark.real

PAGE: Final = read("way-back.md")


def promised(way: str) -> float:
    """Return the seconds that the page's table gives for a way."""
    (row,) = re.findall(rf"^\| {way}\. .*$", PAGE, re.MULTILINE)
    return float(re.findall(r"(\d+) s\b", row.rsplit("|", 2)[1])[0])


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hospital]:
    with hospital(tmp_path) as running:
        running.archive.worklist = [worklist_item(1)]
        yield running


def examines(route: Route) -> list[Outcome]:
    """Do what a scanner does: worklist, an image, an echo."""
    client = Pynetdicom()
    return [client.worklist(route), client.store(route, [sample("CT_small.dcm")]), client.echo(route)]


def kill(here: Hospital) -> float:
    """End the gateway as a power cut would; return the time."""
    here.gateway.signal(signal.SIGKILL)
    here.gateway.child.process.wait()
    return time.monotonic()


def measured(way: str, since: float) -> None:
    seconds = time.monotonic() - since
    print(f"way {way}: imaging again after {seconds:.1f} s (promised: {promised(way):.0f} s)")
    assert seconds < promised(way)


def test_way_0_the_process_starts_again(here: Hospital) -> None:
    route = here.device("scanner", "SCANNER")
    assert all(outcome.succeeded for outcome in examines(route))
    since = kill(here)
    here.gateway.start()
    assert all(outcome.succeeded for outcome in examines(route))
    measured("0", since)
    assert "good" in here.gateway.must("audit", "verify")


def test_way_a_the_standby_takes_the_address(here: Hospital, tmp_path: Path) -> None:
    scanner, reader = here.device("scanner", "SCANNER"), here.device("reader", "READER1")
    assert all(outcome.succeeded for outcome in examines(scanner))
    backup = tmp_path / "newest.tar.gz"
    here.gateway.must("backup", backup)
    since = kill(here)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, scanner.port)).close()
    standby = copy(here.gateway)
    standby.directory = tmp_path / "standby" / "dicomward"
    # The commands of the page, in its order.
    assert dicomward("backup", "verify", backup).returncode == 0
    assert dicomward("restore", backup, standby.directory).returncode == 0
    assert standby.run("check-config").returncode == 0
    standby.start()
    try:
        for route in (scanner, reader):
            assert all(outcome.succeeded for outcome in examines(route))
        measured("A", since)
        assert "good" in standby.must("audit", "verify")
        assert any(record.get("action") == "restore" for record in standby.audit("--code", "DW-AUDIT-ACCESS"))
    finally:
        standby.stop()


def haproxy_for(here: Hospital, directory: Path) -> Path:
    """Return the page's configuration with this hospital's addresses and files."""
    for kind in ("rsa", "ecdsa"):
        pair = [here.gateway.directory / "tls" / f"gateway-{kind}.{part}.pem" for part in ("cert", "key")]
        (directory / f"gateway-{kind}.pem").write_bytes(b"".join(path.read_bytes() for path in pair))
    shutil.copy(here.gateway.directory / "ca" / "ca.cert.pem", directory)
    text = (ROOT / "packaging" / "way-back" / "haproxy.cfg").read_text("utf-8")
    changes = {
        "0.0.0.0:2762": f"127.0.0.1:{here.gateway.port}",
        "127.0.0.1:104": f"127.0.0.1:{here.archive.port}",
        "/etc/dicomward-way-back": str(directory),
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = directory / "haproxy.cfg"
    path.write_text(text, "utf-8")
    return path


def test_way_b_tls_in_front_of_the_archive(here: Hospital, tmp_path: Path) -> None:
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/bin")
    if program is None:
        pytest.skip("haproxy is missing: apt-get install haproxy")
    scanner = here.device("scanner", "SCANNER")
    revoked = here.device("stolen", "STOLEN")
    here.gateway.must("device", "revoke", "stolen")
    assert all(outcome.succeeded for outcome in examines(scanner))
    configuration = haproxy_for(here, tmp_path)
    since = kill(here)
    proxy = Child("haproxy", [program, "-db", "-f", configuration], tmp_path / "haproxy.log")
    try:
        proxy.wait_until_listening(here.gateway.port)
        assert all(outcome.succeeded for outcome in examines(scanner))
        measured("B", since)
        # Who has no certificate of the CA is kept out; and what the page warns of is true.
        without = Route(port=scanner.port, calling_ae_title="SCANNER", called_ae_title=scanner.called_ae_title)
        assert not Pynetdicom().echo(without).succeeded
        assert Pynetdicom().echo(revoked).succeeded
        assert "**revoked devices pass**" in PAGE
    finally:
        proxy.stop()


def test_way_c_straight_to_the_archive(here: Hospital) -> None:
    assert all(outcome.succeeded for outcome in examines(here.device("scanner", "SCANNER")))
    since = kill(here)
    assert all(outcome.succeeded for outcome in examines(direct_route(here.archive, "SCANNER")))
    measured("C", since)


@pytest.mark.parametrize("way", ["0", "A", "B", "C"])
def test_every_way_of_the_page_has_its_rehearsal(way: str) -> None:
    assert promised(way) > 0
    source = Path(__file__).read_text("utf-8")
    assert f"def test_way_{way.lower()}_" in source


def test_page_has_no_way_without_rehearsal() -> None:
    assert re.findall(r"^\| (\w)\. ", PAGE, re.MULTILINE) == ["0", "A", "B", "C"]
