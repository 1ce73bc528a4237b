"""EST for the enrolment server: RFC 7030 with RFC 8951 and RFC 9908; and the same for people, as a page.

Each refusal is recorded with its whole story; the peer gets a status and a sentence.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicomward.audit.event import AuditEvent, EnrolmentRefused
from dicomward.enrolment.answers import RETRY_SECONDS, answer_for
from dicomward.enrolment.csr_attributes import encode_csr_attributes
from dicomward.enrolment.est import (
    CSR_ATTRIBUTES,
    ENCRYPTED_KEY,
    EST_PATH,
    PKCS7_CERTS_ONLY,
    PKCS10,
    REPEAT_FIELD,
    decode_body,
    encode_body,
    encode_certificates,
    encode_key_and_certificate,
)
from dicomward.enrolment.failures import FailureBook
from dicomward.enrolment.grant import KEY_KINDS, Grant, Issued
from dicomward.enrolment.http import HttpError, Request, Response, Routes, text_response
from dicomward.enrolment.key_envelope import (
    IV_BYTES,
    KEY_BYTES,
    can_be_encrypted_for,
    encode_key_envelope,
    key_identifier,
    spki_of,
)
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.request import CertificationRequest, decode_request, verify_request
from dicomward.io.enrolment.desk import Desk
from dicomward.io.enrolment.invitation_store import WaitingRequest
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

_REALM: Final = 'Basic realm="dicomward enrolment", charset="UTF-8"'
_FORM: Final = "application/x-www-form-urlencoded"
_PEM_TYPE: Final = "application/x-pem-file"
_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Dicomward enrolment</title>
<h1>A certificate for a device</h1>
<p>Paste the certification request (PKCS#10, PEM) that the device has made, and type its name and its code.</p>
<form method="post" action="/upload" autocomplete="off">
<p><label>Name of the device<br><input name="name" maxlength="64" required></label></p>
<p><label>Code<br><input name="code" size="50" maxlength="200" required></label></p>
<p><label>Request<br><textarea name="request" rows="16" cols="70" required></textarea></label></p>
<p><button>Get the certificate</button></p>
</form></html>
"""
_POLICY: Final = "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

Record = Callable[[AuditEvent], str | None]
Credential = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]


class EstService:
    """Answers the requests of EST. `clock` gives aware times; `record` returns what went wrong, or None.

    `credential` gives the server's key and certificate, which sign the keys that are made here and encrypted.
    """

    def __init__(
        self, desk: Desk, record: Record, clock: Callable[[], datetime], credential: Callable[[], Credential]
    ) -> None:
        self._desk, self._record, self._clock, self._credential = desk, record, clock, credential
        self._lock = threading.Lock()
        self._failures = FailureBook()

    def add_to(self, routes: Routes) -> None:
        """Add what is answered; a label between the path and the operation is taken and means nothing."""
        routes.add("GET", f"{EST_PATH}/", self._get)
        routes.add("POST", f"{EST_PATH}/", self._post)
        routes.add("GET", "/", lambda _request: _page())
        routes.add("POST", "/upload", self.guarded("upload", self._upload))

    # --- refusals ---

    def guarded(self, action: str, handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
        """Return a handler that turns refusals into answers and records."""

        def answer(request: Request) -> Response:
            address = request.peer.address
            with self._lock:
                is_blocked = self._failures.is_blocked(address, time.monotonic())
            if is_blocked:
                return _refusal(ReasonCode.ENROLMENT_FAILURES)
            try:
                return handler(request)
            except EnrolmentRefusedError as error:
                self.refused(action, error, address, _name_in(request))
                return _refusal(error.reason)

        return answer

    def refused(self, action: str, error: EnrolmentRefusedError, address: str, device: str | None) -> None:
        """Record a refusal, and count it against its address."""
        with self._lock:
            is_last = self._failures.note(address, time.monotonic())
        detail = error.detail
        if is_last:
            detail += f"; the address fails too often ({ReasonCode.ENROLMENT_FAILURES}), what follows is not recorded"
        event = EnrolmentRefused(reason=error.reason, action=action, device=device, address=address, detail=detail)
        problem = self._record(event)
        _log.warning("%s from %s refused (%s): %s", action, address, error.reason, detail)
        if problem is not None:
            _log.error("this refusal could not be recorded: %s", problem)

    def forget_failures(self) -> None:
        """Hear every address again."""
        with self._lock:
            self._failures = FailureBook()

    # --- operations ---

    def _get(self, request: Request) -> Response:
        match _operation_of(request.head.path):
            case "cacerts":
                return self._ca_certificates()
            case "csrattrs":
                return self.guarded("csrattrs", self._csr_attributes)(request)
        return _no_operation(request)

    def _post(self, request: Request) -> Response:
        operation = _operation_of(request.head.path)
        handlers = {
            "simpleenroll": self._simple_enroll,
            "simplereenroll": self._simple_reenroll,
            "serverkeygen": self._server_keygen,
        }
        handler = handlers.get(operation)
        if handler is None:
            return _no_operation(request)
        if request.head.content_type not in (PKCS10, "application/x-pem-file", "application/octet-stream", "", _FORM):
            return text_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body must be {PKCS10}")
        return self.guarded(operation, handler)(request)

    def _ca_certificates(self) -> Response:
        issuer = self._desk.issuer
        try:
            body = encode_certificates(dict.fromkeys((*issuer.anchors, *issuer.chain)))
        except EnrolmentRefusedError as error:
            _log.error("the CA's certificates can't be told: %s", error)
            return _refusal(error.reason)
        return _encoded(PKCS7_CERTS_ONLY, body)

    def _csr_attributes(self, request: Request) -> Response:
        basic = request.head.basic
        grant: Grant | None = None
        if basic is not None:
            grant = self._desk.granted(*basic, request.peer.address, self._clock())
        kinds = KEY_KINDS if grant is None else grant.key_kinds
        return _encoded(CSR_ATTRIBUTES, encode_body(encode_csr_attributes(grant, kinds)))

    def _simple_enroll(self, request: Request) -> Response:
        wanted = decode_request(decode_body(request.body))
        found = self._with_credentials(request, wanted)
        if isinstance(found, WaitingRequest):
            return _please_wait(found)
        return _certificate(found)

    def _with_credentials(self, request: Request, wanted: CertificationRequest) -> Issued | WaitingRequest:
        """Issue for a code; or for a certificate, as RFC 7030 §4.2.1 has it; or let the request wait."""
        basic, now = request.head.basic, self._clock()
        if basic is not None and basic[1]:
            may_repeat = REPEAT_FIELD in request.head.fields
            return self._desk.enrol(*basic, wanted, request.peer.address, now, may_repeat=may_repeat)
        if request.peer.certificate_der is not None:
            return self._renewed(request, wanted)
        if self._desk.has_queue:
            return self._desk.ask(wanted, request.peer.address, now)
        raise EnrolmentRefusedError(ReasonCode.CREDENTIALS_MISSING, "neither a code nor a certificate")

    def _simple_reenroll(self, request: Request) -> Response:
        return _certificate(self._renewed(request, decode_request(decode_body(request.body))))

    def _renewed(self, request: Request, wanted: CertificationRequest) -> Issued:
        presented = request.peer.certificate_der
        if presented is None:
            raise EnrolmentRefusedError(ReasonCode.CREDENTIALS_MISSING, "no certificate was shown over TLS")
        verify_request(wanted, self._desk.renewable(presented))
        return self._desk.renew(wanted, presented, self._clock())

    def _server_keygen(self, request: Request) -> Response:
        """RFC 7030 §4.4: for devices that can't make a key. It is made here, sent over TLS, and kept nowhere."""
        asked = decode_request(decode_body(request.body))
        recipient = _recipient_of(asked, request.peer.certificate_der)
        basic, now = request.head.basic, self._clock()
        if basic is not None and basic[1]:
            grant = self._desk.granted(*basic, request.peer.address, now)
        elif request.peer.certificate_der is not None:
            grant = self._desk.renewable(request.peer.certificate_der)
        else:
            raise EnrolmentRefusedError(ReasonCode.CREDENTIALS_MISSING, "neither a code nor a certificate")
        # The request is signed with a key that is thrown away: only its names count.
        verify_request(asked, grant)
        key = make_device_key(grant.key_kinds)
        made = decode_request(_own_request(key))
        if basic is not None and basic[1]:
            issued = self._desk.enrol(*basic, made, request.peer.address, now)
        else:
            issued = self._desk.renew(made, request.peer.certificate_der or b"", now)
        der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        boundary = secrets.token_hex(16)
        if recipient is None or asked.decrypt_key is None:
            kind, body = encode_key_and_certificate(der, issued.certificate, boundary)
        else:
            envelope = encode_key_envelope(
                der,
                recipient,
                asked.decrypt_key,
                self._credential(),
                content_key=secrets.token_bytes(KEY_BYTES),
                iv=secrets.token_bytes(IV_BYTES),
            )
            kind, body = encode_key_and_certificate(envelope, issued.certificate, boundary, key_type=ENCRYPTED_KEY)
        return Response(content_type=kind, body=body)

    # --- for people ---

    def _upload(self, request: Request) -> Response:
        """Take a request from the form, or as PEM with HTTP Basic, and return the chain as PEM."""
        if request.head.content_type == _FORM:
            fields = _form_of(request)
            basic: tuple[str, str] | None = (fields.get("name", ""), fields.get("code", ""))
            body = fields.get("request", "").encode()
        else:
            basic, body = request.head.basic, request.body
        if basic is None or not basic[1]:
            raise EnrolmentRefusedError(ReasonCode.CREDENTIALS_MISSING, "no code was sent")
        wanted = decode_request(decode_body(body))
        issued = self._desk.enrol(*basic, wanted, request.peer.address, self._clock())
        fields_of_file = {"Content-Disposition": f'attachment; filename="{issued.device}.cert.pem"'}
        return Response(content_type=_PEM_TYPE, body=pem_of(issued), fields=fields_of_file)


def pem_of(issued: Issued) -> bytes:
    """Return a certificate and its chain as PEM."""
    certificates = map(x509.load_der_x509_certificate, (issued.certificate, *issued.chain))
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def make_device_key(kinds: tuple[str, ...]) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    """Make a key of the best kind that was granted."""
    if "ecdsa" in kinds:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _recipient_of(asked: CertificationRequest, presented: bytes | None) -> bytes | None:
    """Return the key for which the new one is to be encrypted; None if TLS alone is wanted.

    It is the one that has signed the request, or that of the certificate over TLS. Raises EnrolmentRefusedError.
    """
    if asked.wants_shared_secret:
        raise EnrolmentRefusedError(
            ReasonCode.KEY_ENCRYPTION_NOT_POSSIBLE, "the request asks for encryption under a secret that both know"
        )
    if asked.decrypt_key is None:
        return None
    known = [asked.public_key, *([] if presented is None else [spki_of(presented)])]
    for each in known:
        if key_identifier(each) == asked.decrypt_key and can_be_encrypted_for(each):
            return each
    raise EnrolmentRefusedError(
        ReasonCode.KEY_ENCRYPTION_NOT_POSSIBLE,
        f"the key {asked.decrypt_key.hex()[:40]} is no RSA key that has signed the request, or the TLS handshake",
    )


def _own_request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _operation_of(path: str) -> str:
    parts = path.removeprefix(f"{EST_PATH}/").split("/")
    # /.well-known/est/LABEL/operation (RFC 7030 §3.2.2)
    return parts[-1] if len(parts) <= 2 else ""


def _no_operation(request: Request) -> Response:
    name = _operation_of(request.head.path)
    if name in ("simpleenroll", "simplereenroll", "serverkeygen"):
        return text_response(HTTPStatus.METHOD_NOT_ALLOWED, "use POST here", Allow="POST")
    if name in ("cacerts", "csrattrs"):
        return text_response(HTTPStatus.METHOD_NOT_ALLOWED, "use GET here", Allow="GET")
    if name == "fullcmc":
        return text_response(HTTPStatus.NOT_IMPLEMENTED, "full CMC is not offered")
    return text_response(HTTPStatus.NOT_FOUND, "EST has no such operation here")


def _refusal(reason: ReasonCode) -> Response:
    status, text = answer_for(reason)
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return text_response(status, text, WWW_Authenticate=_REALM)
        case HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.TOO_MANY_REQUESTS:
            return text_response(status, text, Retry_After=str(RETRY_SECONDS))
    return text_response(status, text)


def waiting_text(waiting: WaitingRequest) -> str:
    """Return what a device is told while its request waits: what a person compares is in it."""
    return f"request {waiting.id} (key {waiting.key_sha256[:16]}) waits for approval; ask again with the same key"


def _please_wait(waiting: WaitingRequest) -> Response:
    return text_response(HTTPStatus.ACCEPTED, waiting_text(waiting), Retry_After=str(RETRY_SECONDS))


def _certificate(issued: Issued) -> Response:
    # RFC 7030 §4.2.3: only what was issued; the chain is with /cacerts.
    return _encoded(PKCS7_CERTS_ONLY, encode_certificates([issued.certificate]))


def _encoded(kind: str, body: bytes) -> Response:
    return Response(content_type=kind, body=body, fields={"Content-Transfer-Encoding": "base64"})


def _page() -> Response:
    fields = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
    return Response(content_type="text/html; charset=utf-8", body=_PAGE.encode(), fields=fields)


def _form_of(request: Request) -> dict[str, str]:
    try:
        found = parse_qs(request.body.decode("ascii"), max_num_fields=8)
    except ValueError as error:
        raise EnrolmentRefusedError(ReasonCode.REQUEST_UNREADABLE, f"the form can't be read: {error}") from error
    return {name: values[0] for name, values in found.items()}


def _name_in(request: Request) -> str | None:
    """Return the name that was given, for the record; what a stranger typed is cut."""
    try:
        if request.head.content_type == _FORM:
            name = _form_of(request).get("name", "")
        else:
            name = (request.head.basic or ("", ""))[0]
    except (HttpError, EnrolmentRefusedError):
        return None
    return name[:64] or None
