"""The pass-through of an edge agent: a gate for each device, which calls upstream with the device's own credential.

It is the gateway's own gate and relay: the device is known as in a legacy zone (AE title and address), and whom it
calls is known by name and certificate.
"""

import json
import ssl
from datetime import date, timedelta
from pathlib import Path

from dicomward.dicom.limits import Limits
from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.registry import Archive, Device, Endpoint, RegistrySnapshot
from dicomward.identity.zone import LegacyZone
from dicomward.io.gateway.correlations import CorrelationStore
from dicomward.io.gateway.gate import AuditSink, Gate, ListenerTls, LockedLimits, Refused
from dicomward.io.protection.budgets import BudgetStore
from dicomward.io.tls import CertificateFiles, PeerCertificates, load_authority, load_pair, named_client_context
from dicomward.limits.book import LimitBook
from dicomward.limits.budget_settings import BudgetSettings
from dicomward.limits.strangers import StrangerBook
from dicomward.limits.tables import parse_limits
from dicomward.policy.load import load_policy
from dicomward.relay.world import RelaySettings
from dicomward.settings.edge import EdgeDevice, EdgeSettings, Upstream
from dicomward.vocab.reason import ReasonCode

ROLE = "edge-device"
_MOST_ASSOCIATIONS = 128
_IDLE_SECONDS = 3600.0
_ANSWER_SECONDS = 30.0
_PLENTY = 1_000_000_000


def upstream_context(device: EdgeDevice, upstream: Upstream, *, is_reverse: bool = False) -> ssl.SSLContext:
    """Return the context of calls upstream: our certificate for the device; chain and name of the peer verified.

    `is_reverse`: of those connections over which the gateway calls the device. Raises TlsConfigurationError.
    """
    files = CertificateFiles(device.certificate, device.key)
    return named_client_context(device.authority, files, upstream.name, is_reverse=is_reverse)


def judge_pin(upstream: Upstream, sha256: str) -> None:
    """Compare a certificate, which OpenSSL has verified, with the pinned one, where one is. Raises Refused."""
    if upstream.certificate_sha256 and sha256 != upstream.certificate_sha256:
        raise Refused(
            ReasonCode.UPSTREAM_NOT_TRUSTED, f"{upstream.name} shows certificate {sha256}, which is not the pinned one"
        )


class Credential:
    """A device's certificate, key and CAs, loaded anew when the files have changed: somebody has renewed them."""

    def __init__(self, device: EdgeDevice, *contexts: ssl.SSLContext) -> None:
        self._files = CertificateFiles(device.certificate, device.key)
        self._authority = device.authority
        self._contexts = contexts
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, ...]:
        found = (path.stat() for path in (self._files.certificate, self._files.key, self._authority))
        return tuple(value for each in found for value in (each.st_mtime_ns, each.st_ino))

    def refresh(self) -> bool:
        """Load a changed pair for the associations to come; True if there was one.

        A pair that doesn't belong together (half of it is written yet) is tried again at the next call.
        Raises TlsConfigurationError, OSError.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        # A context that has refused a pair would be left with half of it, so another one tries it first.
        tried = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        load_authority(tried, self._authority)
        load_pair(tried, self._files)
        for context in self._contexts:
            # A CA that is no longer in the file is trusted until the agent starts anew.
            load_authority(context, self._authority)
            load_pair(context, self._files)
        self._seen = stamp
        return True


class EdgeGate(Gate):
    """The gate of one device."""

    def __init__(self, device: EdgeDevice, settings: EdgeSettings, audit: AuditSink) -> None:
        self.name = device.name
        self._upstream = settings.upstream
        self._context = upstream_context(device, settings.upstream)
        self.reverse_context = upstream_context(device, settings.upstream, is_reverse=True)
        self.credential = Credential(device, self._context, self.reverse_context)
        directory = settings.state_directory / device.name
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unused = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        super().__init__(
            settings=relay_settings(settings.upstream),
            registry=_registry(device, settings.upstream),
            policy=load_policy(_policy(device), source=f"operations of {device.name}"),
            limits=wide_limits(device.name),
            correlations=CorrelationStore(directory / "correlations.db", failed=ignore, works=nothing),
            budgets=unlimited_budgets(directory, audit),
            audit=audit,
            server_tls=ListenerTls(unused, PeerCertificates(None)),
            client_tls=self._context,
            zones=[LegacyZone(name=device.name, networks=device.networks, end_date=date.max)],
        )

    def upstream_context(self, target: Archive | Device) -> ssl.SSLContext | None:
        """Return TLS towards upstream: whatever the target, never plaintext."""
        return self._context

    def judge_upstream(self, target: Archive | Device, certificate: PeerCertificate | None) -> None:
        """Compare the certificate with the pinned one; OpenSSL has verified its chain, its dates and its name."""
        judge_pin(self._upstream, certificate.sha256 if certificate else "none")

    @property
    def client_context(self) -> ssl.SSLContext:
        """The context of every call upstream for the device."""
        return self._context

    def close(self) -> None:
        """Close its files."""
        self.correlations.close()
        self.budgets.close()


def ignore(_detail: str) -> None:
    """Correlations matter at the gateway; here they only order the turns."""


def nothing() -> None:
    """See ignore."""


def unlimited_budgets(directory: Path, audit: AuditSink) -> BudgetStore:
    """Return budgets that never end: they are the gateway's to judge."""
    return BudgetStore(directory, BudgetSettings(), failed=ignore, works=nothing, record=audit.append)


def relay_settings(upstream: Upstream) -> RelaySettings:
    """Return how the relay waits, for the pass-through and for reverse connections."""
    return RelaySettings(
        limits=Limits(),
        expiry_grace=timedelta(0),
        upstream_seconds=upstream.seconds,
        answer_seconds=_ANSWER_SECONDS,
        release_seconds=_ANSWER_SECONDS,
        idle_seconds=_IDLE_SECONDS,
        stalled_seconds=upstream.seconds * 10,
        judges_destinations=False,
    )


def _registry(device: EdgeDevice, upstream: Upstream) -> RegistrySnapshot:
    endpoint = Endpoint(host=upstream.address.host, port=upstream.address.port)
    return RegistrySnapshot(
        devices=(
            Device(
                name=device.name,
                ae_titles=device.ae_titles,
                role=ROLE,
                networks=device.networks,
                legacy_zone=device.name,
                legacy_always=True,
            ),
        ),
        archives=tuple(
            Archive(name=f"upstream-{number}", ae_title=title, endpoint=endpoint, sends_move_originator=True)
            for number, title in enumerate(dict.fromkeys(upstream.ae_titles), start=1)
        ),
        revision=1,
    )


def _policy(device: EdgeDevice) -> str:
    operations = [*device.operations, "n-event-report"]
    return (
        f'version = 1\n[[rule]]\nid = "device"\neffect = "allow"\nrole = "{ROLE}"\n'
        f"operation = {json.dumps(operations)}\n"
    )


def wide_limits(name: str, table: str = "device") -> LockedLimits:
    """Return limits that only bound the agent's own memory: what a device may do is for the gateway to say."""
    many = {"associations": _MOST_ASSOCIATIONS, "floor_associations": _MOST_ASSOCIATIONS}
    rates = {
        "queries_per_minute": _PLENTY,
        "operations_per_minute": _PLENTY,
        "matches_per_query": _PLENTY,
        "bytes_per_second": _PLENTY,
        "floor_bytes_per_second": _PLENTY,
    }
    settings = parse_limits({"archive": {"associations": 2 * _MOST_ASSOCIATIONS}, table: {name: many | rates}})
    return LockedLimits(LimitBook(settings), StrangerBook(settings.strangers))
