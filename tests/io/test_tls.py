"""TLS contexts and certificates: handshakes in memory, as the gateway makes them, without a socket in between."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from dicomward.io import tls
from dicomward.io.ca.local import Issued, KeyKind, LocalCa
from dicomward.io.tls import (
    CaDates,
    CertificateFiles,
    PeerCertificates,
    TlsConfigurationError,
    client_context,
    reason_of,
    server_context,
    verifying_client_context,
)
from dicomward.vocab.reason import ReasonCode
from tests.directory_helpers import now

TLS12 = ssl.TLSVersion.TLSv1_2
TLS13 = ssl.TLSVersion.TLSv1_3


@cache
def authority(name: str = "Test CA") -> LocalCa:
    # RSA roots take a second to make.
    return LocalCa.make(name, now())


@dataclass(frozen=True)
class Files:
    """The files of a test: server certificates of both kinds, the CA, and a device."""

    directory: Path
    ca: Path
    servers: tuple[CertificateFiles, ...]
    device: CertificateFiles
    device_issued: Issued

    def server_context(self, minimum: ssl.TLSVersion = TLS12) -> ssl.SSLContext:
        return server_context(self.servers, self.ca, minimum)

    def device_context(self, *, maximum: ssl.TLSVersion | None = None, ciphers: str = "") -> ssl.SSLContext:
        """A device's own context: OpenSSL's defaults, not ours."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca)
        context.load_cert_chain(self.device.certificate, self.device.key)
        if maximum is not None:
            context.maximum_version = maximum
        if ciphers:
            context.set_ciphers(ciphers)
        return context


def save(directory: Path, name: str, issued: Issued) -> CertificateFiles:
    files = CertificateFiles(directory / f"{name}.cert.pem", directory / f"{name}.key.pem")
    files.certificate.write_bytes(issued.certificate_pem)
    files.key.write_bytes(issued.key_pem)
    return files


def issue_device(born: datetime, days: int, ca: LocalCa | None = None) -> Issued:
    return (ca or authority()).issue_device("ct1", ("CT1",), KeyKind.ECDSA, born, days=days)


@cache
def server_certificates() -> dict[KeyKind, Issued]:
    return {kind: authority().issue_gateway(kind, ["127.0.0.1", "localhost"], now()) for kind in KeyKind}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority().certificate_pem)
    issued = issue_device(now(), 30)
    return Files(
        directory=tmp_path,
        ca=ca,
        servers=tuple(save(tmp_path, kind, one) for kind, one in server_certificates().items()),
        device=save(tmp_path, "device", issued),
        device_issued=issued,
    )


@dataclass
class Handshake:
    """Both ends of a connection in memory; each error is what its end saw."""

    client: ssl.SSLObject
    server: ssl.SSLObject
    client_error: ssl.SSLError | None = None
    server_error: ssl.SSLError | None = None

    @property
    def server_certificate(self) -> x509.Certificate:
        der = self.client.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der)


def shake_hands(
    client: ssl.SSLContext,
    server: ssl.SSLContext,
    *,
    name: str | None = "localhost",
    session: ssl.SSLSession | None = None,
) -> Handshake:
    """Let both ends go on until neither has anything more to say, and read the tickets."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    made = Handshake(
        client.wrap_bio(down, up, server_hostname=name, session=session), server.wrap_bio(up, down, server_side=True)
    )
    for _ in range(6):
        made.client_error = made.client_error or _go_on(made.client)
        made.server_error = made.server_error or _go_on(made.server)
    return made


def _go_on(end: ssl.SSLObject) -> ssl.SSLError | None:
    try:
        end.do_handshake()
        end.read(1)
    except ssl.SSLWantReadError:
        pass
    except ssl.SSLError as error:
        return error
    return None


def is_done(made: Handshake) -> bool:
    return made.client_error is None and made.server_error is None and made.server.version() is not None


# -- versions and suites ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_device_with_a_certificate_connects_in_both_versions(files: Files, version: ssl.TLSVersion) -> None:
    made = shake_hands(files.device_context(maximum=version), files.server_context())
    assert is_done(made)
    assert made.server.version() == {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}[version]
    assert made.server.compression() is None


def old_context(files: Files) -> ssl.SSLContext:
    context = files.device_context(ciphers="ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def test_tls_1_1_is_refused(files: Files) -> None:
    made = shake_hands(old_context(files), files.server_context())
    assert made.server_error is not None
    assert reason_of(made.server_error) == (ReasonCode.TLS_FAILED, "UNSUPPORTED_PROTOCOL")
    # The same client gets in where 1.1 is allowed: it was our minimum that refused it.
    lax = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    lax.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        lax.minimum_version = ssl.TLSVersion.TLSv1_1
    lax.load_cert_chain(files.servers[0].certificate, files.servers[0].key)
    lax.load_cert_chain(files.servers[1].certificate, files.servers[1].key)
    assert is_done(shake_hands(old_context(files), lax))


def test_tls_1_2_is_refused_where_the_minimum_is_1_3(files: Files) -> None:
    made = shake_hands(files.device_context(maximum=TLS12), files.server_context(TLS13))
    assert made.server_error is not None
    assert made.server_error.reason == "UNSUPPORTED_PROTOCOL"
    assert is_done(shake_hands(files.device_context(), files.server_context(TLS13)))


@pytest.mark.parametrize("ciphers", ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"])
def test_suite_without_forward_secrecy_or_aead_is_refused(files: Files, ciphers: str) -> None:
    made = shake_hands(files.device_context(maximum=TLS12, ciphers=ciphers), files.server_context())
    assert made.server_error is not None
    assert made.server_error.reason == "NO_SHARED_CIPHER"


def test_every_suite_has_forward_secrecy_and_aead(files: Files) -> None:
    own = client_context(files.servers, TLS12)
    for context in (files.server_context(), own, verifying_client_context(files.ca, None, check_host=True)):
        suites = context.get_ciphers()
        assert len(suites) == 9
        assert all(suite["aead"] for suite in suites)
        assert all(suite["protocol"] == "TLSv1.3" or suite["name"].startswith("ECDHE-") for suite in suites)


@pytest.mark.parametrize(
    ("ciphers", "algorithm"),
    [("ECDHE-RSA-AES128-GCM-SHA256", "RSA"), ("ECDHE-ECDSA-AES128-GCM-SHA256", "EC")],
)
def test_device_gets_the_kind_of_certificate_that_it_can_verify(files: Files, ciphers: str, algorithm: str) -> None:
    made = shake_hands(files.device_context(maximum=TLS12, ciphers=ciphers), files.server_context())
    assert is_done(made)
    assert type(made.server_certificate.public_key()).__name__ == f"{algorithm}PublicKey"


# -- client authentication -------------------------------------------------------------------------------------------


def test_client_without_a_certificate_is_refused_and_the_reason_says_so(files: Files) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files.ca)
    made = shake_hands(context, files.server_context())
    assert made.server_error is not None
    assert reason_of(made.server_error) == (ReasonCode.NO_CERTIFICATE, "PEER_DID_NOT_RETURN_A_CERTIFICATE")


def test_certificate_of_another_ca_is_refused_and_the_reason_says_why(files: Files) -> None:
    stranger = save(files.directory, "stranger", issue_device(now(), 30, authority("Other CA")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files.ca)
    context.load_cert_chain(stranger.certificate, stranger.key)
    made = shake_hands(context, files.server_context())
    assert made.server_error is not None
    reason, detail = reason_of(made.server_error)
    assert reason is ReasonCode.TLS_FAILED
    assert detail.startswith("CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate")


def test_failure_without_a_reason_is_told_in_its_own_words() -> None:
    with pytest.raises(ssl.SSLError) as raised:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="hello")
    # OpenSSL gives this one no reason.
    assert reason_of(raised.value) == (ReasonCode.TLS_FAILED, str(raised.value))


def test_call_to_a_pinned_peer_asks_no_ca_and_reads_its_pin_only(files: Files) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.device.certificate, files.device.key)
    made = shake_hands(client_context(files.servers, TLS12), server, name=None)
    assert is_done(made)
    certificate = PeerCertificates(None).read(made.client)
    assert certificate is not None
    assert certificate.sha256 == files.device_issued.record.sha256
    assert certificate.subject == ""
    assert certificate.not_before < now() < certificate.not_after


def test_call_to_a_pinned_peer_shows_the_first_certificate(files: Files) -> None:
    made = shake_hands(client_context(files.servers, TLS12), files.server_context(), name=None)
    certificate = PeerCertificates(None).read(made.server)
    assert certificate is not None
    assert certificate.sha256 == server_certificates()[KeyKind.ECDSA].record.sha256


def test_peer_that_shows_no_certificate_has_none(files: Files) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.device.certificate, files.device.key)
    made = shake_hands(client_context(files.servers, TLS12), server, name=None)
    assert PeerCertificates(None).read(made.server) is None


# -- a device's own call ---------------------------------------------------------------------------------------------


def test_verifying_call_accepts_the_server_that_its_ca_has_issued(files: Files) -> None:
    client = verifying_client_context(files.ca, files.device, check_host=True)
    assert is_done(shake_hands(client, files.server_context()))


def test_verifying_call_refuses_another_ca(files: Files) -> None:
    other = files.directory / "other.pem"
    other.write_bytes(authority("Other CA").certificate_pem)
    made = shake_hands(verifying_client_context(other, files.device, check_host=True), files.server_context())
    assert made.client_error is not None
    assert made.client_error.reason == "CERTIFICATE_VERIFY_FAILED"


@pytest.mark.parametrize("check_host", [True, False])
def test_verifying_call_compares_the_host_unless_told_not_to(files: Files, check_host: bool) -> None:
    client = verifying_client_context(files.ca, files.device, check_host=check_host)
    made = shake_hands(client, files.server_context(), name="elsewhere.example")
    assert is_done(made) is not check_host


def test_verifying_call_without_a_certificate_of_its_own_is_possible(files: Files) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.servers[0].certificate, files.servers[0].key)
    assert is_done(shake_hands(verifying_client_context(files.ca, None, check_host=True), server))


# -- times -----------------------------------------------------------------------------------------------------------


def read_device(files: Files, issued: Issued, *, ca: Path | None = None) -> tuple[datetime, datetime]:
    """Connect with a certificate; return the times that the gateway reads."""
    device = save(files.directory, "other", issued)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files.ca)
    context.load_cert_chain(device.certificate, device.key)
    server = server_context(files.servers, ca or files.ca, TLS12)
    made = shake_hands(context, server)
    assert is_done(made), made
    certificate = PeerCertificates(CaDates(server)).read(made.server)
    assert certificate is not None
    assert certificate.sha256 == issued.record.sha256
    assert certificate.subject == "commonName=ct1"
    return certificate.not_before, certificate.not_after


def test_certificate_that_has_ended_connects_and_its_times_are_read(files: Files) -> None:
    issued = issue_device(now() - timedelta(days=10), 3)
    assert read_device(files, issued) == (issued.record.not_before, issued.record.not_after)
    assert issued.record.not_after < now()


def test_certificate_that_has_not_begun_connects_and_its_times_are_read(files: Files) -> None:
    issued = issue_device(now() + timedelta(days=10), 30)
    assert read_device(files, issued) == (issued.record.not_before, issued.record.not_after)
    assert issued.record.not_before > now()


def shorter_lived(ca: LocalCa, not_after: datetime) -> bytes:
    """Return the certificate of a CA with the same key and name, and another end, as PEM."""
    old = ca.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(old.serial_number + 1)
        .not_valid_before(not_after - timedelta(days=1))
        .not_valid_after(not_after)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(ca._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("days", [-2, 2])
def test_certificate_ends_with_its_ca_though_it_says_later(files: Files, days: int) -> None:
    end = now().replace(microsecond=0) + timedelta(days=days)
    short = files.directory / "short.pem"
    short.write_bytes(shorter_lived(authority(), end))
    assert read_device(files, issue_device(now(), 30), ca=short)[1] == end


def test_longest_lived_of_two_cas_with_a_name_counts(files: Files) -> None:
    both = files.directory / "both.pem"
    renewed = shorter_lived(authority(), now() - timedelta(days=2))
    for pems in ((renewed, authority().certificate_pem), (authority().certificate_pem, renewed)):
        both.write_bytes(b"".join(pems))
        dates = CaDates(server_context(files.servers, both, TLS12))
        subject = ((("commonName", "Test CA"),),)
        end = authority().certificate.not_valid_after_utc
        assert dates.end_for(subject, end + timedelta(days=1)) == end


def test_issuer_that_is_not_ours_ends_nothing(files: Files) -> None:
    later = now() + timedelta(days=36_500)
    assert CaDates(files.server_context()).end_for(((("commonName", "else"),),), later) == later


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_resumed_handshake_reads_the_same_certificate(files: Files, version: ssl.TLSVersion) -> None:
    client, server = files.device_context(maximum=version), files.server_context()
    first = shake_hands(client, server)
    second = shake_hands(client, server, session=first.client.session)
    assert (first.server.session_reused, second.server.session_reused) == (False, True)
    # Each with a memory of its own: both are read off the handshake.
    read = [PeerCertificates(CaDates(server)).read(made.server) for made in (first, second)]
    assert read[0] is not None
    assert read[0].sha256 == files.device_issued.record.sha256
    assert read[0] == read[1]


def test_certificate_is_parsed_once_and_the_memory_is_bounded(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_REMEMBERED", 1)
    server = files.server_context()
    certificates = PeerCertificates(CaDates(server))
    made = shake_hands(files.device_context(), server)
    other = shake_hands(client_context(files.servers, TLS12), server, name=None)
    first = certificates.read(made.server)
    assert certificates.read(made.server) is first
    assert certificates.read(other.server) != first
    assert certificates.read(made.server) is not first
    assert certificates.read(made.server) == first
    assert len(certificates._known) == 1


# -- files -----------------------------------------------------------------------------------------------------------


def broken(files: Files, kind: str) -> CertificateFiles:
    good, other = files.servers
    match kind:
        case "missing":
            return CertificateFiles(files.directory / "nothing.pem", good.key)
        case "missing key":
            return CertificateFiles(good.certificate, files.directory / "nothing.pem")
        case "mixed up":
            return CertificateFiles(good.certificate, other.key)
        case "no PEM":
            (files.directory / "text.pem").write_text("hello")
            return CertificateFiles(files.directory / "text.pem", good.key)
    encrypted = files.directory / "encrypted.pem"
    key = serialization.load_pem_private_key(good.key.read_bytes(), None)
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return CertificateFiles(good.certificate, encrypted)


@pytest.mark.parametrize("kind", ["missing", "missing key", "mixed up", "no PEM", "passphrase"])
def test_pair_that_cannot_be_used_is_named(files: Files, kind: str) -> None:
    pair = broken(files, kind)
    makes: list[Callable[[], object]] = [
        lambda: server_context([pair], files.ca, TLS12),
        lambda: client_context([pair], TLS12),
        lambda: verifying_client_context(files.ca, pair, check_host=True),
    ]
    for make in makes:
        with pytest.raises(TlsConfigurationError) as raised:
            make()
        assert f"certificate {pair.certificate} with key {pair.key} can't be used: " in str(raised.value)


@pytest.mark.parametrize("content", [None, "", "hello"])
def test_ca_that_cannot_be_read_is_named(files: Files, content: str | None) -> None:
    ca = files.directory / "bad.pem"
    if content is not None:
        ca.write_text(content)
    with pytest.raises(TlsConfigurationError, match=r"the client CA .*bad\.pem can't be read: "):
        server_context(files.servers, ca, TLS12)
    with pytest.raises(TlsConfigurationError, match=r"the CA .*bad\.pem can't be read: "):
        verifying_client_context(ca, None, check_host=True)
