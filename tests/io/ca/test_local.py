"""The local CA: its certificates pass strict verification, and what can't be right is refused."""

import datetime as dt
import ipaddress
import os
import ssl
import stat
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from dicomward.enrolment.profile import ae_title_uri
from dicomward.io.ca.local import (
    BACKDATED,
    Issued,
    KeyKind,
    LocalCa,
    LocalCaError,
    certificate_record,
    is_issued_by,
    load_certificates,
    verify_for_clients,
    verify_key_matches,
    verify_strength,
    write_new_file,
)

NOW = datetime.now(UTC).replace(microsecond=0)  # noqa: TID251  TLS compares with the real clock

# Named, so that the linter does not take it for one of ours.
WEAK_BITS = 1024


@pytest.fixture(scope="module")
def ca() -> LocalCa:
    return LocalCa.make("Test CA", NOW)


@pytest.fixture
def directory(ca: LocalCa, tmp_path: Path) -> Path:
    ca.save(tmp_path)
    return tmp_path


def parsed(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.certificate_pem)


def self_signed(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey,
    algorithm: hashes.HashAlgorithm | None,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, algorithm)  # type: ignore[arg-type]
    )


def test_root_is_rsa_and_may_sign_certificates_and_nothing_below_leaves(ca: LocalCa) -> None:
    root = ca.certificate
    key = root.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 3072
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    assert root.not_valid_before_utc == NOW - BACKDATED
    assert timedelta(days=3650) < root.not_valid_after_utc - NOW < timedelta(days=3654)
    assert root.subject == root.issuer
    identifier = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = root.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier == identifier.digest


@pytest.mark.parametrize("kind", list(KeyKind))
def test_device_certificate_names_titles_and_host(ca: LocalCa, kind: KeyKind) -> None:
    issued = ca.issue_device("ct1", ["CT1", "CT 1/STORE"], kind, NOW, host="ct1.hospital.example", days=90)
    certificate = parsed(issued)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "urn:dicom:ae:CT1",
        "urn:dicom:ae:CT%201%2FSTORE",
    ]
    assert names.get_values_for_type(x509.DNSName) == ["ct1.hospital.example"]
    assert certificate.subject.rfc4514_string() == "CN=ct1"
    assert certificate.not_valid_before_utc == NOW - BACKDATED
    assert certificate.not_valid_after_utc == NOW + timedelta(days=90)
    assert certificate.signature_hash_algorithm is not None
    assert certificate.signature_hash_algorithm.name == "sha256"
    key = certificate.public_key()
    if kind is KeyKind.RSA:
        assert isinstance(key, rsa.RSAPublicKey)
        assert key.key_size == 2048
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp256r1"
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.key_encipherment is (kind is KeyKind.RSA)
    assert not usage.key_cert_sign
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert issued.record.sha256 == certificate.fingerprint(hashes.SHA256()).hex()
    assert issued.record.serial == f"{certificate.serial_number:x}"
    assert issued.record.status == "active"
    assert (issued.record.not_before, issued.record.not_after) == (NOW - BACKDATED, NOW + timedelta(days=90))


def test_device_with_an_ip_address_has_it_as_ip_address(ca: LocalCa) -> None:
    names = parsed(ca.issue_device("ct1", ["CT1"], KeyKind.ECDSA, NOW, host="fe80::7%eth0")).extensions
    value = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert value.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("fe80::7")]


def test_gateway_certificate_lives_397_days_for_its_hosts(ca: LocalCa) -> None:
    certificate = parsed(ca.issue_gateway(KeyKind.ECDSA, ["localhost", "127.0.0.1", "::1"], NOW))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert certificate.not_valid_after_utc == NOW + timedelta(days=397)


def test_serial_numbers_are_large_positive_and_differ(ca: LocalCa) -> None:
    serials = {parsed(ca.issue_device("a", ["A"], KeyKind.ECDSA, NOW)).serial_number for _ in range(8)}
    assert len(serials) == 8
    assert all(0 < serial < 1 << 128 for serial in serials)
    assert max(serials) > 1 << 96


def test_leaf_never_outlives_the_root(ca: LocalCa) -> None:
    end = ca.certificate.not_valid_after_utc
    certificate = parsed(ca.issue_device("a", ["A"], KeyKind.ECDSA, end - timedelta(days=2)))
    assert certificate.not_valid_after_utc == end


def test_ended_root_issues_nothing(ca: LocalCa) -> None:
    with pytest.raises(LocalCaError, match=r"the CA's own certificate ended at .*; make a new CA"):
        ca.issue_device("a", ["A"], KeyKind.ECDSA, ca.certificate.not_valid_after_utc)


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_impossible_life_is_refused(ca: LocalCa, days: int) -> None:
    with pytest.raises(LocalCaError, match=f"a life of {days} days is not possible; choose 1 to 3650"):
        ca.issue_device("a", ["A"], KeyKind.ECDSA, NOW, days=days)


def test_host_name_outside_ascii_is_refused(ca: LocalCa) -> None:
    with pytest.raises(LocalCaError, match="'röntgen' can't stand in a certificate; write the name in its ASCII form"):
        ca.issue_gateway(KeyKind.ECDSA, ["röntgen"], NOW)


def test_key_does_not_show_in_repr(ca: LocalCa) -> None:
    issued = ca.issue_device("a", ["A"], KeyKind.ECDSA, NOW)
    assert "PRIVATE" not in repr(issued)
    assert issued.record.sha256 in repr(issued)


@pytest.mark.parametrize(("title", "uri"), [("A_B-1", "urn:dicom:ae:A_B-1"), ("Ä/%", "urn:dicom:ae:%C3%84%2F%25")])
def test_title_is_percent_encoded(title: str, uri: str) -> None:
    assert ae_title_uri(title) == uri


# --- verified by others ---


@pytest.mark.parametrize("kind", list(KeyKind))
def test_chain_passes_the_verifier_of_cryptography(ca: LocalCa, kind: KeyKind) -> None:
    store = Store([ca.certificate])
    device = parsed(ca.issue_device("ct1", ["CT1"], kind, NOW))
    gateway = parsed(ca.issue_gateway(kind, ["localhost"], NOW))
    builder = PolicyBuilder().store(store).time(NOW)
    assert builder.build_client_verifier().verify(device, []).chain[0] == device
    assert builder.build_server_verifier(x509.DNSName("localhost")).verify(gateway, [])[0] == gateway


@pytest.mark.parametrize("kind", list(KeyKind))
def test_chain_passes_openssl_strictly(ca: LocalCa, kind: KeyKind, directory: Path) -> None:
    (directory / "leaf.pem").write_bytes(ca.issue_device("ct1", ["CT1"], kind, NOW).certificate_pem)
    for purpose in ("sslclient", "sslserver"):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.cert.pem", "leaf.pem"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@dataclass
class Peer:
    """One end of a handshake in memory."""

    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO

    @classmethod
    def of(cls, context: ssl.SSLContext, *, server: bool) -> "Peer":
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server else "localhost"
        return cls(context.wrap_bio(incoming, outgoing, server_side=server, server_hostname=name), incoming, outgoing)

    def step(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True


@pytest.mark.parametrize("kind", list(KeyKind))
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_mutual_handshake_with_strict_verification(
    ca: LocalCa, kind: KeyKind, version: ssl.TLSVersion, directory: Path
) -> None:
    """Python 3.13 turns VERIFY_X509_STRICT on by default."""
    for name, issued in (
        ("gateway", ca.issue_gateway(kind, ["localhost"], NOW)),
        ("device", ca.issue_device("ct1", ["CT1"], kind, NOW)),
    ):
        (directory / f"{name}.key").write_bytes(issued.key_pem)
        (directory / f"{name}.pem").write_bytes(issued.certificate_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context, name in ((server, "gateway"), (client, "device")):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(directory / "ca.cert.pem")
        context.load_cert_chain(directory / f"{name}.pem", directory / f"{name}.key")
        context.minimum_version = context.maximum_version = version
    ends = Peer.of(client, server=False), Peer.of(server, server=True)
    done = [False, False]
    while not all(done):
        for index, (mine, other) in enumerate((ends, ends[::-1])):
            done[index] = done[index] or mine.step()
            other.incoming.write(mine.outgoing.read())
    certificate = ends[1].tls.getpeercert()
    assert certificate is not None
    assert ("URI", "urn:dicom:ae:CT1") in certificate["subjectAltName"]


# --- files ---


def test_saved_root_is_loaded_again_and_issues(ca: LocalCa, directory: Path) -> None:
    loaded = LocalCa.load(directory)
    assert loaded.certificate == ca.certificate
    assert is_issued_by(parsed(loaded.issue_device("a", ["A"], KeyKind.ECDSA, NOW)), [ca.certificate])


def test_key_file_is_for_its_owner_only_whatever_the_umask(ca: LocalCa, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        ca.save(tmp_path)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "ca.key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca.cert.pem").stat().st_mode) == 0o644


def test_nothing_is_overwritten(ca: LocalCa, directory: Path) -> None:
    before = (directory / "ca.key.pem").read_bytes()
    with pytest.raises(FileExistsError):
        ca.save(directory)
    with pytest.raises(FileExistsError):
        write_new_file(directory / "ca.key.pem", b"x", 0o600)
    assert (directory / "ca.key.pem").read_bytes() == before


def test_file_that_cannot_be_finished_is_not_left_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_new_file(tmp_path / "key.pem", b"x", 0o600)
    assert list(tmp_path.iterdir()) == []


def test_root_with_another_key_is_refused(ca: LocalCa, directory: Path) -> None:
    other = ca.issue_device("a", ["A"], KeyKind.RSA, NOW)
    (directory / "ca.key.pem").write_bytes(other.key_pem)
    with pytest.raises(LocalCaError, match=r"is not the key of ca.cert.pem; put the pair back"):
        LocalCa.load(directory)


def test_root_with_a_key_of_another_kind_is_refused(directory: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    (directory / "ca.key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(LocalCaError, match="is neither an RSA nor an EC key"):
        LocalCa.load(directory)


# No key: nothing that looks like one belongs in the tree, so the armour is put together here.
@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN " + b"PRIVATE KEY-----\nAAAA\n-----END " + b"PRIVATE KEY-----\n"]
)
def test_file_without_a_key_is_explained(directory: Path, content: bytes) -> None:
    (directory / "ca.key.pem").write_bytes(content)
    with pytest.raises(LocalCaError, match=r"ca.key.pem is no private key in PEM without a passphrase"):
        LocalCa.load(directory)


def test_key_with_a_passphrase_is_explained(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (directory / "ca.key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    with pytest.raises(LocalCaError, match="without a passphrase"):
        LocalCa.load(directory)


def test_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(LocalCaError, match=r"ca.cert.pem can't be read \(No such file or directory\); check the path"):
        LocalCa.load(tmp_path)


def test_certificates_are_read_as_pem_bundle_and_as_der(ca: LocalCa, tmp_path: Path) -> None:
    other = LocalCa.make("Other", NOW)
    (tmp_path / "bundle.pem").write_bytes(ca.certificate_pem + other.certificate_pem)
    (tmp_path / "one.der").write_bytes(ca.certificate.public_bytes(serialization.Encoding.DER))
    assert load_certificates(tmp_path / "bundle.pem") == (ca.certificate, other.certificate)
    assert load_certificates(tmp_path / "one.der") == (ca.certificate,)


@pytest.mark.parametrize("content", [b"", b"text", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_file_without_a_certificate_is_explained(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pem").write_bytes(content)
    with pytest.raises(LocalCaError, match=r"x.pem holds no certificate in PEM or DER"):
        load_certificates(tmp_path / "x.pem")


def test_key_that_does_not_belong_to_the_certificate_is_found(ca: LocalCa, tmp_path: Path) -> None:
    one, other = (ca.issue_device("a", ["A"], KeyKind.ECDSA, NOW) for _ in range(2))
    (tmp_path / "one.key").write_bytes(one.key_pem)
    (tmp_path / "other.key").write_bytes(other.key_pem)
    verify_key_matches(parsed(one), tmp_path / "one.key")
    with pytest.raises(LocalCaError, match=r"other.key is not the key of this certificate"):
        verify_key_matches(parsed(one), tmp_path / "other.key")


# --- certificates of others ---


def test_issuer_is_told_apart_from_a_namesake(ca: LocalCa) -> None:
    namesake = LocalCa.make("Test CA", NOW)
    certificate = parsed(ca.issue_device("a", ["A"], KeyKind.ECDSA, NOW))
    assert is_issued_by(certificate, [LocalCa.make("Other", NOW).certificate, ca.certificate])
    assert not is_issued_by(certificate, [namesake.certificate])
    assert not is_issued_by(certificate, [])


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_strong_certificates_pass(curve: ec.EllipticCurve) -> None:
    verify_strength(self_signed(ec.generate_private_key(curve), hashes.SHA256()))


@pytest.mark.parametrize(
    ("certificate", "message"),
    [
        (self_signed(rsa.generate_private_key(65537, WEAK_BITS), hashes.SHA256()), "its key has 1024 bits"),
        (self_signed(ec.generate_private_key(ec.SECP224R1()), hashes.SHA256()), "its key has 224 bits"),
        (self_signed(ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()), "its key is on the curve secp256k1"),
        (self_signed(ed25519.Ed25519PrivateKey.generate(), None), "its key is neither RSA nor EC"),
        (self_signed(ec.generate_private_key(ec.SECP256R1()), hashes.SHA224()), "it is not signed with SHA-256"),
    ],
)
def test_weak_certificates_are_refused(certificate: x509.Certificate, message: str) -> None:
    with pytest.raises(LocalCaError, match=message):
        verify_strength(certificate)


@pytest.mark.parametrize(
    ("usages", "fits"),
    [
        (None, True),
        ([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH], False),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], False),
    ],
)
def test_a_certificate_must_be_for_clients(usages: list[x509.ObjectIdentifier] | None, fits: bool) -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    if fits:
        verify_for_clients(certificate)
        return
    with pytest.raises(LocalCaError, match="it is not for clients"):
        verify_for_clients(certificate)


def test_extensions_that_cant_be_read_are_explained() -> None:
    broken = SimpleNamespace(extensions=Broken())
    with pytest.raises(LocalCaError, match="its extensions can't be read"):
        verify_for_clients(broken)  # type: ignore[arg-type]


class Broken:
    """Extensions that are twice there, as cryptography tells it."""

    def get_extension_for_class(self, _kind: type) -> None:
        raise ValueError("duplicate extension")


def test_ec_key_signed_with_ed25519_is_refused() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(ed25519.Ed25519PrivateKey.generate(), None)
    )
    with pytest.raises(LocalCaError, match="it is not signed with SHA-256"):
        verify_strength(certificate)


def test_record_keeps_what_the_registry_needs(ca: LocalCa) -> None:
    record = certificate_record(ca.certificate)
    assert record.sha256 == ca.certificate.fingerprint(hashes.SHA256()).hex()
    assert record.not_before.tzinfo is dt.UTC
