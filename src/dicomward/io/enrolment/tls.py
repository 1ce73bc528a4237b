"""The enrolment server's own certificate: made by the CA at the start, kept in memory, made anew in good time."""

import logging
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dicomward.enrolment.est import CMC_RA
from dicomward.io.ca.local import LocalCaError
from dicomward.io.ca.sign import Authority, new_serial, pem_of
from dicomward.io.ca.terms import CaError
from dicomward.io.tls import NO_CHECK_TIME

_log = logging.getLogger(__name__)

LIFE: Final = timedelta(days=14)
_BACKDATED: Final = timedelta(hours=1)


class ServerTls:
    """Gives the TLS context; safe to be used from many threads."""

    def __init__(
        self,
        authority: Callable[[], Authority],
        trusted: Callable[[], Iterable[x509.Certificate]],
        names: Iterable[str],
        clock: Callable[[], datetime],
    ) -> None:
        """Make the first certificate.

        `authority` is the CA that issues now, `trusted` are the CAs of client certificates: both change. `names`: host
        names and addresses of the server. Raises CaError, LocalCaError.
        """
        self._find_authority, self._find_trusted, self._clock = authority, trusted, clock
        self._names = tuple(dict.fromkeys(names))
        self._lock = threading.Lock()
        self._make()

    def context(self) -> ssl.SSLContext:
        """Return the context for the next connection."""
        with self._lock:
            self._refresh()
            return self._context

    def credential(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        """Return the server's key and certificate, which sign the answers of CMP, too."""
        with self._lock:
            self._refresh()
            return self._credential

    def _refresh(self) -> None:
        try:
            if self._clock() >= self._made + LIFE / 2 or self._find_authority() is not self._authority:
                self._make()
        except (CaError, LocalCaError) as error:
            # Who asks hears that nothing can be issued, over the connection that still works.
            _log.error("the server's certificate can't be made anew, and stays: %s", error)

    def _make(self) -> None:
        made, authority = self._clock(), self._find_authority()
        credential = make_server_certificate(authority, self._names, made)
        context = self._context_of(credential, authority, pem_of(*self._find_trusted()).decode("ascii"))
        self._made, self._authority, self._credential, self._context = made, authority, credential, context

    @staticmethod
    def _context_of(
        credential: tuple[ec.EllipticCurvePrivateKey, x509.Certificate], authority: Authority, trusted: str
    ) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=trusted)
        context.verify_mode = ssl.CERT_OPTIONAL
        # A certificate that has just ended may still be renewed: the desk judges the times.
        context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
        # What was resumed would not be verified again.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        key, certificate = credential
        # The ssl module takes files only.
        with tempfile.TemporaryDirectory(prefix="dicomward-") as directory:
            path = Path(directory) / "server.pem"
            path.touch(mode=0o600)
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            path.write_bytes(pem + pem_of(certificate, authority.certificate))
            context.load_cert_chain(path)
        return context


def make_server_certificate(
    authority: Authority, names: Iterable[str], now: datetime
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Make a key and a certificate of an enrolment server."""
    key = ec.generate_private_key(ec.SECP256R1())
    ca = authority.certificate
    issuer = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Dicomward enrolment")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(new_serial())
        .not_valid_before(max(now - _BACKDATED, ca.not_valid_before_utc).astimezone(UTC))
        .not_valid_after(min(now + LIFE, ca.not_valid_after_utc).astimezone(UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_KEY_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, CMC_RA]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_name_of(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return key, certificate


_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _name_of(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name.partition("%")[0]))
    except ValueError:
        return x509.DNSName(name)
