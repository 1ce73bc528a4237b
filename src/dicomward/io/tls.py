"""TLS contexts and what is read off a handshake: PS3.15 §B.12 (BCP 195: RFC 8996, RFC 9325).

One place for versions, suites and client authentication. The chain is verified by OpenSSL without its clock, and the
times by us after every handshake, resumed ones too: OpenSSL takes an expired certificate on resumption, and would
refuse one that has just expired although the clinical floor is for it.
"""

import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicomward.identity.certificate import PeerCertificate
from dicomward.vocab.reason import ReasonCode

# RFC 9325 §4.2: forward secrecy and AEAD only. TLS 1.3 suites are OpenSSL's own three.
_TLS12_SUITES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
# X509_V_FLAG_NO_CHECK_TIME, which the ssl module has no name for.
NO_CHECK_TIME = 0x200000
# A device that offers this protocol (RFC 7301) parks its connection, for associations that the gateway opens to it.
REVERSE_ALPN = "dicomward-reverse/1"
_MINIMUM_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# Certificates whose contents are remembered: more than a hospital has devices.
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate chain and its private key, PEM files."""

    certificate: Path
    key: Path


class TlsConfigurationError(Exception):
    """A certificate or key can't be used; the message says which, why and what to do."""


def minimum_version_of(setting: str) -> ssl.TLSVersion:
    """Return the version that `[tls] minimum_version` names."""
    return _MINIMUM_VERSIONS[setting]


def server_context(
    certificates: Sequence[CertificateFiles], client_ca: Path, minimum: ssl.TLSVersion
) -> ssl.SSLContext:
    """Make the context of a listener: client certificate required, every server certificate side by side."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context, minimum)
    _load(context, certificates)
    try:
        context.load_verify_locations(client_ca)
    except (OSError, ssl.SSLError) as error:
        raise TlsConfigurationError(f"the client CA {client_ca} can't be read: {error}") from error
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    # Who offers none of ours, or none at all, goes on without.
    context.set_alpn_protocols([REVERSE_ALPN])
    # One ticket is enough: a device opens one association after the other.
    context.num_tickets = 1
    return context


def client_context(certificates: Sequence[CertificateFiles], minimum: ssl.TLSVersion) -> ssl.SSLContext:
    """Make the context for calls to pinned peers: the pin is compared after the handshake, so no CA is asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, minimum)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _load(context, certificates[:1])
    return context


def verifying_client_context(ca: Path, certificate: CertificateFiles | None, *, check_host: bool) -> ssl.SSLContext:
    """Make the context of a device's own call (`dicomward echo`): the server is verified against a CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, ssl.TLSVersion.TLSv1_2)
    context.check_hostname = check_host
    load_authority(context, ca)
    if certificate is not None:
        _load(context, [certificate])
    return context


class NamedContext(ssl.SSLContext):
    """A client's context that always asks for the same name in the peer's certificate; the wire needs not know it."""

    peer_name = ""

    def wrap_bio(  # type: ignore[override]
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, server_side: bool = False
    ) -> ssl.SSLObject:
        """See ssl.SSLContext."""
        return super().wrap_bio(incoming, outgoing, server_side, self.peer_name)


def named_client_context(
    ca: Path, certificate: CertificateFiles, peer_name: str, *, is_reverse: bool = False
) -> NamedContext:
    """Make the context of an edge agent: mutual TLS, chain, dates and name of the peer verified by OpenSSL.

    `is_reverse`: for connections that the peer is to park. Raises TlsConfigurationError.
    """
    context = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, ssl.TLSVersion.TLSv1_2)
    context.peer_name = peer_name
    load_authority(context, ca)
    load_pair(context, certificate)
    if is_reverse:
        context.set_alpn_protocols([REVERSE_ALPN])
    return context


def _restrict(context: ssl.SSLContext, minimum: ssl.TLSVersion) -> None:
    context.minimum_version = minimum
    context.set_ciphers(_TLS12_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE


def _load(context: ssl.SSLContext, certificates: Sequence[CertificateFiles]) -> None:
    for files in certificates:
        load_pair(context, files)


def load_authority(context: ssl.SSLContext, ca: Path) -> None:
    """Let a context trust the CAs of a file as well. Raises TlsConfigurationError."""
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise TlsConfigurationError(f"the CA {ca} can't be read: {error}") from error


def load_pair(context: ssl.SSLContext, files: CertificateFiles) -> None:
    """Let a context show a certificate. Raises TlsConfigurationError."""
    try:
        # Without a password of ours OpenSSL would ask the terminal for that of an encrypted key, and wait.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ssl.SSLError) as error:
        raise TlsConfigurationError(
            f"certificate {files.certificate} with key {files.key} can't be used: {error}. "
            "Name the pair that belongs together, PEM, the key without a passphrase"
        ) from error


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


class CaDates:
    """When the CAs of a context end, by subject: a certificate is never good for longer than its CA."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._ends: dict[object, datetime] = {}
        for authority in context.get_ca_certs():
            end = _moment(str(authority["notAfter"]))
            subject = authority["subject"]
            self._ends[subject] = max(end, self._ends.get(subject, end))

    def end_for(self, issuer: object, leaf_end: datetime) -> datetime:
        """Return the earlier of a leaf's end and its CA's."""
        return min(leaf_end, self._ends.get(issuer, leaf_end))


class PeerCertificates:
    """Reads peers' certificates off finished handshakes; what a certificate says is parsed once, then remembered."""

    def __init__(self, authorities: CaDates | None) -> None:
        self._authorities = authorities
        self._known: dict[bytes, PeerCertificate] = {}

    def read(self, connection: ssl.SSLObject) -> PeerCertificate | None:
        """Return the peer's certificate; None if it has shown none."""
        der = connection.getpeercert(binary_form=True)
        if not der:
            return None
        known = self._known.get(der)
        if known is None:
            known = self._parse(connection, der)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[der] = known
        return known

    def _parse(self, connection: ssl.SSLObject, der: bytes) -> PeerCertificate:
        # typeshed types the nested tuples loosely; only known keys are read.
        decoded: dict[str, Any] = dict(connection.getpeercert() or {})
        if decoded:
            not_before, not_after = _moment(decoded["notBefore"]), _moment(decoded["notAfter"])
            if self._authorities is not None:
                not_after = self._authorities.end_for(decoded["issuer"], not_after)
            subject = ",".join(f"{key}={value}" for part in decoded["subject"] for key, value in part)
        else:
            # Without chain verification the ssl module keeps the details to itself; the pin is what counts then.
            not_before, not_after, subject = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), ""
        return PeerCertificate(
            sha256=hashlib.sha256(der).hexdigest(), not_before=not_before, not_after=not_after, subject=subject
        )


def reason_of(error: ssl.SSLError) -> tuple[ReasonCode, str]:
    """Return our reason for a failed handshake, and Python's as detail."""
    detail = error.reason or str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return ReasonCode.TLS_FAILED, f"{detail}: {error.verify_message}"
    if detail == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return ReasonCode.NO_CERTIFICATE, detail
    return ReasonCode.TLS_FAILED, detail
