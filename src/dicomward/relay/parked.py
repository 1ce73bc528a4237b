"""Reverse connections: opened by a device (by its edge agent), parked here until an association is to be opened to it.

Who may park one, how many may wait, and who gets which. Connections and those who wait for one are known by a key.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.identify import IdentityError, identify_device
from dicomward.identity.registry import Device, RegistrySnapshot
from dicomward.limits.bucket import TokenBucket
from dicomward.vocab.reason import ReasonCode

# An agent keeps two, and opens another one whenever one is used.
MOST_OF_A_DEVICE: Final = 8
# Each use needs another one: as often as a device may be associated with over its own, and as much again at once.
A_MINUTE: Final = 1_200
# A site behind one address, with 64 devices that each keep the most.
MOST_OF_A_NETWORK: Final = 512
# 64 MiB, mostly TLS state.
MOST: Final = 2_048


def judge_parking(
    registry: RegistrySnapshot,
    certificate: PeerCertificate,
    address: str,
    now: datetime,
    *,
    expiry_grace: timedelta,
) -> Device:
    """Return the device whose reverse connection this may be: after each handshake, and again at each use.

    A certificate that has just expired still may: reports of storage commitment belong to the clinical floor. `now` is
    aware. Raises IdentityError.
    """
    identified = identify_device(registry, certificate, address, now, expiry_grace=expiry_grace)
    device = identified.device
    if identified.floor_only is ReasonCode.NOT_CONFIRMED:
        raise IdentityError(ReasonCode.NOT_CONFIRMED, f"device {device.name!r} has not been confirmed yet")
    if not device.reverse:
        raise IdentityError(
            ReasonCode.REVERSE_NOT_REGISTERED,
            f"device {device.name!r} is not registered for reverse connections: "
            f"`dicomward device address {device.name} reverse`",
        )
    return device


@dataclass(frozen=True, slots=True)
class Place:
    """What becomes of an offered connection: parked, or given to `waiter`; `evicted` has to make room for it.

    With a `refusal` it is neither.
    """

    refusal: ReasonCode | None = None
    waiter: int | None = None
    evicted: int | None = None


class Parking:
    """Which connections are parked for which device, and who waits for one."""

    def __init__(self) -> None:
        self._rates: dict[str, TokenBucket] = {}
        # Oldest first.
        self._parked: dict[str, OrderedDict[int, str]] = {}
        self._device_of: dict[int, str] = {}
        self._networks: dict[str, int] = {}
        self._waiting: dict[str, OrderedDict[int, None]] = {}

    def offer(self, key: int, device: str, network: str, now: float) -> Place:
        """Find a place for a connection of a device. `now` is monotonic seconds.

        The network is that of `limits.network.network_of`. A device that has all its places gets this one for its
        oldest: an agent that was cut off leaves dead ones behind.
        """
        rate = self._rates.get(device)
        if rate is None:
            rate = self._rates[device] = TokenBucket(rate=A_MINUTE / 60, burst=A_MINUTE, now=now)
        if not rate.try_take(1, now):
            return Place(refusal=ReasonCode.REVERSE_CONNECTIONS)
        if waiting := self._waiting.get(device):
            waiter, _ = waiting.popitem(last=False)
            if not waiting:
                del self._waiting[device]
            return Place(waiter=waiter)
        parked = self._parked.get(device, OrderedDict[int, str]())
        evicted = next(iter(parked)) if len(parked) >= MOST_OF_A_DEVICE else None
        if evicted is not None:
            self.remove(evicted)
        elif len(self._device_of) >= MOST or self._networks.get(network, 0) >= MOST_OF_A_NETWORK:
            return Place(refusal=ReasonCode.REVERSE_CONNECTIONS)
        self._parked.setdefault(device, OrderedDict())[key] = network
        self._device_of[key] = device
        self._networks[network] = self._networks.get(network, 0) + 1
        return Place(evicted=evicted)

    def take(self, device: str) -> int | None:
        """Take the newest connection of a device: it was alive last."""
        parked = self._parked.get(device)
        if not parked:
            return None
        key = next(reversed(parked))
        self.remove(key)
        return key

    def wait(self, waiter: int, device: str) -> None:
        """Wait for a connection of a device."""
        self._waiting.setdefault(device, OrderedDict())[waiter] = None

    def stop_waiting(self, waiter: int, device: str) -> bool:
        """Wait no more; False if it has got one meanwhile."""
        waiting = self._waiting.get(device)
        if waiting is None or waiter not in waiting:
            return False
        del waiting[waiter]
        if not waiting:
            del self._waiting[device]
        return True

    def remove(self, key: int) -> bool:
        """Forget a connection; False if it isn't parked."""
        device = self._device_of.pop(key, None)
        if device is None:
            return False
        parked = self._parked[device]
        network = parked.pop(key)
        if not parked:
            del self._parked[device]
        self._networks[network] -= 1
        if not self._networks[network]:
            del self._networks[network]
        return True

    def counts(self) -> dict[str, int]:
        """Return how many are parked, by device."""
        return {device: len(parked) for device, parked in self._parked.items()}
