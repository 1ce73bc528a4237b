"""The device's side of EST: the pin is checked before anything is sent that matters. docs/enrolment-code.md."""

import base64
import socket
import ssl
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException, HTTPSConnection
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from dicomward.enrolment.code import Code
from dicomward.enrolment.est import (
    CMC_RA,
    DEVICE_PATH,
    EST_PATH,
    PKCS10,
    REPEAT_FIELD,
    decode_certificates,
    encode_body,
)
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.io.tls import CertificateFiles

TIMEOUT_SECONDS: Final = 30.0
_MOST_ANSWER_BYTES: Final = 256 * 1024
DeviceKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class ClientError(Exception):
    """It could not be done; the message says at which step, why and what to do."""


class LostAnswerError(ClientError):
    """The request was sent, and no answer came: it may have been carried out."""


class RefusedByServerError(ClientError):
    """The server said no. `status` is HTTP's."""

    def __init__(self, status: int, text: str, retry_seconds: int | None = None) -> None:
        super().__init__(f"the enrolment server refused ({status}): {text}")
        self.status, self.text, self.retry_seconds = status, text, retry_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    retry_after: str | None = None


class EstClient:
    """One enrolment server, whose CA is known. Make it with `pinned` or with the anchors of an earlier enrolment."""

    def __init__(self, url: str, anchors: Iterable[x509.Certificate], own: CertificateFiles | None = None) -> None:
        """`own`: the device's certificate and key, for renewal. Raises ClientError."""
        self._host, self._port = host_and_port(url)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in anchors)
        self._context.load_verify_locations(cadata=pem.decode("ascii"))
        if own is not None:
            try:
                self._context.load_cert_chain(own.certificate, own.key)
            except (OSError, ssl.SSLError) as error:
                raise ClientError(f"{own.certificate} and {own.key} can't be used ({error}); enrol anew") from error

    @classmethod
    def pinned(cls, url: str, is_pinned: Callable[[bytes], bool], *, by: str = "the code") -> "EstClient":
        """Ask the server for its CAs, and go on only with the one (DER) that is pinned. Raises ClientError.

        What is asked first is public, and nothing else is sent before the server has proved itself by that CA.
        """
        host, port = host_and_port(url)
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        answer = _ask(host, port, unverified, "GET", f"{EST_PATH}/cacerts")
        root = next((each for each in _certificates_in(answer) if is_pinned(each)), None)
        if root is None:
            raise ClientError(
                f"{url} does not have the CA that {by} pins: a wrong server, or somebody in between; "
                "nothing of the code was sent. Compare the URL with the invitation"
            )
        return cls(url, [x509.load_der_x509_certificate(root)])

    def ca_certificates(self) -> list[x509.Certificate]:
        """Return the CAs, from the server that has proved itself. Raises ClientError."""
        answer = self._request("GET", f"{EST_PATH}/cacerts")
        return [x509.load_der_x509_certificate(each) for each in _certificates_in(answer)]

    def enrol(self, name: str, code: Code, request: bytes, *, is_repeated: bool = False) -> x509.Certificate:
        """Get a certificate for a code. `is_repeated`: an answer was lost. Raises ClientError."""
        basic = base64.b64encode(f"{name}:{code.text}".encode()).decode("ascii")
        fields = {"Authorization": f"Basic {basic}"} | ({REPEAT_FIELD: "yes"} if is_repeated else {})
        return self._certificate("simpleenroll", request, fields)

    def ask(self, request: bytes) -> x509.Certificate:
        """Ask without a code; RefusedByServerError with 202 as long as nobody has approved it. Raises ClientError."""
        return self._certificate("simpleenroll", request, {})

    def renew(self, request: bytes) -> x509.Certificate:
        """Get the next certificate. Raises ClientError."""
        return self._certificate("simplereenroll", request, {})

    def device(self) -> bytes:
        """Return what the server tells this device about itself (JSON). Raises ClientError."""
        return self._request("GET", DEVICE_PATH).body

    def _certificate(self, operation: str, request: bytes, fields: dict[str, str]) -> x509.Certificate:
        answer = self._request("POST", f"{EST_PATH}/{operation}", encode_body(request), fields)
        return x509.load_der_x509_certificate(_certificates_in(answer)[0])

    def _request(
        self, method: str, path: str, body: bytes | None = None, fields: dict[str, str] | None = None
    ) -> Answer:
        answer = _ask(self._host, self._port, self._context, method, path, body, fields or {})
        if answer.status != 200:
            text = answer.body[:500].decode("utf-8", "replace").strip()
            retry = int(answer.retry_after) if answer.retry_after and answer.retry_after.isdecimal() else None
            raise RefusedByServerError(answer.status, text, retry)
        return answer


def host_and_port(url: str) -> tuple[str, int]:
    """Return where an https:// URL leads. Raises ClientError."""
    if "://" not in url:
        url = f"https://{url}"
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or 443
    except ValueError as error:
        raise ClientError(f"{url!r} is no URL ({error}); write https://HOST:PORT") from error
    if parts.scheme != "https" or not parts.hostname:
        raise ClientError(f"{url!r} is no https:// URL; the code is never sent in plaintext")
    return parts.hostname, port


def _ask(
    host: str,
    port: int,
    context: ssl.SSLContext,
    method: str,
    path: str,
    body: bytes | None = None,
    fields: dict[str, str] | None = None,
) -> Answer:
    connection = HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
    try:
        connection.connect()
        if context.verify_mode is ssl.CERT_REQUIRED:
            _verify_role(connection)
    except ssl.SSLError as error:
        connection.close()
        detail, hint = _why_unproved(error)
        raise ClientError(
            f"{host}:{port} has not proved that it is the enrolment server: {detail}; nothing of the code was sent. "
            f"{hint}"
        ) from error
    except socket.gaierror as error:
        connection.close()
        raise ClientError(
            f"the name {host} is not known here ({error.strerror}); compare the URL with the invitation"
        ) from error
    except OSError as error:
        connection.close()
        raise ClientError(
            f"no connection to {host}:{port} ({error.strerror or error}); is the enrolment server running? "
            "Compare the URL with the invitation, and look if a firewall is in between"
        ) from error
    try:
        headers = {"Content-Type": PKCS10, "Content-Transfer-Encoding": "base64"} if body is not None else {}
        connection.request(method, path, body, headers | (fields or {}))
        response = connection.getresponse()
        data = response.read(_MOST_ANSWER_BYTES)
        return Answer(status=response.status, body=data, retry_after=response.getheader("Retry-After"))
    except (OSError, HTTPException) as error:
        if isinstance(error, ssl.SSLError) and "CERTIFICATE_REQUIRED" in (error.reason or ""):
            raise ClientError(
                f"{host}:{port} is not the enrolment server: it wants a certificate first, as the gateway does; "
                "compare the URL with the invitation"
            ) from error
        raise LostAnswerError(
            f"{host}:{port} gave no answer ({error}); repeat the command. "
            "If it stays like this, the URL may name another port, as the gateway's"
        ) from error
    finally:
        connection.close()


def _why_unproved(error: ssl.SSLError) -> tuple[str, str]:
    """Return what was wrong, and what to do."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return error.reason or str(error), "Something else listens there: compare the URL with the invitation"
    match error.verify_code:
        case 9 | 10:  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
            moment = datetime.now(UTC)  # noqa: TID251  the clock is what may be wrong
            return error.verify_message, f"The clock of this machine says {moment:%Y-%m-%d %H:%M} UTC: if not, set it"
        case 62 | 64:  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
            return error.verify_message, "The name in the URL must be one of `enrolment.names`"
    return error.verify_message, "Compare the URL with the invitation; is somebody in between?"


def _verify_role(connection: HTTPSConnection) -> None:
    """Check that the server speaks for the CA (RFC 7030 §3.6.1), as no device may. Raises ClientError."""
    der = connection.sock.getpeercert(binary_form=True) if isinstance(connection.sock, ssl.SSLSocket) else None
    certificate = x509.load_der_x509_certificate(der or b"")
    usages = [each.value for each in certificate.extensions if isinstance(each.value, x509.ExtendedKeyUsage)]
    if not any(CMC_RA in each for each in usages):
        connection.close()
        raise ClientError("the server shows a certificate that is not one of an enrolment server; nothing was sent")


def _certificates_in(answer: Answer) -> list[bytes]:
    try:
        found = decode_certificates(answer.body) if answer.status == 200 else []
    except EnrolmentRefusedError as error:
        raise ClientError(f"the server's answer can't be read: {error.detail}") from error
    if not found:
        raise ClientError(f"the server's answer ({answer.status}) holds no certificate; is this the enrolment server?")
    return found


def make_request(key: DeviceKey, name: str) -> bytes:
    """Return a certification request (DER)."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
