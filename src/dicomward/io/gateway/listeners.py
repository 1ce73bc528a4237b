"""Where the gateway listens: one value for each listener, as the settings name them."""

from dataclasses import dataclass

from dicomward.relay.inputs import Listener
from dicomward.settings import ListenAddress, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedListener:
    """One place where the gateway listens; `kind` is what the relay makes of who calls there."""

    name: str
    kind: Listener
    address: ListenAddress
    tls: bool


def listeners_of(settings: Settings) -> tuple[NamedListener, ...]:
    """Return all listeners in the order of opening: who can reach the device side finds everything else at work."""
    gateway = settings.gateway
    return (
        NamedListener(
            name=Listener.ARCHIVE.value,
            kind=Listener.ARCHIVE,
            address=gateway.archive_listen,
            tls=gateway.archive_listen_tls,
        ),
        *(
            NamedListener(name=each.zone.name, kind=Listener.LEGACY, address=each.listen, tls=False)
            for each in settings.legacy_zones
        ),
        NamedListener(name=Listener.DEVICE.value, kind=Listener.DEVICE, address=gateway.listen, tls=True),
    )
