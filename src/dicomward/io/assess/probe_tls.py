"""TLS of a server that is assessed: contexts that take anything, and what a certificate says.

Rules of this file: nothing is confided to the peer. That a certificate is not verified here is the purpose: it is
looked at, and the verdict is assess/judge.py's.
"""

import asyncio
import ssl
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.assess.seen import CertificateSeen, TlsFacts
from dicomward.io.assess.probe_dimse import close_writer, is_about_client_certificate
from dicomward.io.tls import NO_CHECK_TIME

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

OBSOLETE: Final = {"TLSv1": ssl.TLSVersion.TLSv1, "TLSv1.1": ssl.TLSVersion.TLSv1_1}
# In TLS 1.3 a server says only after the handshake that it wants a certificate.
_ALERT_LOOKS: Final = (0.002, 0.008, 0.04, 0.15, 0.3)
_VERSION_REASONS: Final = ("VERSION", "PROTOCOL", "UNSUPPORTED")


@cache
def anyone() -> ssl.SSLContext:
    """Return TLS that takes any certificate, any age and any version."""
    return _lenient()


@cache
def only(version: str) -> ssl.SSLContext:
    """Return TLS of one obsolete version."""
    context = _lenient()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = OBSOLETE[version]
        context.maximum_version = OBSOLETE[version]
    return context


def _lenient(verify_mode: ssl.VerifyMode = ssl.CERT_NONE) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = verify_mode
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    # Old devices do not know the secure renegotiation of RFC 5746.
    context.options |= ssl.OP_LEGACY_SERVER_CONNECT if hasattr(ssl, "OP_LEGACY_SERVER_CONNECT") else 0x4
    return context


@cache
def trusting(ca_file: str) -> ssl.SSLContext:
    """Return TLS that verifies the chain, and nothing else: against `ca_file`, or the system's list. Raises OSError.

    Versions, ciphers and the key have verdicts of their own: an old device is to get as far as its chain.
    """
    context = _lenient(ssl.CERT_REQUIRED)
    context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    if ca_file:
        context.load_verify_locations(Path(ca_file))
    else:
        context.load_default_certs()
    return context


async def connect_tls(
    address: str, port: int, context: ssl.SSLContext, *, server_name: str, timeout: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect and shake hands. Raises OSError (SSLError, TimeoutError)."""
    async with asyncio.timeout(timeout):
        return await asyncio.open_connection(
            address, port, ssl=context, server_hostname=server_name or address, ssl_handshake_timeout=timeout
        )


async def await_alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Wait for what a server says by itself after the handshake; "certificate", "closed", or "" for nothing.

    Were something sent first, a server that hangs up would answer with a reset, and its alert be lost. No server of
    DICOM or HTTP speaks first, so nothing of theirs is lost here. Up to TLS 1.2 the handshake ends with the server's
    word; in TLS 1.3 a session ticket is one, since it comes only after the client's part was taken.
    """
    sealed: ssl.SSLObject = writer.get_extra_info("ssl_object")
    if sealed.version() != "TLSv1.3":
        return ""
    reading = asyncio.create_task(reader.read(1))
    try:
        for wait in _ALERT_LOOKS:
            await asyncio.wait([reading], timeout=wait)
            if reading.done():
                return "" if reading.result() else "closed"
            if sealed.session is not None and sealed.session.has_ticket:
                return ""
    except ssl.SSLError as error:
        return "certificate" if is_about_client_certificate(error) else "closed"
    except OSError:
        return "closed"
    finally:
        reading.cancel()
    return ""


def facts_of(writer: asyncio.StreamWriter) -> TlsFacts:
    """Return what the handshake has shown."""
    sealed: ssl.SSLObject = writer.get_extra_info("ssl_object")
    cipher = sealed.cipher()
    data = sealed.getpeercert(binary_form=True)
    return TlsFacts(
        version=sealed.version() or "",
        cipher=cipher[0] if cipher else "",
        certificate=read_certificate(data) if data else None,
    )


async def chain_problem(address: str, port: int, ca_file: str, *, server_name: str, timeout: float) -> str | None:
    """Return why the chain is not trusted, "" if it is, None if that could not be seen."""
    try:
        _, writer = await connect_tls(address, port, trusting(ca_file), server_name=server_name, timeout=timeout)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError:
        return None
    await close_writer(writer)
    return ""


async def takes_version(address: str, port: int, version: str, *, timeout: float) -> bool | None:
    """Say if an obsolete version is taken; None where that could not be seen."""
    try:
        _, writer = await connect_tls(address, port, only(version), server_name="", timeout=timeout)
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).upper()
        return None if is_about_client_certificate(error) and not _is_about_version(reason) else False
    except TimeoutError:
        return None
    except OSError:
        # A server that hangs up has not taken it.
        return False
    await close_writer(writer)
    return True


def _is_about_version(reason: str) -> bool:
    return any(word in reason for word in _VERSION_REASONS)


def read_certificate(data: bytes) -> CertificateSeen | None:
    """Return what a certificate says, None if it can't be read."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        certificate = x509.load_der_x509_certificate(data)
        key_type, key_bits = _key_of(certificate)
        dns_names, addresses = _names_of(certificate)
        hash_ = certificate.signature_hash_algorithm
        return CertificateSeen(
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            key_type=key_type,
            key_bits=key_bits,
            signature_hash=hash_.name if hash_ is not None else "",
            sha256=certificate.fingerprint(SHA256()).hex(),
            is_self_signed=certificate.subject == certificate.issuer,
            dns_names=dns_names,
            addresses=addresses,
        )
    except (ValueError, x509.UnsupportedGeneralNameType, x509.DuplicateExtension):
        return None


def _key_of(certificate: "Certificate") -> tuple[str, int]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.dsa import DSAPublicKey
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    try:
        key = certificate.public_key()
    except UnsupportedAlgorithm:
        return "unknown", 0
    if isinstance(key, RSAPublicKey):
        return "RSA", key.key_size
    if isinstance(key, DSAPublicKey):
        return "DSA", key.key_size
    if isinstance(key, EllipticCurvePublicKey):
        return "EC", key.key_size
    # Ed25519 and Ed448.
    return type(key).__name__.removeprefix("_").removesuffix("PublicKey"), 256


def _names_of(certificate: "Certificate") -> tuple[tuple[str, ...], tuple[str, ...]]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    addresses = (str(each) for each in names.get_values_for_type(x509.IPAddress))
    return tuple(names.get_values_for_type(x509.DNSName)), tuple(addresses)
