"""One certificate in use from two addresses at once: its key may have been copied. Thread-safe; nothing is refused."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from dicomward.audit.event import AssociationAllowed, AssociationEnded, AuditEvent, SecurityAlert
from dicomward.vocab.principal import Role
from dicomward.vocab.reason import ReasonCode

# A device with two addresses opens associations all day long; once an hour is enough to be noticed.
QUIET: Final = timedelta(hours=1).total_seconds()


class AddressWatch:
    """Knows the open associations of each certificate. Archives are left out: their nodes often share one.

    `is_open` says if an association is still there; `clock` gives seconds that never go back.
    """

    def __init__(self, is_open: Callable[[str], bool], clock: Callable[[], float]) -> None:
        self._is_open = is_open
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, dict[str, str]] = {}
        self._alarmed: dict[str, float] = {}

    def allowed(self, event: AssociationAllowed) -> SecurityAlert | None:
        """Note an association that was let in; return an alert if its certificate is in use elsewhere, too."""
        association, certificate, address = event.association, event.certificate_sha256, event.address
        if not association or not certificate or not address or event.role == Role.ARCHIVE:
            return None
        with self._lock:
            own = self._open.setdefault(certificate, {})
            elsewhere = sorted({other for held, other in own.items() if other != address and self._is_open(held)})
            own[association] = address
            if not elsewhere:
                return None
            now = self._clock()
            if now - self._alarmed.get(certificate, now - QUIET) < QUIET:
                return None
            self._alarmed[certificate] = now
        return SecurityAlert(
            association=association,
            device=event.device,
            role=event.role,
            site=event.site,
            address=address,
            certificate_sha256=certificate,
            reason=ReasonCode.CERTIFICATE_AT_TWO_ADDRESSES,
            detail=f"the certificate of {event.device} is in use from {', '.join((address, *elsewhere))} at once",
        )

    def ended(self, event: AuditEvent) -> None:
        """Forget an association."""
        certificate, association = event.certificate_sha256, event.association
        if type(event) is not AssociationEnded or not certificate or not association:
            return
        with self._lock:
            own = self._open.get(certificate)
            if own is not None:
                own.pop(association, None)
                if not own:
                    del self._open[certificate]
