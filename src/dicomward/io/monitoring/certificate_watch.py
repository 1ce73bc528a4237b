"""When every certificate of the system ends, for monitoring, and the audit records before and after each end."""

import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from dicomward.audit.event import AuditEvent, CertificateExpires
from dicomward.identity.registry import RegistrySnapshot
from dicomward.io.installation.certificate_dates import crl_end_of, ends_of
from dicomward.settings import Settings

_log = logging.getLogger(__name__)

Ends = Mapping[tuple[str, str], datetime]

# Days before an end. A device of 90 days renews by itself at 30, a CRL of 7 at 3 and a half: not a word before that.
_ALARM_DAYS: Final = (30, 14, 7, 3, 1, 0)
_ALARM_DAYS_OF: Final[Mapping[str, tuple[int, ...]]] = {"device": (20, 14, 7, 3, 1, 0), "crl": (1, 0)}
_DAY: Final = timedelta(days=1)


class CertificatesInForce:
    """When the gateway's certificates and CAs end: of those that were read, not of those on the disk now.

    Those of the issuing CAs, of the CRLs and of the receivers of audit messages are looked at each time.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ends: dict[tuple[str, str], datetime] = {}
        self._untold: set[Path] = set()
        self.read(settings)

    def read(self, settings: Settings) -> None:
        """Read the dates, when the certificates themselves are read."""
        self._settings = settings
        self._untold = set()
        files = [("gateway", pair.certificate) for pair in settings.tls.certificates]
        ends: dict[tuple[str, str], datetime] = {}
        for kind, path in (*files, ("ca", settings.tls.client_ca)):
            found = self._read(path, ends_of)
            for number, end in enumerate(found if kind == "ca" else found[:1], start=1):
                ends[kind, path.name if number == 1 else f"{path.name}#{number}"] = end
        self._ends = ends

    def ends(self) -> Ends:
        """Return the ends by kind and name."""
        return {**self._ends, **dict(self._others())}

    def _others(self) -> Iterator[tuple[tuple[str, str], datetime]]:
        ca = self._settings.enrolment.ca
        for path in sorted(ca.glob("*.cert.pem")):
            yield from ((("issuing-ca", path.name), end) for end in self._read(path, lambda path: ends_of(path)[:1]))
        for path in sorted(ca.glob("*.crl")):
            yield from ((("crl", path.name), end) for end in self._read(path, lambda path: (crl_end_of(path),)))
        for each in self._settings.audit.syslog:
            yield from ((("syslog-ca", each.name), end) for end in self._read(each.ca, lambda path: ends_of(path)[:1]))
            if each.certificate is not None:
                found = self._read(each.certificate, lambda path: ends_of(path)[:1])
                yield from ((("syslog", each.name), end) for end in found)

    def _read(self, path: Path, read: Callable[[Path], tuple[datetime, ...]]) -> tuple[datetime, ...]:
        try:
            return read(path)
        except (OSError, ValueError) as error:
            # Who uses a certificate says why it can't; here only its date is missing.
            if path not in self._untold:
                _log.warning("the end of %s can't be told to monitoring: %s", path, error)
                self._untold.add(path)
            return ()


def device_ends(registry: RegistrySnapshot, most: int | None = None) -> Ends:
    """Return when the newest active certificate of each active device ends, of the first `most` devices."""
    ends: dict[tuple[str, str], datetime] = {}
    for device in registry.devices[:most]:
        own = [record.not_after for record in device.certificates if record.status == "active"]
        if device.is_active and own:
            ends["device", device.name] = max(own)
    return ends


class CertificateWatch:
    """Records each certificate that ends: some days before, at its end, and every day after it.

    Each is said once for as long as the gateway runs; a restart says again what stands.
    """

    def __init__(self, record: Callable[[AuditEvent], None]) -> None:
        self._record = record
        self._said: dict[tuple[str, str], tuple[datetime, int]] = {}

    def check(self, ends: Ends, now: datetime) -> None:
        """Record what is due at this (aware) time."""
        for (kind, name), end in ends.items():
            level = _level(kind, end - now)
            if level is None or self._said.get((kind, name)) == (end, level):
                continue
            self._said[kind, name] = (end, level)
            days = (end - now) // _DAY
            until = f"{end:%Y-%m-%d %H:%M} UTC"
            detail = f"{kind} {name} ended at {until}" if days < 0 else f"{kind} {name} ends at {until}, in {days} days"
            _log.warning("%s", detail)
            self._record(
                CertificateExpires(
                    component=kind,
                    device=name if kind == "device" else None,
                    count=days,
                    last=end.isoformat(timespec="seconds"),
                    detail=detail,
                )
            )


def _level(kind: str, left: timedelta) -> int | None:
    """Return the step that has been reached; every day after the end is one. None: it is far away."""
    if left < timedelta(0):
        return left // _DAY
    reached = [days for days in _ALARM_DAYS_OF.get(kind, _ALARM_DAYS) if left <= days * _DAY]
    return min(reached, default=None)
