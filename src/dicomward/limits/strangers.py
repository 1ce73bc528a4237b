"""What failing costs: growing delays for the addresses of strangers, and back-off for keys that keep failing.

A delay holds only the answer to a connection that has failed, so a device behind the same NAT that proves its key waits
for nobody. In back-off a certificate keeps its clinical floor. Both tables are bounded and forget by themselves.
"""

from collections import OrderedDict
from math import exp2

from dicomward.limits.network import source_of
from dicomward.limits.settings import StrangerLimits


class _Penalties:
    """Levels in seconds that double with each failure and halve with each half-life; the oldest are forgotten."""

    __slots__ = ("_entries", "_first", "_half_life", "_most", "_size")

    def __init__(self, *, first: float, most: float, half_life: float, size: int) -> None:
        self._first = first
        self._most = max(first, most)
        self._half_life = half_life
        self._size = size
        # key -> (level at that time, that time, when the penalty of the last failure ends), by the last failure.
        self._entries: OrderedDict[str, tuple[float, float, float]] = OrderedDict()

    def change(self, *, first: float, most: float, half_life: float, size: int) -> None:
        """Go on with other numbers; penalties that run end when they were to end."""
        self._first = first
        self._most = max(first, most)
        self._half_life = half_life
        self._size = size
        while len(self._entries) > size:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)

    def fail(self, key: str, now: float) -> float:
        """Note one failure and return the new level, from `first` to `most`."""
        level = min(self._most, max(self._first, 2 * self._level(key, now)))
        self._entries[key] = (level, now, now + max(level, self.left(key, now)))
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
        return level

    def succeed(self, key: str, now: float) -> None:
        """Halve the level, but let a penalty that runs end; forget the key once it would fail like a new one."""
        entry = self._entries.get(key)
        if entry is None:
            return
        level, until = self._level(key, now) / 2, entry[2]
        if level <= self._first / 2 and until <= now:
            del self._entries[key]
        else:
            self._entries[key] = (level, now, until)

    def left(self, key: str, now: float) -> float:
        """Return the seconds until the penalty of the last failure ends, 0.0 if it has."""
        entry = self._entries.get(key)
        return max(0.0, entry[2] - now) if entry else 0.0

    def _level(self, key: str, now: float) -> float:
        level, at, _ = self._entries.get(key, (0.0, now, now))
        return level * exp2(-max(0.0, now - at) / self._half_life)


class StrangerBook:
    """Delays of addresses, back-off of certificates; `now` is monotonic seconds. Not thread-safe: io has the lock."""

    __slots__ = ("_addresses", "_certificates")

    def __init__(self, limits: StrangerLimits) -> None:
        """Start with nobody remembered."""
        self._addresses = _Penalties(
            first=limits.address_first_delay_seconds,
            most=limits.address_max_delay_seconds,
            half_life=limits.address_half_life_seconds,
            size=limits.tracked_addresses,
        )
        self._certificates = _Penalties(
            first=limits.certificate_first_seconds,
            most=limits.certificate_max_seconds,
            half_life=limits.certificate_half_life_seconds,
            size=limits.tracked_certificates,
        )

    def use_limits(self, limits: StrangerLimits) -> None:
        """Go on under other limits; who is remembered stays so."""
        self._addresses.change(
            first=limits.address_first_delay_seconds,
            most=limits.address_max_delay_seconds,
            half_life=limits.address_half_life_seconds,
            size=limits.tracked_addresses,
        )
        self._certificates.change(
            first=limits.certificate_first_seconds,
            most=limits.certificate_max_seconds,
            half_life=limits.certificate_half_life_seconds,
            size=limits.tracked_certificates,
        )

    @property
    def tracked_addresses(self) -> int:
        """Return how many addresses are remembered, for metrics."""
        return len(self._addresses)

    @property
    def tracked_certificates(self) -> int:
        """Return how many certificates are remembered, for metrics."""
        return len(self._certificates)

    def note_stranger_failure(self, address: str, now: float) -> float:
        """Note a failure before proof of a key; return the seconds to hold this failed connection before it is closed.

        Failures: no TLS, a failed handshake, no certificate, a deadline. An IPv6 host counts as its /64.
        """
        return self._addresses.fail(source_of(address), now)

    def note_success(self, address: str, now: float) -> None:
        """Note that a registered device proved its key from that address: the next failure there costs half."""
        self._addresses.succeed(source_of(address), now)

    def note_certificate_failure(self, sha256: str, now: float) -> float:
        """Note a failure after proof of a key; return what it costs: the least seconds of back-off from now."""
        return self._certificates.fail(sha256, now)

    def note_certificate_success(self, sha256: str, now: float) -> None:
        """Note an association that went well: the next failure costs half; a back-off that runs goes on."""
        self._certificates.succeed(sha256, now)

    def certificate_back_off(self, sha256: str, now: float) -> float:
        """Return the seconds of back-off that are left, 0.0 if there are none; until then only the floor is open."""
        return self._certificates.left(sha256, now)
