"""The gate of a device's own SCP: who has been verified may call, by the listed titles, for the listed operations."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomward.io.edge.reverse_gate import ReverseGate
from dicomward.settings import ListenAddress
from dicomward.settings.edge import parse_edge_settings
from dicomward.vocab.dimse import Operation
from tests.io.world import Audit

SETTINGS = """
[edge]
state_directory = "state"
[upstream]
address = "gateway.example:2762"
ca = "ca.pem"
ae_titles = ["PACS", "ARCHIVE"]
[[devices]]
name = "ws1"
ae_titles = ["WS1", "WS1_MOVE"]
listen = "127.0.0.1:11112"
certificate = "cert.pem"
key = "key.pem"
store = "pass-through"
address = "127.0.0.1:104"
"""


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[ReverseGate]:
    settings = parse_edge_settings(SETTINGS, tmp_path / "edge.toml")
    made = ReverseGate(settings.devices[0], settings, Audit())
    yield made
    made.close()


def test_nobody_may_call_before_it_is_verified(gate: ReverseGate) -> None:
    assert gate.registry.archives == ()
    assert gate.registry.archives_calling("PACS") == ()


def test_who_is_verified_is_known_by_its_certificate_and_calls_by_the_listed_titles(gate: ReverseGate) -> None:
    gate.trust("a" * 64)
    for title in ("PACS", "ARCHIVE"):
        (known,) = gate.registry.archives_calling(title)
        assert (known.certificate_sha256, known.tls) == ("a" * 64, True)
    assert gate.registry.archives_calling("OTHER") == ()


def test_two_gateways_behind_one_name_are_both_known(gate: ReverseGate) -> None:
    gate.trust("a" * 64)
    registry = gate.registry
    gate.trust("a" * 64)
    assert gate.registry is registry
    gate.trust("b" * 64)
    assert {each.certificate_sha256 for each in gate.registry.archives_calling("PACS")} == {"a" * 64, "b" * 64}


def test_oldest_certificates_are_forgotten(gate: ReverseGate) -> None:
    for number in range(10):
        gate.trust(str(number) * 64)
    assert {each.certificate_sha256 for each in gate.registry.archives} == {str(number) * 64 for number in range(2, 10)}


def test_device_is_reached_where_it_listens_and_without_tls(gate: ReverseGate) -> None:
    target = gate.registry.route("WS1_MOVE")
    assert target is gate.registry.route("WS1")
    assert target is not None
    assert gate.upstream_context(target) is None
    found: list[object] = []
    gate.resolve(target, found.extend, found.append)
    assert [address[1] for address in found] == [("127.0.0.1", 104)]  # type: ignore[index]


def test_everything_goes_first_to_where_the_agents_own_reports_are_taken(tmp_path: Path) -> None:
    settings = parse_edge_settings(SETTINGS + 'receives = ["c-store"]\n', tmp_path / "edge.toml")
    reports = ListenAddress(host="127.0.0.1", port=4242)
    gate = ReverseGate(settings.devices[0], settings, Audit(), reports)
    device = gate.registry.device_by_ae_title("WS1")
    assert device is not None
    assert device.address is not None
    assert device.address.port == 4242
    (rule,) = gate.policy.rules
    assert rule.operations == frozenset({Operation.C_STORE, Operation.N_EVENT_REPORT})
    gate.close()
