"""Keeps the credential of one device: gets it with a code or an approval, and renews it. One thread for each device.

Associations are not touched: who has been given the files loads them when they change.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from dicomward.audit.event import EnrolmentChanged
from dicomward.enrolment.code import Code
from dicomward.enrolment.schedule import describe_left, draw_of, is_due
from dicomward.enrolment.upkeep import (
    LOOK_SECONDS,
    REPLACE_SECONDS,
    Standing,
    is_no,
    judge_first,
    judge_upkeep,
    look_seconds,
    retry_seconds,
)
from dicomward.io.ca.local import LocalCaError, load_certificates
from dicomward.io.edge.codes import CodeBook
from dicomward.io.enrolment.client import ClientError, EstClient, LostAnswerError, RefusedByServerError
from dicomward.io.enrolment.enrolled import DeviceDirectory, fingerprint_of
from dicomward.io.enrolment.obtain import (
    ask_for_approval,
    enrol_with_code,
    install_first,
    own_client,
    renew,
    told_about,
)
from dicomward.io.gateway.gate import AuditSink
from dicomward.settings.edge import EdgeEnrolment

_log = logging.getLogger(__name__)

_ALARM_AGAIN_SECONDS = 3600.0
_TRIES = 3
_UNAUTHORIZED = 401

_HINTS = {
    Standing.REFUSED: "It is revoked, suspended, or used from elsewhere; `dicomward device invite` gives a new code",
    Standing.RENEWAL_HELD: "`dicomward device renewal list` on the gateway shows it; a person has to release it",
}


class NotServed(Exception):
    """The credential is there, and the device can't be served yet; the message says why."""


class Keeper:
    """Call `load`, then `start`.

    `ready` is called, in its thread, when there is a credential and `is_served` is not set: until it raises NotServed
    no more.
    """

    def __init__(
        self,
        *,
        name: str,
        directory: DeviceDirectory,
        enrolment: EdgeEnrolment,
        codes: CodeBook,
        ready: Callable[[], None],
        audit: AuditSink,
        clock: Callable[[], datetime] = lambda: datetime.now().astimezone(),  # noqa: TID251  io has the clocks
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._directory = directory
        self._enrolment = enrolment
        self._codes = codes
        self._ready = ready
        self._audit = audit
        self._clock = clock
        self._draw = draw
        self._stopping = threading.Event()
        self.is_served = False
        self._failures = 0
        self._is_rejected = False
        self._looked_at = float("-inf")
        self._alarmed_at = float("-inf")
        self._certificate: x509.Certificate | None = None
        self._standing = Standing.ENROLLING
        self._text = ""
        self._renewals = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"dicomward-edge-keep-{name}", daemon=True)

    def load(self) -> bool:
        """Say if there is a credential. Raises ClientError for a broken one, or a CA that can't be read."""
        self._directory.repair()
        if self._directory.certificate.exists():
            self._directory.state()
            self._certificate = self._directory.current()
        elif self._enrolment.ca is not None:
            _authorities(self._enrolment.ca)
        return self._certificate is not None

    @property
    def is_helpless(self) -> bool:
        """Say if there is no credential, and nothing with which it could get one."""
        return (
            self._certificate is None
            and self._codes.current() is None
            and not self._codes.may_come
            and not self._can_ask
        )

    @property
    def _can_ask(self) -> bool:
        return self._enrolment.ca is not None or bool(self._enrolment.ca_sha256)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a request that is under way is not waited for."""
        self._stopping.set()
        self._thread.join(1.0)

    def status(self) -> dict[str, object]:
        """Return how the device stands, for status, metrics and log."""
        with self._lock:
            certificate, standing, text, renewals = self._certificate, self._standing, self._text, self._renewals
        told: dict[str, object] = {
            "standing": standing.value,
            "text": text,
            "problem": standing.needs_attention,
            "renewals": renewals,
            "not_after": None,
            "seconds_left": 0,
        }
        if certificate is not None:
            end = certificate.not_valid_after_utc
            told["not_after"] = end.isoformat()
            told["seconds_left"] = int((end - self._clock()).total_seconds())
        return told

    # --- the thread ---

    def _run(self) -> None:
        while not self._stopping.is_set():
            code = self._codes.current()
            try:
                seconds = self._step(code)
            except Exception:  # noqa: BLE001  a defect must not leave the device without renewals
                _log.exception("%s: keeping the certificate failed; it is tried again", self.name)
                seconds = self._later(Standing.RENEWAL_FAILS, "an internal error; the log has it")
            self._pause(seconds, code)

    def _step(self, code: Code | None) -> float:
        """Do what is next; return in how many seconds to go on."""
        if self._certificate is None:
            seconds = self._enrol(code)
            return self._keep() if self._certificate is not None else seconds
        again = self._replace(code) if code is not None else LOOK_SECONDS
        return min(again, self._keep())

    def _pause(self, seconds: float, code: Code | None) -> None:
        """Wait, but not longer than until there is another code."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stopping.wait(min(left, 1.0)) or (
                self._codes.may_come and self._codes.current() not in (None, code)
            ):
                return

    def _insist(self, ask: Callable[[bool], x509.Certificate]) -> x509.Certificate:
        """Ask; after a lost answer again. Raises ClientError."""
        for attempt in range(_TRIES - 1):
            try:
                return ask(attempt > 0)
            except LostAnswerError as error:
                _log.warning("%s: %s; trying again", self.name, error)
        return ask(True)

    # --- the first certificate ---

    def _enrol(self, code: Code | None) -> float:
        """Ask for the first certificate; return when to go on."""
        if self._is_rejected and code is None:
            return LOOK_SECONDS
        if code is None and not self._can_ask:
            if self._standing is not Standing.CODE_REFUSED:
                how = f"start with --code {self.name}=CODE (`dicomward device invite` gives one)"
                self._tell(Standing.NO_CODE, f"there is no certificate, and no code: {how}")
            return LOOK_SECONDS
        try:
            self._obtain(code)
        except RefusedByServerError as error:
            return self._refused(code, error)
        except (ClientError, OSError) as error:
            return self._later(Standing.ENROLLING, str(error))
        return 0.0

    def _replace(self, code: Code) -> float:
        """Get a certificate with a new code in place of the old one; return when to try again."""
        try:
            self._obtain(code)
        except (ClientError, OSError) as error:
            if isinstance(error, RefusedByServerError) and is_no(error.status):
                self._codes.refuse(code)
            _log.error("ALARM %s (certificate): the new code brought nothing, the old one stays: %s", self.name, error)
            return REPLACE_SECONDS
        return LOOK_SECONDS

    def _obtain(self, code: Code | None) -> None:
        """Raise ClientError, OSError."""
        server, kind = self._enrolment.server, self._enrolment.key_kind
        client = self._first_client(code)
        if code is not None:
            found = enrol_with_code(self._directory, client, code, name="", kind=kind, insist=self._insist)
        else:
            found = ask_for_approval(self._directory, client, name=self.name, kind=kind)
        state = install_first(self._directory, client, found, server=server, kind=kind)
        self._record("enrolled", found, f"as {state.device}, by the edge agent")
        _log.info("%s: a certificate for %s is there, good until %s", self.name, state.device, _day(found))
        self._took(found)
        if code is not None:
            self._codes.spend(code)

    def _first_client(self, code: Code | None) -> EstClient:
        server, ca = self._enrolment.server, self._enrolment.ca
        if code is not None:
            return EstClient.pinned(server, code.pins)
        if ca is not None:
            return EstClient(server, _authorities(ca))
        wanted = bytes.fromhex(self._enrolment.ca_sha256)
        return EstClient.pinned(server, lambda der: _sha256(der) == wanted, by="`ca_sha256`")

    def _refused(self, code: Code | None, error: RefusedByServerError) -> float:
        standing = judge_first(error.status, with_code=code is not None)
        if code is not None and error.status == _UNAUTHORIZED:
            # A wrong one is not said twice: five wrong guesses end an invitation.
            self._codes.refuse(code)
        self._is_rejected = standing is Standing.REJECTED
        seconds = self._later(standing, str(error) if standing.needs_attention else error.text)
        return LOOK_SECONDS if self._is_rejected else seconds

    # --- those after it ---

    def _keep(self) -> float:
        """Serve the device, renew when it is time, and look if everything is as before; return when to go on."""
        certificate = self._certificate
        if certificate is None:
            return 0.0
        if not self.is_served:
            try:
                self._ready()
            except NotServed as error:
                return self._later(Standing.STARTING, str(error))
            self.is_served = True
        try:
            state = self._directory.state()
        except ClientError as error:
            return self._later(Standing.RENEWAL_FAILS, str(error))
        server, now = self._enrolment.server or state.server, self._clock()
        draw = draw_of(fingerprint_of(certificate))
        is_time = is_due(certificate.not_valid_before_utc, certificate.not_valid_after_utc, draw, now)
        try:
            if is_time:
                found = renew(self._directory, server, self._insist)
                self._renewals += 1
                self._record("renewed", found, "by the edge agent")
                _log.info("%s: the certificate is renewed, and good until %s", self.name, _day(found))
                self._took(found)
                certificate = found
            elif time.monotonic() - self._looked_at >= LOOK_SECONDS or self._standing is not Standing.VALID:
                told = told_about(self._directory, server)
                if self._directory.trust(own_client(self._directory, server).ca_certificates()):
                    _log.info("%s: the enrolment server has other CAs now; they are trusted from now on", self.name)
                if told.get("waits_for_confirmation"):
                    text = (
                        "only C-ECHO is let through until a second person has confirmed it: `dicomward device confirm`"
                    )
                    return self._later(Standing.WAITS_FOR_CONFIRMATION, text)
        except ClientError as error:
            status = error.status if isinstance(error, RefusedByServerError) else None
            text = error.text if isinstance(error, RefusedByServerError) else ""
            if not is_time and not is_no(status):
                return self._not_asked(certificate, error)
            standing = judge_upkeep(status, text, certificate.not_valid_after_utc, self._clock())
            hint = f". {_HINTS[standing]}" if standing in _HINTS else ""
            return self._later(standing, f"{error}; the certificate is {self._left(certificate)}{hint}")
        self._looked_at = time.monotonic()
        self._failures = 0
        self._tell(Standing.VALID, self._left(certificate))
        draw = draw_of(fingerprint_of(certificate))
        return look_seconds(certificate.not_valid_before_utc, certificate.not_valid_after_utc, draw, self._clock())

    def _not_asked(self, certificate: x509.Certificate, error: ClientError) -> float:
        """Go on with a certificate that needs nothing yet, though nobody can be asked about it."""
        if self._failures == 0:
            _log.warning("%s: the enrolment server can't be asked if everything is as before: %s", self.name, error)
        return self._later(Standing.VALID, f"{self._left(certificate)}; the enrolment server can't be asked: {error}")

    def _left(self, certificate: x509.Certificate) -> str:
        return describe_left(certificate.not_valid_after_utc, self._clock())

    def _took(self, certificate: x509.Certificate) -> None:
        with self._lock:
            self._certificate = certificate
        self._failures = 0

    # --- telling ---

    def _later(self, standing: Standing, text: str) -> float:
        """Tell why it did not work, and return when to try again."""
        self._tell(standing, text)
        seconds = retry_seconds(standing, self._failures, self._draw())
        self._failures += 1
        return seconds

    def _tell(self, standing: Standing, text: str) -> None:
        """Log what is new; an alarm again each hour."""
        with self._lock:
            is_new = (standing, text) != (self._standing, self._text)
            self._standing, self._text = standing, text
        if standing.needs_attention:
            if is_new or time.monotonic() - self._alarmed_at >= _ALARM_AGAIN_SECONDS:
                self._alarmed_at = time.monotonic()
                _log.error("ALARM %s (certificate): %s: %s", self.name, standing.value, text)
                self._audit.append(
                    EnrolmentChanged(operator="edge", action="failed", device=self.name, detail=f"{standing}: {text}")
                )
        elif is_new and standing is not Standing.VALID:
            _log.warning("%s: certificate: %s: %s", self.name, standing.value, text)

    def _record(self, action: str, certificate: x509.Certificate, detail: str) -> None:
        sha256 = fingerprint_of(certificate).hex()
        self._audit.append(
            EnrolmentChanged(operator="edge", action=action, device=self.name, certificate_sha256=sha256, detail=detail)
        )


def _authorities(path: Path) -> tuple[x509.Certificate, ...]:
    """Raise ClientError."""
    try:
        return load_certificates(path)
    except LocalCaError as error:
        raise ClientError(f"[enrolment] ca: {error}") from error


def _sha256(der: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    return digest.finalize()


def _day(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_after_utc:%Y-%m-%d}"
