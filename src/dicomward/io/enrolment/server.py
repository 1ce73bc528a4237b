"""The enrolment server: the CA, the desk, the protocols and the listener put together. A process of its own."""

import json
import logging
import socket
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509

from dicomward.audit.event import AuditEvent, SecurityAlert
from dicomward.enrolment.est import DEVICE_PATH
from dicomward.enrolment.http import Request, Response, Routes
from dicomward.enrolment.renewal import RENEWAL_GRACE
from dicomward.io.ca.crl import CrlKeeper
from dicomward.io.ca.directory import TRUST_NAME, CaDirectory
from dicomward.io.ca.issuer import CaIssuer
from dicomward.io.ca.local import load_certificates
from dicomward.io.ca.publish import Publisher
from dicomward.io.ca.service import issuing_terms
from dicomward.io.edge.spool_keys import SPOOL_KEY_PATH
from dicomward.io.enrolment.cmp import CmpService
from dicomward.io.enrolment.desk import Desk
from dicomward.io.enrolment.est import EstService
from dicomward.io.enrolment.http import EnrolmentHttpServer
from dicomward.io.enrolment.key import load_enrolment_key
from dicomward.io.enrolment.presented import identify_presented, presented_certificate
from dicomward.io.enrolment.spool_keys import SpoolKeys
from dicomward.io.enrolment.tls import ServerTls
from dicomward.io.people.operators import record_event
from dicomward.io.registry.store import RegistryStore
from dicomward.settings import Settings
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.2


class EnrolmentServer:
    """Answers until it is stopped."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        """Open the CA and the database, bind and listen.

        Raises CaError, EnrolmentKeyError, LocalCaError, RegistryStoreError, OSError.
        """
        self._settings, self._clock = settings, clock
        self._recording, self._stopping = threading.Lock(), threading.Event()
        ours = settings.enrolment
        ca = CaDirectory(ours.ca)
        key = load_enrolment_key(ours.key, create=True)
        self._store = RegistryStore.open(settings.registry.url, keeps_connections=True)
        issuer = CaIssuer(self._store, ca, issuing_terms(settings))
        self.publisher = Publisher(settings)
        self._crls = CrlKeeper(self._store, ours.ca, timedelta(days=ours.crl_days), clock)
        self.desk = Desk(
            self._store, issuer, self.publisher.publish, key, has_queue=ours.queue, needs_confirmation=ours.confirm
        )
        tls = ServerTls(
            lambda: issuer.opened.current().authority,
            lambda: (*load_certificates(ca.path / TRUST_NAME), *_known_cas(settings)),
            server_names(settings),
            clock,
        )
        self.est = EstService(self.desk, self._record, clock, tls.credential)
        self.routes = Routes()
        self.est.add_to(self.routes)
        self.routes.add("GET", DEVICE_PATH, self.est.guarded("device", self._device))
        keys = SpoolKeys(ca.path, self._store.read, self._record_one, clock)
        self.routes.add("GET", SPOOL_KEY_PATH, self.est.guarded("spool-key", keys.answer))
        CmpService(self.desk, tls, self.est, clock).add_to(self.routes)
        self.http = EnrolmentHttpServer(ours.listen.host, ours.listen.port, tls.context, self.routes.answer)

    def start(self) -> None:
        """Bring into force what an earlier process could not any more, then answer."""
        if (problem := self.publisher.publish(self._store.read().revision)) is not None:
            _log.error("what was issued may not be in force: %s", problem)
        self._crls.start()
        self.http.start()

    def stop(self) -> None:
        """Stop to answer; what is under way ends."""
        self._stopping.set()
        self.http.stop()
        self._crls.stop()
        self.publisher.close()
        self._store.close()

    def _record(self, event: AuditEvent) -> str | None:
        problem = self._record_one(event)
        if event.reason is ReasonCode.RENEWAL_OF_SPENT_GENERATION:
            alert = SecurityAlert(device=event.device, address=event.address, reason=event.reason, detail=event.detail)
            problem = self._record_one(alert) or problem
        return problem

    def _record_one(self, event: AuditEvent) -> str | None:
        """Record through the gateway if one runs, else in the log itself, which has one writer at a time."""
        with self._recording:
            for _ in range(_TRIES):
                problem = record_event(self._settings, event)
                if problem is None:
                    return None
                # A command may be writing just now, or a gateway be starting.
                self._stopping.wait(_PAUSE_SECONDS)
            return problem

    def _device(self, request: Request) -> Response:
        """Tell a device, known by its certificate, who it is and where the gateway and the archives are."""
        grant = self.desk.renewable(presented_certificate(request))
        registry = self._store.read()
        # Who is revoked or suspended hears so here before it notices it at the gateway.
        found = identify_presented(registry, request, self._clock(), expiry_grace=RENEWAL_GRACE)
        archives = [archive.called_ae_titles[0] for archive in registry.archives]
        told: dict[str, object] = {
            "device": grant.device,
            "ae_titles": grant.ae_titles,
            "gateway": gateway_address(self._settings),
            "archives": archives,
        }
        if found.floor_only is ReasonCode.NOT_CONFIRMED:
            told["waits_for_confirmation"] = True
        return Response(content_type="application/json", body=json.dumps(told).encode())


def server_names(settings: Settings) -> tuple[str, ...]:
    """Return the names under which the server is reached: the settings' own, its address, and this host's name."""
    ours = settings.enrolment
    names = [name for name in ours.names.replace(",", " ").split() if name]
    if not _is_everywhere(ours.listen.host):
        names.append(ours.listen.host)
    names.append(socket.gethostname())
    if _is_everywhere(ours.listen.host) or ours.listen.host.startswith("127."):
        names += ["localhost", "127.0.0.1", "::1"]
    return tuple(dict.fromkeys(names))


def server_url(settings: Settings) -> str:
    """Return where devices find the server, as far as the settings tell."""
    ours = settings.enrolment
    return ours.url.rstrip("/") or f"https://{_bracketed(server_names(settings)[0])}:{ours.listen.port}"


def gateway_address(settings: Settings) -> str:
    """Return HOST:PORT of the gateway for devices; "" where the settings don't tell."""
    if settings.enrolment.gateway:
        return settings.enrolment.gateway
    listen = settings.gateway.listen
    return "" if _is_everywhere(listen.host) else str(listen)


def _is_everywhere(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _known_cas(settings: Settings) -> tuple[x509.Certificate, ...]:
    """Return the CAs of devices that the gateway knows: there is no such file where the CA is on another host."""
    path = settings.tls.client_ca
    return load_certificates(path) if path.exists() else ()
