"""The configuration check: silent about what init makes, and a finding with a remedy for each thing that goes wrong."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dicomward.identity.registry import Archive, CertificateRecord, Device, DeviceStatus, Endpoint
from dicomward.identity.registry_json import decode_snapshot
from dicomward.identity.zone import LegacyZone
from dicomward.io.ca.local import KeyKind, LocalCa
from dicomward.io.installation.check import Finding, Severity, check_configuration
from dicomward.io.protection.bypass_store import write_bypass
from dicomward.io.registry.change import apply_change
from dicomward.io.registry.store import RegistryStore, write_snapshot
from dicomward.settings import CertificatePair, LegacyZoneSettings, ListenAddress, Settings, load_settings
from tests.directory_helpers import copy_directory, now
from tests.policy.test_bypass import bypass, ended

NOW = now()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return copy_directory(tmp_path / "gateway")


def only(settings: Settings, *, days: float = 0) -> Finding:
    found = check_configuration(settings, NOW + timedelta(days=days))
    assert len(found) == 1, [str(each) for each in found]
    return found[0]


def error(settings: Settings, *, days: float = 0) -> str:
    found = only(settings, days=days)
    assert found.severity is Severity.ERROR, str(found)
    return str(found)


def warning(settings: Settings, *, days: float = 0) -> str:
    found = only(settings, days=days)
    assert found.severity is Severity.WARNING, str(found)
    return str(found)


def test_fresh_directory_has_no_findings(settings: Settings) -> None:
    assert check_configuration(settings, NOW) == ()


# --- emergency bypasses ---


def test_open_unreviewed_and_forged_bypasses(settings: Settings) -> None:
    state = settings.gateway.state_directory
    write_bypass(state, bypass())
    settings.audit.directory.mkdir(exist_ok=True)
    found = [str(each) for each in check_configuration(settings, NOW)]
    assert "run: dicomward bypass close 20260302-1, as soon as it isn't needed" in found[0]
    assert "bypass 20260302-1 has a file, but no record in the audit log; find out who changed it" in found[1]
    write_bypass(state, ended())
    assert "run: dicomward bypass review 20260302-1 --note TEXT" in str(check_configuration(settings, NOW)[0])


def test_bypasses_that_cannot_be_compared(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dicomward.io.installation.check.find_contradictions", fails)
    assert "the audit log can't be compared with them" in warning(settings)


# --- policy ---


def test_missing_policy(settings: Settings) -> None:
    settings.policy.file.unlink()
    assert "policy.toml: the policy can't be read (No such file or directory); correct [policy] file" in error(settings)


def test_policy_that_is_not_text(settings: Settings) -> None:
    settings.policy.file.write_bytes(b"\xff")
    assert error(settings).endswith("it is not UTF-8 text; save it as UTF-8")


def test_every_problem_of_the_policy_is_reported(settings: Settings) -> None:
    settings.policy.file.write_text('[[rule]]\nid = "a"\n\n[[rule]]\nid = "b"\neffect = "maybe"\n')
    found = check_configuration(settings, NOW)
    assert len(found) >= 2
    assert all(each.severity is Severity.ERROR and each.location.startswith("policy.toml") for each in found)


def test_warnings_of_the_policy_are_passed_on(settings: Settings) -> None:
    text = settings.policy.file.read_text()
    rule = '\n[[rule]]\nid = "odd"\neffect = "allow"\nrole = ["modality"]\noperation = ["c-find"]\n'
    settings.policy.file.write_text(text + rule + 'query_level = ["STUDY"]\nsop_class = ["CTImageStorage"]\n')
    found = check_configuration(settings, NOW)
    assert found
    assert all(each.location.startswith("policy.toml") for each in found)


# --- directories ---


def test_audit_directory_that_others_may_enter(settings: Settings) -> None:
    settings.audit.directory.chmod(0o750)
    assert f"other users may look into it; run: chmod 700 {settings.audit.directory}" in warning(settings)


def test_file_in_place_of_a_directory(settings: Settings) -> None:
    settings.gateway.state_directory.rmdir()
    settings.gateway.state_directory.write_text("")
    assert "run: it is not a directory; correct [gateway] state_directory" in error(settings)


def test_missing_directory_that_can_be_made_is_fine(settings: Settings) -> None:
    settings.gateway.state_directory.rmdir()
    assert check_configuration(settings, NOW) == ()


def test_directory_that_cannot_be_made(settings: Settings) -> None:
    gateway = replace(settings.gateway, state_directory=settings.path / "run")
    text = error(replace(settings, gateway=gateway))
    assert "there is no such directory, and it can't be made; make it, or correct [gateway] state_directory" in text


def test_directory_that_cannot_be_written(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access

    def deny(path: Path, mode: int) -> bool:
        return path != settings.audit.directory and real(path, mode)

    monkeypatch.setattr(os, "access", deny)
    assert "it can't be written by this user; give it to the user that the gateway runs as" in error(settings)


def with_second_sink(settings: Settings, path: Path) -> Settings:
    return replace(settings, audit=replace(settings.audit, second_sink=path))


def test_second_sink_that_can_be_made_or_written_is_fine(settings: Settings, tmp_path: Path) -> None:
    assert check_configuration(with_second_sink(settings, tmp_path / "second.jsonl"), NOW) == ()
    (tmp_path / "second.jsonl").touch()
    assert check_configuration(with_second_sink(settings, tmp_path / "second.jsonl"), NOW) == ()


def test_second_sink_that_cannot_be_written(settings: Settings, tmp_path: Path) -> None:
    assert "the second sink can't be written; correct" in error(with_second_sink(settings, tmp_path))
    assert "the second sink can't be written" in error(with_second_sink(settings, settings.path / "x"))


def test_second_sink_beside_the_first(settings: Settings) -> None:
    text = warning(with_second_sink(settings, settings.audit.directory / "second.jsonl"))
    assert "the second sink is inside the audit directory, and fails with it; put it on another disk" in text


# --- certificates ---


def make_certificate(
    directory: Path,
    *,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
    purposes: list[x509.ObjectIdentifier] | None = None,
    names: bool = True,
    begin: timedelta = timedelta(days=-1),
) -> CertificatePair:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "own")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW + begin)
        .not_valid_after(NOW + timedelta(days=300))
    )
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("x")]), critical=False)
    pair = CertificatePair(certificate=directory / "own.pem", key=directory / "own.key")
    pair.certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    pair.key.chmod(0o600)
    return pair


def with_pair(settings: Settings, *pairs: CertificatePair) -> Settings:
    return replace(settings, tls=replace(settings.tls, certificates=pairs))


def test_own_certificate_without_purposes_is_for_everything(settings: Settings, tmp_path: Path) -> None:
    assert check_configuration(with_pair(settings, make_certificate(tmp_path)), NOW) == ()


def test_certificate_not_for_servers(settings: Settings, tmp_path: Path) -> None:
    pair = make_certificate(tmp_path, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])
    assert "it is not for servers (EKU serverAuth); issue one" in error(with_pair(settings, pair))


def test_certificate_not_for_clients(settings: Settings, tmp_path: Path) -> None:
    pair = make_certificate(tmp_path, purposes=[ExtendedKeyUsageOID.SERVER_AUTH])
    assert "it is not for clients (EKU clientAuth)" in warning(with_pair(settings, pair))


def test_certificate_without_names(settings: Settings, tmp_path: Path) -> None:
    assert "it names no host (SAN)" in warning(with_pair(settings, make_certificate(tmp_path, names=False)))


def test_weak_certificate(settings: Settings, tmp_path: Path) -> None:
    pair = make_certificate(tmp_path, key=ec.generate_private_key(ec.SECP224R1()))
    assert "its key has 224 bits" in error(with_pair(settings, pair))


def test_certificate_that_has_not_begun(settings: Settings, tmp_path: Path) -> None:
    pair = make_certificate(tmp_path, begin=timedelta(days=1))
    assert "check the clock of this machine" in error(with_pair(settings, pair))


def test_key_of_another_certificate(settings: Settings) -> None:
    one, other = settings.tls.certificates
    mixed = CertificatePair(certificate=one.certificate, key=other.key)
    text = error(with_pair(settings, mixed))
    assert text.startswith("error: tls.certificates[0]: ")
    assert "is not the key of this certificate" in text


def test_missing_certificate(settings: Settings) -> None:
    settings.tls.certificates[1].certificate.unlink()
    assert "tls.certificates[1]: " in error(settings)


def test_key_that_others_may_read(settings: Settings) -> None:
    key = settings.tls.certificates[0].key
    key.chmod(0o640)
    assert f"other users may read this private key; run: chmod 600 {key}" in error(settings)


def test_key_of_the_authority_that_others_may_read(settings: Settings) -> None:
    (settings.directory / "ca" / "ca.key.pem").chmod(0o644)
    assert "ca.key.pem: other users may read this private key" in error(settings)


def test_authority_without_its_key_here_is_fine(settings: Settings) -> None:
    (settings.directory / "ca" / "ca.key.pem").unlink()
    assert check_configuration(settings, NOW) == ()


def test_chain_in_the_wrong_order(settings: Settings, tmp_path: Path) -> None:
    pair = make_certificate(tmp_path)
    with pair.certificate.open("ab") as file:
        file.write(LocalCa.make("stranger", NOW).certificate_pem)
    assert "its second certificate did not issue the first; order the chain" in error(with_pair(settings, pair))


def test_chain_in_the_right_order(settings: Settings) -> None:
    pair = settings.tls.certificates[0]
    with pair.certificate.open("ab") as file:
        file.write(settings.tls.client_ca.read_bytes())
    assert check_configuration(settings, NOW) == ()


@pytest.mark.parametrize(("days", "severity"), [(366, None), (368, Severity.WARNING), (398, Severity.ERROR)])
def test_gateway_certificates_that_end(settings: Settings, days: float, severity: Severity | None) -> None:
    found = check_configuration(settings, NOW + timedelta(days=days))
    assert [each.severity for each in found] == ([severity, severity] if severity else [])
    for each in found:
        assert "run: dicomward renew-gateway, then dicomward reload" in each.hint


@pytest.mark.parametrize("days", [3640, 3700])
def test_authority_that_ends(settings: Settings, tmp_path: Path, days: float) -> None:
    found = check_configuration(settings, NOW + timedelta(days=days))
    assert any("make a new CA in time" in each.hint for each in found)


def test_device_certificate_in_place_of_an_authority(settings: Settings, tmp_path: Path) -> None:
    authority = LocalCa.load(settings.directory / "ca")
    leaf = authority.issue_device("ct1", ["CT1"], KeyKind.ECDSA, NOW).certificate_pem
    (tmp_path / "ca.pem").write_bytes(leaf)
    changed = replace(settings, tls=replace(settings.tls, client_ca=tmp_path / "ca.pem"))
    assert "CN=ct1 is not a CA; put CA certificates there" in error(changed)


def test_old_certificate_without_extensions_is_not_an_authority(settings: Settings, tmp_path: Path) -> None:
    pair = make_certificate(tmp_path, names=False)
    changed = replace(settings, tls=replace(settings.tls, client_ca=pair.certificate))
    assert "CN=own is not a CA" in error(changed)


def test_missing_authority(settings: Settings) -> None:
    settings.tls.client_ca.unlink()
    assert error(settings).startswith("error: [tls] client_ca: ")


# --- registry ---


CERTIFICATE = CertificateRecord(
    sha256="d" * 64, not_before=NOW, not_after=NOW + timedelta(days=100), status="active", serial="1"
)
DEVICE = Device(name="ct1", ae_titles=("CT1",), role="modality", networks=("10.0.0.0/8",), certificates=(CERTIFICATE,))
RIS = Archive(
    name="RIS",
    ae_title="RIS",
    calling_ae_titles=("RIS",),
    endpoint=Endpoint(host="10.0.0.9", port=104),
    networks=("10.0.0.9/32",),
    dedicated_link=True,
)


def add_device(settings: Settings, device: Device = DEVICE) -> None:
    apply_change(settings, lambda store: store.add_device(device, by="anna", at=NOW))


def add_archive(settings: Settings, archive: Archive) -> None:
    apply_change(settings, lambda store: store.add_archive(archive, by="anna", at=NOW))


def listening(settings: Settings, host: str, *, tls: bool = False) -> Settings:
    gateway = replace(settings.gateway, archive_listen=ListenAddress(host=host, port=11113), archive_listen_tls=tls)
    return replace(settings, gateway=gateway)


def test_registered_device_and_archive_are_fine(settings: Settings) -> None:
    add_device(settings)
    add_archive(settings, RIS)
    assert check_configuration(settings, NOW) == ()


def test_missing_snapshot(settings: Settings) -> None:
    settings.registry.snapshot.unlink()
    assert "the registry snapshot can't be read (No such file or directory); repeat the last command" in error(settings)


@pytest.mark.parametrize("content", [b"{}", b"\xff", b"not json"])
def test_broken_snapshot(settings: Settings, content: bytes) -> None:
    settings.registry.snapshot.write_bytes(content)
    assert "registry.json: " in error(settings)


def test_snapshot_behind_the_database(settings: Settings) -> None:
    with RegistryStore.open(settings.registry.url) as store:
        before = store.read()
    add_device(settings)
    write_snapshot(settings.registry.snapshot, before)
    assert "it is at revision 1, the database at 2; repeat the last command" in error(settings)


def test_change_that_is_not_in_the_audit_log(settings: Settings) -> None:
    with RegistryStore.open(settings.registry.url) as store:
        write_snapshot(settings.registry.snapshot, store.add_device(DEVICE, by="anna", at=NOW))
    assert "1 registry changes are not in the audit log" in warning(settings)


def test_database_away_is_a_warning_because_the_gateway_serves_without(settings: Settings) -> None:
    (settings.directory / "registry.db").unlink()
    assert "until then devices can't be added or revoked" in warning(settings)


def test_database_with_a_broken_row(settings: Settings) -> None:
    with closing(sqlite3.connect(settings.directory / "registry.db")) as raw:
        raw.execute("UPDATE archives SET port = 0")
        raw.commit()
    assert "[registry] url: " in warning(settings)


@pytest.mark.parametrize(
    ("certificates", "message"),
    [
        ((), "no active certificate is bound"),
        ((replace(CERTIFICATE, status="revoked"),), "no active certificate is bound"),
        ((replace(CERTIFICATE, not_before=NOW - timedelta(days=9), not_after=NOW),), "its certificate ended at"),
        ((replace(CERTIFICATE, not_after=NOW + timedelta(days=29)),), "its certificate ends at"),
    ],
)
def test_device_whose_certificate_ends(
    settings: Settings, certificates: tuple[CertificateRecord, ...], message: str
) -> None:
    add_device(settings, replace(DEVICE, certificates=certificates))
    text = warning(settings)
    assert message in text
    assert "run: dicomward device renew ct1 --out DIR" in text


def test_suspended_device_is_nobody_to_warn_about(settings: Settings) -> None:
    add_device(settings, replace(DEVICE, certificates=(), role="nobody"))
    apply_change(settings, lambda store: store.set_device_status("ct1", DeviceStatus.SUSPENDED, by="anna", at=NOW))
    assert check_configuration(settings, NOW) == ()


def test_role_that_no_rule_names(settings: Settings) -> None:
    add_device(settings, replace(DEVICE, role="cardiology"))
    assert "device ct1: no rule allows anything to it (role 'cardiology', site '')" in warning(settings)


@pytest.mark.parametrize("who", ['device = ["ct1"]', 'site = ["Ward B"]'])
def test_device_that_a_rule_is_about_by_name_or_site_is_fine(settings: Settings, who: str) -> None:
    add_device(settings, replace(DEVICE, role="cardiology", site="Ward B"))
    with settings.policy.file.open("a") as file:
        file.write(f'\n[[rule]]\nid = "own"\neffect = "allow"\noperation = ["c-echo"]\n{who}\n')
    assert check_configuration(settings, NOW) == ()


def test_broken_policy_hides_no_problem_of_the_registry(settings: Settings) -> None:
    add_device(settings, replace(DEVICE, certificates=()))
    settings.policy.file.unlink()
    assert [each.severity for each in check_configuration(settings, NOW)] == [Severity.ERROR, Severity.WARNING]


def test_no_archive(settings: Settings) -> None:
    apply_change(settings, lambda store: store.remove_archive("PACS", by="anna", at=NOW))
    assert "no archive is registered, so nobody can be served; run: dicomward archive add" in warning(settings)


def test_plaintext_to_another_machine(settings: Settings) -> None:
    add_archive(settings, replace(RIS, dedicated_link=False))
    assert "the gateway refuses plaintext to another machine; register it with --tls --pin CERT" in error(settings)


def test_plaintext_from_another_machine(settings: Settings) -> None:
    local = replace(RIS, dedicated_link=False, endpoint=Endpoint(host="127.0.0.1", port=105))
    add_archive(settings, local)
    text = error(listening(settings, "10.0.0.1"))
    assert "it would call the gateway in plaintext over a shared network; set [gateway] archive_listen_tls" in text
    assert check_configuration(listening(settings, "10.0.0.1", tls=True), NOW) == ()
    assert check_configuration(listening(settings, "127.0.0.1"), NOW) == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda archive: replace(archive, calling_ae_titles=()),
        lambda archive: replace(archive, dedicated_link=True),
        lambda archive: replace(archive, networks=("127.0.0.0/8", "::1/128", "127.0.0.1/32")),
    ],
)
def test_plaintext_that_nobody_can_read_is_fine(settings: Settings, change: Callable[[Archive], Archive]) -> None:
    local = replace(RIS, dedicated_link=False, endpoint=Endpoint(host="127.0.0.1", port=105))
    add_archive(settings, change(local))
    assert check_configuration(listening(settings, "10.0.0.1"), NOW) == ()


def test_archive_with_tls_that_calls_a_listener_without(settings: Settings) -> None:
    add_archive(settings, replace(RIS, dedicated_link=False, tls=True, certificate_sha256="e" * 64))
    assert "it is known by its certificate, but calls a listener without TLS" in error(settings)


# --- names ---


def test_names_in_rules_that_nobody_has(settings: Settings) -> None:
    add_device(settings)
    with settings.policy.file.open("a") as file:
        file.write('\n[[rule]]\nid = "typo"\neffect = "allow"\noperation = ["c-echo"]\nrole = ["modality"]\n')
        file.write('device = ["ct1", "ct2"]\narchive = ["PACS", "ct1", "PASC"]\n')
    found = [str(each) for each in check_configuration(settings, NOW)]
    assert found == [
        "warning: rule typo: no device 'ct2' is registered; correct the name, or register it",
        "warning: rule typo: no archive 'PASC' is registered; correct the name, or register it",
    ]


def test_rule_about_a_replica_never_counts_and_that_is_said(settings: Settings) -> None:
    (primary,) = decode_snapshot(settings.registry.snapshot.read_text()).archives
    add_archive(settings, replace(primary, name="stand-in", replica_of=primary.name))
    with settings.policy.file.open("a") as file:
        file.write('\n[[rule]]\nid = "own"\neffect = "allow"\noperation = ["c-echo"]\nrole = ["modality"]\n')
        file.write('archive = ["stand-in"]\n')
    found = [str(each) for each in check_configuration(settings, NOW)]
    assert found == [
        "warning: rule own: 'stand-in' is a replica, and has no rules of its own: those of 'PACS' count for it; "
        "name 'PACS' instead"
    ]


def test_names_in_limits_that_nobody_has(settings: Settings) -> None:
    with settings.path.open("a") as file:
        file.write("\n[limits.device.ct9]\nassociations = 2\n[limits.archive.PASC]\nassociations = 2\n")
        file.write("[limits.archive.PACS]\nassociations = 2\n")
        file.write("[limits.role.workstatoin]\nassociations = 2\n[limits.role.modality]\nassociations = 2\n")
        file.write("[budgets.role.zzz]\npatients_per_day = 2\n[limits.dicom]\nmax_pdu_bytes = 4095\n")
        file.write("[budgets.device.ct8]\npatients_per_day = 2\n[budgets.device.PACS]\npatients_per_day = 2\n")
    found = [str(each) for each in check_configuration(load_settings(settings.path), NOW)]
    assert found == [
        "warning: limits.device.ct9: no such device is registered; correct the name",
        "warning: budgets.device.ct8: no such device or archive is registered; correct the name",
        "warning: limits.archive.PASC: no such target is registered; correct the name",
        "warning: limits.role.workstatoin: no device and no rule has this role; did you mean 'workstation'?",
        "warning: budgets.role.zzz: no device and no rule has this role; correct the name",
        "warning: limits.dicom.max_pdu_bytes: PDUs of 4095 bytes: some peers take no maximum below 4,096; "
        "write 16384 or more",
    ]


def test_finding_without_a_hint_ends_cleanly() -> None:
    assert str(Finding(Severity.ERROR, "x", "y", "")) == "error: x: y"


# --- monitoring ---


@pytest.mark.parametrize(
    ("host", "is_open"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("10.0.0.1", True)]
)
def test_metrics_beyond_loopback_are_warned_of(settings: Settings, host: str, is_open: bool) -> None:
    where = ListenAddress(host=host, port=9762)
    settings = replace(settings, metrics=replace(settings.metrics, listen=where))
    if is_open:
        assert "it has no TLS and asks nobody who they are; use 127.0.0.1" in warning(settings)
    else:
        assert check_configuration(settings, NOW) == ()


# --- legacy zones and observing ---


def with_zone(settings: Settings, *, ends_in: int, network: str = "10.1.2.0/24") -> Settings:
    zone = LegacyZone(name="old", networks=(network,), end_date=NOW.astimezone().date() + timedelta(days=ends_in))
    return replace(
        settings,
        legacy_zones=(LegacyZoneSettings(zone=zone, listen=ListenAddress(host="127.0.0.1", port=11114)),),
    )


def add_plain(settings: Settings, zone: str = "old", **changes: object) -> None:
    device = Device(name="us1", ae_titles=("US1",), role="modality", networks=("10.1.2.9/32",), legacy_zone=zone)
    device = replace(device, **changes)  # type: ignore[arg-type]
    apply_change(settings, lambda store: store.add_device(device, by="anna", at=NOW))


@pytest.mark.parametrize(
    ("days", "message"),
    [
        (30, "legacy zone old: it ends on"),
        (0, "0 days from now"),
        (-1, "legacy zone old: it was over at the end of"),
    ],
)
def test_end_of_a_legacy_zone_is_warned_about(settings: Settings, days: int, message: str) -> None:
    assert message in warning(with_zone(settings, ends_in=days))


def test_device_in_a_legacy_zone_needs_no_certificate(settings: Settings) -> None:
    settings = with_zone(settings, ends_in=31)
    add_plain(settings)
    assert check_configuration(settings, NOW) == ()


def test_device_in_a_zone_that_does_not_exist_is_found(settings: Settings) -> None:
    add_plain(settings, "nowhere")
    assert "the settings have no legacy zone 'nowhere'" in warning(settings)


def test_device_outside_its_zone_is_found(settings: Settings) -> None:
    settings = with_zone(settings, ends_in=100, network="10.7.0.0/16")
    add_plain(settings)
    assert "none of its networks lies in those of the legacy zone 'old'" in warning(settings)


def test_observed_device_is_found(settings: Settings) -> None:
    settings = with_zone(settings, ends_in=100)
    add_plain(settings, observe_until=NOW + timedelta(days=1))
    assert "so nothing is refused to it; run: dicomward policy suggest --device us1" in warning(settings)
    assert check_configuration(settings, NOW + timedelta(days=2)) == ()


def test_suspended_device_in_a_zone_is_no_finding(settings: Settings) -> None:
    add_plain(settings, "nowhere", status=DeviceStatus.SUSPENDED)
    assert check_configuration(settings, NOW) == ()
