"""The gate of what the gateway opens towards a device, over the agent's reverse connections: the device listens there.

The gateway is known by the certificate that OpenSSL has verified; whom it speaks for, by the calling AE title.
"""

import json
import ssl
from collections import OrderedDict
from typing import Final

from dicomward.identity.registry import Archive, Device, Endpoint, RegistrySnapshot
from dicomward.io.edge.gate import ignore, nothing, relay_settings, unlimited_budgets, wide_limits
from dicomward.io.gateway.correlations import CorrelationStore
from dicomward.io.gateway.gate import AuditSink, Gate, ListenerTls
from dicomward.io.tls import PeerCertificates
from dicomward.policy.load import load_policy
from dicomward.settings import ListenAddress
from dicomward.settings.edge import EdgeDevice, EdgeSettings
from dicomward.vocab.principal import Role

_DEVICE: Final = "device"
_ROLE: Final = "edge-device"
_REPORT: Final = "n-event-report"
# Gateways behind one name, and one whose certificate was renewed.
_MOST_KNOWN: Final = 8


class ReverseGate(Gate):
    """The gate of one device's own SCP. It is reached without TLS: on loopback, or by a cable nobody else is on."""

    def __init__(
        self, device: EdgeDevice, settings: EdgeSettings, audit: AuditSink, reports: ListenAddress | None = None
    ) -> None:
        """Let everything go to `reports` first, if there is one: some may be for the agent itself."""
        self._device = device
        self._address = reports or device.address
        self._upstream = Endpoint(host=settings.upstream.address.host, port=settings.upstream.address.port)
        self._known: OrderedDict[str, Archive] = OrderedDict()
        directory = settings.state_directory / device.name / "reverse"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unused = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        super().__init__(
            settings=relay_settings(settings.upstream),
            registry=self._registry(),
            policy=load_policy(_policy(device, is_told=reports is not None), source=f"receives of {device.name}"),
            limits=wide_limits(Role.ARCHIVE.value, "role"),
            correlations=CorrelationStore(directory / "correlations.db", failed=ignore, works=nothing),
            budgets=unlimited_budgets(directory, audit),
            audit=audit,
            server_tls=ListenerTls(unused, PeerCertificates(None)),
            client_tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )

    def trust(self, sha256: str) -> None:
        """Let who has shown this certificate, which OpenSSL has verified, call the device."""
        if sha256 in self._known:
            self._known.move_to_end(sha256)
            return
        self._known[sha256] = Archive(
            name=f"gateway-{sha256[:16]}",
            # Nobody calls it; it only has to be another one for each.
            ae_title=sha256[:16],
            calling_ae_titles=self._device.callers,
            endpoint=self._upstream,
            networks=("any",),
            tls=True,
            certificate_sha256=sha256,
            sends_move_originator=True,
        )
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        self.use_registry(self._registry())

    def _registry(self) -> RegistrySnapshot:
        device, address = self._device, self._address
        endpoint = Endpoint(host=address.host, port=address.port) if address is not None else None
        listening = Device(
            name=_DEVICE, ae_titles=device.ae_titles, role=_ROLE, networks=(), address=endpoint, plain=True
        )
        archives = sorted(self._known.values(), key=lambda archive: archive.name)
        return RegistrySnapshot(devices=(listening,), archives=tuple(archives), revision=1)

    def close(self) -> None:
        """Close its files."""
        self.correlations.close()
        self.budgets.close()


def _policy(device: EdgeDevice, *, is_told: bool) -> str:
    operations = dict.fromkeys([*device.receives, *([_REPORT] if is_told else [])])
    return (
        f'version = 1\n[[rule]]\nid = "gateway"\neffect = "allow"\nrole = "{Role.ARCHIVE.value}"\n'
        f"operation = {json.dumps([*operations])}\n"
    )
