"""Verifies persons in threads of its own: nothing of it ever waits on the byte path. docs/people.md.

A claim gets exactly one verdict. What is too much for the queue, or can't be told, is `PersonUnavailable`: the device
goes on alone. Nothing is cached: each association is verified anew.
"""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from dicomward.audit.event import AuditEvent, DegradedEntered, DegradedLeft, SecurityAlert
from dicomward.identity.person import PersonClaim, PersonRefused, PersonUnavailable, Verdict
from dicomward.limits.people import PersonBackOff
from dicomward.vocab.association import UserIdentityType
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

THREADS: Final = 4
MOST_WAITING: Final = 64
MOST_OF_A_DEVICE: Final = 8
COMPONENT: Final = "persons"
DEVICE_ONLY: Final = "device-only"


class Source(Protocol):
    """Something that can verify claims of one type."""

    type: UserIdentityType

    def is_configured(self) -> bool:
        """Say if it can verify anybody; it may start or stop to while the gateway runs."""

    def verify(self, claim: PersonClaim, now: datetime) -> Verdict | None:
        """Judge a claim; None where another source may know the person."""


class PersonVerifier:
    """The verifiers behind one queue. Thread-safe."""

    def __init__(self, sources: tuple[Source, ...], record: Callable[[AuditEvent], object]) -> None:
        self._sources = sources
        self._record = record
        self._lock = threading.Lock()
        self._back_off = PersonBackOff()
        self._waiting: queue.Queue[tuple[PersonClaim, Callable[[Verdict], None]] | None] = queue.Queue()
        self._of_device: Counter[str] = Counter()
        self._threads: list[threading.Thread] = []
        self._is_degraded = False
        self._is_stopped = False

    def verifies(self, identity_type: int) -> bool:
        """Say if there is a source for this type of user identity."""
        return any(source.type == identity_type and source.is_configured() for source in self._sources)

    def verify(self, claim: PersonClaim, done: Callable[[Verdict], None]) -> None:
        """Have a claim judged; `done` gets the verdict, in another thread."""
        with self._lock:
            waiting = sum(self._of_device.values())
            is_full = waiting >= MOST_WAITING or self._of_device[claim.device] >= MOST_OF_A_DEVICE
            if not (is_full or self._is_stopped):
                self._of_device[claim.device] += 1
                self._waiting.put((claim, done))
                if len(self._threads) < THREADS:
                    self._start_thread()
                return
        done(PersonUnavailable("too many persons wait for a verdict" if is_full else "the gateway stops"))

    def stop(self) -> None:
        """Verify nobody any more; whoever waits goes on without a person."""
        with self._lock:
            self._is_stopped = True
            threads = list(self._threads)
        for _ in threads:
            self._waiting.put(None)
        # A source may be waiting for an answer from afar: its thread is a daemon and isn't waited for.

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="dicomward-persons", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (taken := self._waiting.get()) is not None:
            claim, done = taken
            try:
                verdict = self._judge(claim)
            except Exception as error:  # noqa: BLE001  a defect of a verifier is nobody's passcode
                _log.exception("a person could not be verified")
                verdict = PersonUnavailable(f"internal error: {type(error).__name__}")
            finally:
                with self._lock:
                    self._of_device[claim.device] -= 1
                    if not self._of_device[claim.device]:
                        del self._of_device[claim.device]
            done(verdict)

    def _judge(self, claim: PersonClaim) -> Verdict:
        with self._lock:
            left = self._back_off.seconds_left(person=claim.name, device=claim.device, now=time.monotonic())
        if left > 0:
            return PersonRefused(
                ReasonCode.USER_IDENTITY_BACK_OFF, f"after too many failures not listened to for {left:.0f} s more"
            )
        verdict = self._ask(claim)
        match verdict:
            case PersonRefused():
                self._note_failure(claim)
            case PersonUnavailable(detail=detail):
                self._note_state(detail)
            case _:
                with self._lock:
                    self._back_off.note_success(person=claim.name, device=claim.device)
                self._note_state(None)
        return verdict

    def _ask(self, claim: PersonClaim) -> Verdict:
        now = datetime.now(UTC)  # noqa: TID251  io has the clocks
        for source in self._sources:
            if source.type == claim.type and source.is_configured():
                verdict = source.verify(claim, now)
                if verdict is not None:
                    return verdict
        return PersonRefused(ReasonCode.USER_IDENTITY_REFUSED, "wrong name or passcode")

    def _note_failure(self, claim: PersonClaim) -> None:
        with self._lock:
            seconds = self._back_off.note_failure(person=claim.name, device=claim.device, now=time.monotonic())
        if seconds > 0:
            self._record(
                SecurityAlert(
                    device=claim.device,
                    address=claim.address,
                    person=claim.name or None,
                    reason=ReasonCode.USER_IDENTITY_BACK_OFF,
                    detail=f"too many wrong passcodes or tokens; not listened to for {seconds:.0f} s",
                )
            )

    def _note_state(self, problem: str | None) -> None:
        """Enter or leave the degraded state in which devices go on without their persons."""
        with self._lock:
            if self._is_degraded == (problem is not None):
                return
            self._is_degraded = problem is not None
        if problem is None:
            self._record(DegradedLeft(component=COMPONENT))
        else:
            self._record(
                DegradedEntered(
                    component=COMPONENT,
                    state=DEVICE_ONLY,
                    reason=ReasonCode.PERSON_VERIFIER_UNAVAILABLE,
                    detail=problem,
                )
            )
