"""A real haproxy in front of the gateway: devices are known by their own addresses, which it tells (send-proxy-v2)."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.clients import Dcmtk, Pynetdicom, Route
from tests.real.hospital import Hospital, hospital
from tests.real.processes import LOOPBACK, Child, free_port

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
BALANCER = "127.0.0.9"

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed (tools/setup.sh peers)")

CONFIGURATION = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen devices
    bind 127.0.0.1:{port}
    source 127.0.0.9
    server gateway 127.0.0.1:{gateway} {options} check inter 200ms
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hospital]:
    with hospital(tmp_path) as running:
        running.gateway.stop()
        text = running.gateway.configuration.read_text("utf-8")
        setting = f'proxy_protocol_from = ["{BALANCER}/32"]\n'
        running.gateway.configuration.write_text(text.replace("[gateway]\n", f"[gateway]\n{setting}", 1), "utf-8")
        running.gateway.start()
        yield running


def balancer(here: Hospital, directory: Path, options: str) -> tuple[Child, int]:
    port = free_port()
    configuration = directory / f"haproxy-{port}.cfg"
    configuration.write_text(
        CONFIGURATION.format(port=port, gateway=here.gateway.port, options=options), encoding="utf-8"
    )
    assert HAPROXY is not None
    child = Child("haproxy", [HAPROXY, "-f", configuration, "-db"], directory / f"haproxy-{port}.log")
    child.wait_until_listening(port)
    return child, port


def through(route: Route, port: int) -> Route:
    return Route(
        port=port,
        calling_ae_title=route.calling_ae_title,
        called_ae_title=route.called_ae_title,
        credentials=route.credentials,
    )


def test_devices_are_known_by_the_address_that_haproxy_tells(here: Hospital, tmp_path: Path) -> None:
    # Bound to the one address from which the test calls: the balancer's own would be refused.
    device = here.device("ct1", "CT1", network=f"{LOOPBACK}/32", key="rsa")
    child, port = balancer(here, tmp_path, "send-proxy-v2")
    try:
        assert Pynetdicom().echo(through(device, port)).succeeded
        assert Dcmtk().echo(through(device, port)).succeeded
        # Without a balancer a device is what it was.
        assert Pynetdicom().echo(device).succeeded
    finally:
        child.stop()
    addresses = {record["address"] for record in here.gateway.audit("--code", "DW-ASSOC-ALLOW")}
    assert addresses == {LOOPBACK}
    assert [record for record in here.gateway.audit() if record.get("address") == BALANCER] == []


@pytest.mark.parametrize("options", ["", "send-proxy"], ids=["no header", "version 1"])
def test_balancer_that_does_not_tell_is_turned_away(here: Hospital, tmp_path: Path, options: str) -> None:
    device = here.device("ct1", "CT1")
    child, port = balancer(here, tmp_path, options)
    try:
        assert not Pynetdicom().echo(through(device, port)).succeeded
    finally:
        child.stop()
    assert {record["reason"] for record in here.gateway.audit("--code", "DW-CONN-FAIL")} == {"proxy-header"}
