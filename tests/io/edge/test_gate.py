"""The gate of the pass-through: who the device is, whom it calls, and with which certificate."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.registry import Archive
from dicomward.io.edge.gate import EdgeGate, judge_pin
from dicomward.io.gateway.gate import Refused
from dicomward.io.tls import REVERSE_ALPN, NamedContext, TlsConfigurationError
from dicomward.policy.evaluate import evaluate
from dicomward.policy.request import OperationRequest
from dicomward.settings.edge import EdgeSettings, parse_edge_settings
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance, Principal
from dicomward.vocab.reason import ReasonCode
from tests.io.world import Audit
from tests.real.pki import Authority

SETTINGS = """
[edge]
state_directory = "state"
[upstream]
address = "127.0.0.1:2762"
name = "gateway.example"
ca = "ca/ca.pem"
ae_titles = ["PACS", "ARCHIVE"]
[[devices]]
name = "ct1"
ae_titles = ["CT1"]
listen = "127.0.0.1:11112"
networks = ["192.0.2.7/32"]
certificate = "own/cert.pem"
key = "own/key.pem"
store = "pass-through"
operations = ["c-echo", "c-store"]
"""
VERIFICATION = "1.2.840.10008.1.1"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> EdgeSettings:
    authority = Authority("CA", tmp_path / "ca")
    for name in ("own", "next"):
        issued = authority.issue(name)
        (tmp_path / name).mkdir()
        shutil.copy(issued.certificate, tmp_path / name / "cert.pem")
        shutil.copy(issued.key, tmp_path / name / "key.pem")
    return parse_edge_settings(SETTINGS, tmp_path / "edge.toml")


@pytest.fixture
def gate(settings: EdgeSettings) -> Iterator[EdgeGate]:
    made = EdgeGate(settings.devices[0], settings, Audit())
    yield made
    made.close()


def allowed(gate: EdgeGate, operation: Operation, sop_class_uid: str) -> bool:
    principal = Principal(
        device="ct1",
        calling_ae_title="CT1",
        role="edge-device",
        site="",
        assurance=Assurance.NETWORK_PIN,
        address="192.0.2.7",
    )
    request = OperationRequest(
        principal=principal,
        archive="upstream-1",
        operation=operation,
        sop_class_uid=sop_class_uid,
        move_destination=None,
        at=NOW,
    )
    return evaluate(gate.policy, request).allowed


def test_device_is_known_by_address_and_title_alone(gate: EdgeGate) -> None:
    device = gate.registry.device_by_ae_title("CT1")
    assert device is not None
    assert (device.name, device.networks, device.legacy_zone, device.legacy_always) == (
        "ct1",
        ("192.0.2.7/32",),
        "ct1",
        True,
    )
    zone = gate.legacy_zone("ct1")
    assert zone is not None
    assert zone.allows("192.0.2.7")
    assert not zone.allows("192.0.2.8")
    assert not zone.is_over(NOW)


def test_each_title_of_the_upstream_leads_there_and_no_other_one(gate: EdgeGate) -> None:
    for title in ("PACS", "ARCHIVE"):
        target = gate.registry.route(title)
        assert isinstance(target, Archive)
        # Under the title that the device has called.
        assert (target.ae_title, target.endpoint.port) == (title, 2762)
    assert gate.registry.route("OTHER") is None


def test_operations_that_are_not_listed_are_denied(gate: EdgeGate) -> None:
    assert allowed(gate, Operation.C_ECHO, VERIFICATION)
    assert not allowed(gate, Operation.C_FIND, STUDY_FIND)


def test_whoever_is_called_is_called_over_tls_by_the_name_of_the_settings(gate: EdgeGate) -> None:
    target = gate.registry.route("PACS")
    assert target is not None
    context = gate.upstream_context(target)
    assert context is gate.client_context
    assert isinstance(context, NamedContext)
    assert (context.peer_name, context.check_hostname) == ("gateway.example", True)
    # Only the other context asks for a connection to be parked.
    assert isinstance(gate.reverse_context, NamedContext)
    assert gate.reverse_context.peer_name == "gateway.example"
    assert gate.reverse_context is not context


def test_pin_is_compared_where_there_is_one(settings: EdgeSettings, gate: EdgeGate) -> None:
    target = gate.registry.route("PACS")
    assert target is not None
    gate.judge_upstream(target, None)
    pinned = replace(settings.upstream, certificate_sha256="ab" * 32)
    judge_pin(pinned, "ab" * 32)
    with pytest.raises(Refused, match="which is not the pinned one") as caught:
        judge_pin(pinned, "cd" * 32)
    assert caught.value.reason is ReasonCode.UPSTREAM_NOT_TRUSTED
    strict = EdgeGate(replace(settings.devices[0], name="ct2"), replace(settings, upstream=pinned), Audit())
    try:
        shown = PeerCertificate(sha256="cd" * 32, not_before=NOW, not_after=NOW, subject="")
        for certificate in (shown, None):
            with pytest.raises(Refused):
                strict.judge_upstream(target, certificate)
    finally:
        strict.close()


def test_renewed_credential_is_loaded_into_both_contexts_once_it_belongs_together(
    settings: EdgeSettings, gate: EdgeGate, tmp_path: Path
) -> None:
    loaded: list[object] = []
    for context in (gate.client_context, gate.reverse_context):
        original = context.load_cert_chain

        def load(*args: object, _context: object = context, _original: object = original, **more: object) -> None:
            loaded.append(_context)
            _original(*args, **more)  # type: ignore[operator]

        context.load_cert_chain = load  # type: ignore[method-assign]
    assert not gate.credential.refresh()
    shutil.copy(tmp_path / "next" / "cert.pem", tmp_path / "own" / "cert.pem")
    # Half of it is written: the old one goes on, and it is tried again.
    for _ in range(2):
        with pytest.raises(TlsConfigurationError):
            gate.credential.refresh()
    assert loaded == []
    shutil.copy(tmp_path / "next" / "key.pem", tmp_path / "own" / "key.pem")
    assert gate.credential.refresh()
    assert loaded == [gate.client_context, gate.reverse_context]
    assert not gate.credential.refresh()


def test_credential_that_is_missing_is_an_error(settings: EdgeSettings) -> None:
    device = replace(settings.devices[0], certificate=Path("/nowhere/cert.pem"))
    with pytest.raises(TlsConfigurationError, match="can't be used"):
        EdgeGate(device, settings, Audit())


def test_own_limits_and_budgets_are_never_the_first_to_end(gate: EdgeGate) -> None:
    for _ in range(128):
        assert (
            gate.limits.admit_association(
                device="ct1", role="edge-device", network="n", archive="upstream-1", floor=True, now=0.0
            )
            is None
        )
    assert (
        gate.limits.admit_association(
            device="ct1", role="edge-device", network="n", archive="upstream-1", floor=True, now=0.0
        )
        is ReasonCode.DEVICE_ASSOCIATIONS
    )
    assert gate.budgets.lost is None
    assert REVERSE_ALPN == "dicomward-reverse/1"
