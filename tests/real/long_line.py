"""A long line with real TCP on it: packets take their time, and some are lost, between two network namespaces.

The near end is this process's own namespace; the far end is another one, where whatever is started in `far_end` lives.
A TUN device in each and a process between them, which holds every packet for half the round trip, lets no more of them
out in a second than the line's rate, and drops some: what netem does where the kernel has it. Its queue holds whatever
comes, so that only chance loses a packet. Needs root in its namespace, which tools/loopback_only.py and bench/run.py
give.
"""

import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_MTU = 1500
# A line of 1 Gbit/s has 8,600 packets on its way at 100 ms.
_QUEUE = "20000"
_PACKETS_IN_A_ROW = 64
NEAR, FAR = "10.98.0.1", "10.98.0.2"
NETWORK = "10.98.0.0/24"
GIGABIT = 125_000_000


class LongLineError(Exception):
    """It can't be made here; the message says why."""


class Way:
    """One direction: when each packet that is under way comes out at its end."""

    def __init__(self, to: int, delay_seconds: float, bytes_per_second: float) -> None:
        self._to = to
        self._delay_seconds = delay_seconds
        self._bytes_per_second = bytes_per_second
        self._free_at = 0.0
        self._under_way: deque[tuple[float, bytes]] = deque()

    def take(self, packet: bytes, now: float) -> None:
        """Let a packet in."""
        self._free_at = max(self._free_at, now) + len(packet) / self._bytes_per_second
        self._under_way.append((self._free_at + self._delay_seconds, packet))

    def next_due(self) -> float | None:
        """Return when the next packet comes out; None if there is none."""
        return self._under_way[0][0] if self._under_way else None

    def deliver(self, now: float) -> None:
        """Let out what is due."""
        while self._under_way and self._under_way[0][0] <= now:
            os.write(self._to, self._under_way.popleft()[1])


def _open_tun(name: str, address: str) -> int:
    """Make a TUN device in the calling thread's namespace."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    for command in (
        ["ip", "address", "add", f"{address}/24", "dev", name],
        ["ip", "link", "set", name, "mtu", str(_MTU), "txqueuelen", _QUEUE, "up"],
        ["ip", "link", "set", "lo", "up"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return descriptor


def forward(delay_seconds: float, loss: float, bytes_per_second: float, seed: int) -> None:
    """Be the line until standard input ends; say `ready` first."""
    near = _open_tun("long0", NEAR)
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    far = _open_tun("long0", FAR)
    print("ready", flush=True)
    chance = random.Random(seed)
    ways = {near: Way(far, delay_seconds, bytes_per_second), far: Way(near, delay_seconds, bytes_per_second)}
    poll = select.poll()
    for descriptor in (near, far, sys.stdin.fileno()):
        poll.register(descriptor, select.POLLIN)
    dropped = 0
    while True:
        now = time.monotonic()
        dues = [due for way in ways.values() if (due := way.next_due()) is not None]
        pause = max(min(dues) - now, 0.0) * 1000 if dues else None
        for descriptor, _events in poll.poll(pause):
            if descriptor == sys.stdin.fileno():
                print(f"dropped {dropped}", flush=True)
                return
            now = time.monotonic()
            for _ in range(_PACKETS_IN_A_ROW):
                try:
                    packet = os.read(descriptor, _MTU)
                except BlockingIOError:
                    break
                if loss and chance.random() < loss:
                    dropped += 1
                else:
                    ways[descriptor].take(packet, now)
        now = time.monotonic()
        for way in ways.values():
            way.deliver(now)


class LongLine:
    """A line from this process's namespace to `host` in another one."""

    host = FAR

    def __init__(
        self, *, delay_seconds: float, loss: float = 0.0, bytes_per_second: float = GIGABIT, seed: int = 1
    ) -> None:
        """Make the line. Raises LongLineError."""
        if not Path("/dev/net/tun").exists():
            raise LongLineError("there is no /dev/net/tun")
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(delay_seconds), str(loss), str(bytes_per_second), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self.process.stdout is None or self.process.stdout.readline() != "ready\n":
            _out, error = self.process.communicate()
            raise LongLineError(f"the line can't be made: {error.strip()[-300:]}")

    @contextmanager
    def far_end(self) -> Iterator[None]:
        """Be at the far end: what this thread opens or starts meanwhile is there, and stays there."""
        with (
            Path("/proc/thread-self/ns/net").open("rb") as near,
            Path(f"/proc/{self.process.pid}/ns/net").open("rb") as far,
        ):
            _enter(far.fileno())
            try:
                yield
            finally:
                _enter(near.fileno())

    def close(self) -> int:
        """End it; return how many packets were lost."""
        out, _error = self.process.communicate()
        return int(out.split()[-1]) if out.split() else 0


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise LongLineError(f"setns: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    forward(float(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
