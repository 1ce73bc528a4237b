"""Who has how much open and has used how much: one `LimitBook` for all devices, networks and targets of a gateway.

Rules of this file: each call looks up what it needs and adds up nothing, so it costs the same with 5,000 devices; a
refusal changes nothing; every association that was admitted is released once.
"""

from collections import OrderedDict
from collections.abc import Collection
from enum import IntEnum
from typing import Final

from dicomward.limits.bucket import TokenBucket
from dicomward.limits.settings import DeviceLimits, LimitSettings, NetworkLimits
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import is_clinical_floor

TRACKED_NETWORKS: Final = 65_536
_EVICTION_TRIES: Final = 8
_MINUTE: Final = 60.0


class _Rate(IntEnum):
    """The buckets of operations, as indexes. The first two are apart from the clinical floor's three, and reverse."""

    OPERATION = 0
    QUERY = 1
    STORE = 2
    WORKLIST = 3
    FLOOR = 4


# What an operation takes from, and what is said when it is empty; a query is an operation too.
_TAKES: Final[dict[_Rate, tuple[tuple[_Rate, ReasonCode], ...]]] = {
    _Rate.OPERATION: ((_Rate.OPERATION, ReasonCode.OPERATION_RATE),),
    _Rate.QUERY: ((_Rate.QUERY, ReasonCode.QUERY_RATE), (_Rate.OPERATION, ReasonCode.OPERATION_RATE)),
    _Rate.STORE: ((_Rate.STORE, ReasonCode.OPERATION_RATE),),
    _Rate.WORKLIST: ((_Rate.WORKLIST, ReasonCode.QUERY_RATE),),
    _Rate.FLOOR: ((_Rate.FLOOR, ReasonCode.OPERATION_RATE),),
}


def _rate_of(operation: Operation, sop_class_uid: str) -> _Rate:
    floor = is_clinical_floor(operation, sop_class_uid)
    match operation:
        case Operation.C_STORE if floor:
            return _Rate.STORE
        case Operation.C_FIND:
            return _Rate.WORKLIST if floor else _Rate.QUERY
        case _:
            return _Rate.FLOOR if floor else _Rate.OPERATION


class _Share:
    """What one device or one network has open and has used; the lists with two entries are indexed by `floor`."""

    __slots__ = ("associations", "bytes", "caps", "open", "rates", "role")

    def __init__(self, limits: DeviceLimits | NetworkLimits, role: str, now: float) -> None:
        self.role = role
        self.open = [0, 0]
        self.caps = (limits.associations, limits.floor_associations)
        self.associations = (
            _a_minute(limits.associations_per_minute, now),
            _a_minute(limits.floor_associations_per_minute, now),
        )
        self.rates = (
            _a_minute(limits.operations_per_minute, now),
            _a_minute(limits.queries_per_minute, now),
            _a_minute(limits.stores_per_minute, now),
            _a_minute(limits.worklist_queries_per_minute, now),
            _a_minute(limits.floor_operations_per_minute, now),
        )
        self.bytes = (_a_second(limits.bytes_per_second, now), _a_second(limits.floor_bytes_per_second, now))

    def use(self, limits: DeviceLimits | NetworkLimits, now: float) -> None:
        """Go on under other limits; what is open and what was used stays counted."""
        fresh = _Share(limits, self.role, now)
        self.caps = fresh.caps
        for mine, other in zip(self._buckets(), fresh._buckets(), strict=True):
            mine.change(rate=other.rate, burst=other.burst, now=now)

    def _buckets(self) -> tuple[TokenBucket, ...]:
        return (*self.associations, *self.rates, *self.bytes)

    @property
    def is_idle(self) -> bool:
        return not any(self.open)


class _Target:
    """What is open towards one archive, or towards a device that listens."""

    __slots__ = ("by_device", "cap", "open", "reserve")

    def __init__(self, cap: int, reserve: int) -> None:
        self.cap = cap
        self.reserve = reserve
        self.open = 0
        self.by_device: dict[str, int] = {}

    def has_place_for(self, device: str, known_devices: int) -> bool:
        """Say if the device may open one more.

        A device that has none here may use every free place; one that has some leaves `reserve` places free for each
        device that has none, but never more than half of the cap.
        """
        if device not in self.by_device:
            return self.open < self.cap
        without = max(0, known_devices - len(self.by_device))
        return self.open < self.cap - min(without * self.reserve, self.cap // 2)


class LimitBook:
    """The counters and buckets. `now` is monotonic seconds. Not thread-safe: io holds one lock around each call."""

    __slots__ = ("_devices", "_known_devices", "_limits_of_role", "_networks", "_settings", "_targets")

    def __init__(self, settings: LimitSettings) -> None:
        """Start with nothing open and every bucket full."""
        self._settings = settings
        self._devices: dict[str, _Share] = {}
        # In order of their last use, so that the one that was quiet longest can be forgotten.
        self._networks: OrderedDict[str, _Share] = OrderedDict()
        self._targets: dict[str, _Target] = {}
        self._limits_of_role: dict[str, DeviceLimits] = {}
        self._known_devices = 0

    def use_settings(self, settings: LimitSettings, now: float) -> None:
        """Go on under other settings: buckets keep what was taken from them, and what is open stays counted."""
        self._settings = settings
        self._limits_of_role.clear()
        for name, share in self._devices.items():
            share.use(self._limits(name, share.role), now)
        for network, share in self._networks.items():
            share.use(settings.for_network(network), now)
        for archive, target in self._targets.items():
            limits = settings.for_archive(archive)
            target.cap, target.reserve = limits.associations, limits.reserve_per_device

    def configure_archive(self, name: str, cap: int) -> None:
        """Set how many associations may be open to a target; what is open stays. Raises ValueError below 1."""
        if cap < 1:
            raise ValueError(f"the cap of archive {name!r} is {cap}; it must be at least 1")
        self._target(name).cap = cap

    def known_devices(self, devices: int | Collection[str]) -> None:
        """Say which devices (or only how many) are registered: each has a place reserved at each target.

        With names, what was counted for devices that are gone and have nothing open is forgotten.
        """
        if isinstance(devices, int):
            self._known_devices = devices
            return
        names = frozenset(devices)
        self._known_devices = len(names)
        for name in [name for name, share in self._devices.items() if name not in names and share.is_idle]:
            del self._devices[name]

    def admit_association(
        self,
        *,
        device: str,
        role: str,
        network: str,
        archive: str,
        floor: bool,
        now: float,
        lifted: bool = False,
        own_only: bool = False,
    ) -> ReasonCode | None:
        """Count one association and return None, or return the reason for which it may not be and count nothing.

        `floor`: only operations of the clinical floor can happen on it; it then has caps and rates of its own.
        `lifted`: an emergency bypass is open for it, so it is counted in any case, and takes what the rates have left.
        `own_only`: the device is observed, so what is lifted is its own: an archive that is full for it still refuses.
        """
        of_device, of_network = self._device(device, role, now), self._network(network, now)
        target = self._target(archive)
        reason = self._judge_association(of_device, of_network, target, device, floor, now)
        if reason is not None and not lifted:
            return reason
        if own_only and not target.has_place_for(device, self._known_devices):
            return ReasonCode.ARCHIVE_ASSOCIATIONS
        of_device.associations[floor].try_take(1, now)
        of_network.associations[floor].try_take(1, now)
        of_device.open[floor] += 1
        of_network.open[floor] += 1
        target.open += 1
        target.by_device[device] = target.by_device.get(device, 0) + 1
        return reason

    def _judge_association(
        self, of_device: _Share, of_network: _Share, target: _Target, device: str, floor: bool, now: float
    ) -> ReasonCode | None:
        """Return the reason for which one more association may not be; takes nothing."""
        if of_device.open[floor] >= of_device.caps[floor]:
            return ReasonCode.DEVICE_ASSOCIATIONS
        if of_network.open[floor] >= of_network.caps[floor]:
            return ReasonCode.NETWORK_ASSOCIATIONS
        if not target.has_place_for(device, self._known_devices):
            return ReasonCode.ARCHIVE_ASSOCIATIONS
        if not of_device.associations[floor].has(1, now) or not of_network.associations[floor].has(1, now):
            return ReasonCode.ASSOCIATION_RATE
        return None

    def release_association(self, *, device: str, network: str, archive: str, floor: bool) -> None:
        """Give back what `admit_association` counted with the same arguments.

        Raises ValueError, and changes nothing, if no such association is open: the caller has released it twice.
        """
        of_device, of_network = self._devices.get(device), self._networks.get(network)
        target = self._targets.get(archive)
        if (
            of_device is None
            or of_network is None
            or target is None
            or not of_device.open[floor]
            or not of_network.open[floor]
            or device not in target.by_device
        ):
            raise ValueError(f"no association of {device!r} from {network!r} to {archive!r} is open")
        of_device.open[floor] -= 1
        of_network.open[floor] -= 1
        target.open -= 1
        target.by_device[device] -= 1
        if not target.by_device[device]:
            del target.by_device[device]

    def take_operation(
        self, *, device: str, role: str, network: str, operation: Operation, sop_class_uid: str, now: float
    ) -> ReasonCode | None:
        """Count one operation and return None, or return the reason for which it may not be and count nothing."""
        takes = _TAKES[_rate_of(operation, sop_class_uid)]
        of_device, of_network = self._device(device, role, now), self._network(network, now)
        for rate, reason in takes:
            if not of_device.rates[rate].has(1, now) or not of_network.rates[rate].has(1, now):
                return reason
        for rate, _ in takes:
            of_device.rates[rate].try_take(1, now)
            of_network.rates[rate].try_take(1, now)
        return None

    def matches_allowed(self, role: str, floor: bool, device: str = "") -> int:
        """Return how many matches one query may give back; `floor` for Modality Worklist."""
        limits = self._limits(device, role)
        return limits.worklist_matches_per_query if floor else limits.matches_per_query

    def take_bytes(self, *, device: str, network: str, count: int, now: float, floor: bool = False) -> float:
        """Count bytes that went through; return the seconds to pause reading, 0.0 mostly.

        `floor`: they belong to the clinical floor, whose buckets are apart. Runs for every read.
        """
        of_device = self._devices.get(device) or self._device(device, "", now)
        of_network = self._networks.get(network) or self._network(network, now)
        device_pause = of_device.bytes[floor].spend(count, now)
        network_pause = of_network.bytes[floor].spend(count, now)
        return device_pause if device_pause > network_pause else network_pause

    def open_associations(self, archive: str) -> int:
        """Return how many associations are open to a target, for metrics."""
        target = self._targets.get(archive)
        return target.open if target else 0

    def _device(self, device: str, role: str, now: float) -> _Share:
        share = self._devices.get(device)
        if share is None or share.role != role:
            fresh = _Share(self._limits(device, role), role, now)
            if share is not None:
                fresh.open = share.open
            self._devices[device] = share = fresh
        return share

    def _network(self, network: str, now: float) -> _Share:
        share = self._networks.get(network)
        if share is None:
            if len(self._networks) >= TRACKED_NETWORKS:
                self._forget_a_network()
            share = self._networks[network] = _Share(self._settings.for_network(network), "", now)
        else:
            self._networks.move_to_end(network)
        return share

    def _forget_a_network(self) -> None:
        """Forget the network that was quiet longest, among those with nothing open."""
        for _ in range(_EVICTION_TRIES):
            network, share = self._networks.popitem(last=False)
            if share.is_idle:
                return
            self._networks[network] = share

    def _target(self, archive: str) -> _Target:
        target = self._targets.get(archive)
        if target is None:
            limits = self._settings.for_archive(archive)
            target = self._targets[archive] = _Target(limits.associations, limits.reserve_per_device)
        return target

    def _limits(self, device: str, role: str) -> DeviceLimits:
        if device in self._settings.devices:
            return self._settings.for_device(device, role)
        limits = self._limits_of_role.get(role)
        if limits is None:
            limits = self._limits_of_role[role] = self._settings.for_device("", role)
        return limits


def _a_minute(number: int, now: float) -> TokenBucket:
    return TokenBucket(rate=number / _MINUTE, burst=number, now=now)


def _a_second(number: int, now: float) -> TokenBucket:
    return TokenBucket(rate=number, burst=number, now=now)
