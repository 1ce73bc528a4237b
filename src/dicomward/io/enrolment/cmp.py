"""CMP for the enrolment server: RFC 9811's transfer over HTTP in front of `enrolment.cmp`, whose ports are here."""

import secrets
import threading
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from http import HTTPStatus

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from dicomward.enrolment.cmp import Invited, Signer, handle
from dicomward.enrolment.cmp_message import CMP_PATH, PKIX_CMP
from dicomward.enrolment.cmp_transactions import Pending, Polling, Transactions
from dicomward.enrolment.grant import Grant, Issued
from dicomward.enrolment.http import Request, Response, Routes, text_response
from dicomward.enrolment.request import CertificationRequest
from dicomward.io.ca.sign import der_of
from dicomward.io.enrolment.desk import Desk
from dicomward.io.enrolment.est import EstService, waiting_text
from dicomward.io.enrolment.tls import ServerTls


class CmpService:
    """Answers CMP requests; refusals are recorded and counted where those of EST are."""

    def __init__(self, desk: Desk, tls: ServerTls, est: EstService, clock: Callable[[], datetime]) -> None:
        self._ports, self._est, self._clock = _DeskPorts(desk, tls), est, clock

    def add_to(self, routes: Routes) -> None:
        """Add what is answered; a name or an operation below the path (RFC 9811 §3.4) is taken and means nothing."""
        handler = self._est.guarded("cmp", self._post)
        routes.add("POST", CMP_PATH, handler)
        routes.add("POST", f"{CMP_PATH}/", handler)

    def _post(self, request: Request) -> Response:
        if request.head.content_type != PKIX_CMP:
            return text_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body must be {PKIX_CMP}")
        address = request.peer.address
        answer = handle(request.body, address, self._clock(), self._ports)
        if answer.refusal is not None:
            self._est.refused(answer.action, answer.refusal, address, answer.device)
        return Response(content_type=PKIX_CMP, body=answer.body)


class _DeskPorts:
    """The ports of `enrolment.cmp`: the desk, the CA, and the transactions of this process."""

    def __init__(self, desk: Desk, tls: ServerTls) -> None:
        self._desk, self._tls = desk, tls
        self._lock, self._transactions = threading.Lock(), Transactions()

    @property
    def has_queue(self) -> bool:
        return self._desk.has_queue

    def ask(self, request: CertificationRequest, address: str, now: datetime) -> Issued | str:
        found = self._desk.ask(request, address, now)
        return found if isinstance(found, Issued) else waiting_text(found)

    def invited(self, reference: str, address: str, now: datetime) -> Invited:
        found = self._desk.cmp_invitation(reference, address, now)
        return Invited(id=found.id, grant=found.grant, secret=found.secret)

    def wrong_guess(self, invitation: str, address: str, now: datetime) -> None:
        self._desk.count_wrong_cmp(invitation, address, now)

    def enrol(self, invitation: str, request: CertificationRequest, address: str, now: datetime) -> Issued:
        return self._desk.enrol_cmp(invitation, request.public_key, address, now)

    def renewable(self, certificate: bytes) -> Grant:
        return self._desk.renewable(certificate)

    def renew(self, request: CertificationRequest, certificate: bytes, now: datetime) -> Issued:
        return self._desk.renew(request, certificate, now)

    def revoke(self, certificate: bytes, now: datetime, *, detail: str) -> None:
        self._desk.revoke(sha256(certificate).hexdigest(), now, detail=detail)

    def begin(self, transaction: bytes, now: datetime, *, is_stranger: bool = False) -> None:
        with self._lock:
            self._transactions.begin(transaction, now, is_stranger=is_stranger)

    def wait(self, transaction: bytes, pending: Pending | Polling, now: datetime) -> None:
        with self._lock:
            self._transactions.wait(transaction, pending, now)

    def pending(self, transaction: bytes, now: datetime) -> Pending:
        with self._lock:
            return self._transactions.pending(transaction, now)

    def polling(self, transaction: bytes, now: datetime) -> Polling:
        with self._lock:
            return self._transactions.polling(transaction, now)

    def close(self, transaction: bytes, now: datetime) -> None:
        with self._lock:
            self._transactions.close(transaction, now)

    def signer(self) -> Signer:
        key, certificate = self._tls.credential()
        issuer = self._desk.issuer
        return Signer(
            certificate=der_of(certificate),
            chain=issuer.chain,
            anchors=issuer.anchors,
            sign=lambda data: key.sign(data, ec.ECDSA(hashes.SHA256())),
        )

    def random(self, count: int) -> bytes:
        return secrets.token_bytes(count)
