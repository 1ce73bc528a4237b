"""A long line with real TCP on it: packets are delayed, and lost at random, between two network namespaces.

The near end is this process's own namespace; the far end is another one. A TUN device in each and a process between
them, which holds every packet for half the round trip and drops some: what netem does where the kernel has it. Behind
the far end everything goes on over loopback to the targets. Needs root in its namespace, which tools/loopback_only.py
and bench/run.py give.
"""

import ctypes
import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_MTU = 1500
# A line of 1 Gbit/s has 8,600 packets on its way at 100 ms.
_QUEUE = "20000"
_READ_BYTES = 256 * 1024
_PACKETS_IN_A_ROW = 64
NEAR, FAR = "10.98.0.1", "10.98.0.2"
BACKLOG = 128


class LongLineError(Exception):
    """It can't be made here; the message says why."""


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


def forward(delay_seconds: float, loss: float, seed: int) -> None:
    """Be the line until standard input ends; say `ready` with the process's ID first."""
    near = _open_tun("long0", NEAR)
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    far = _open_tun("long0", FAR)
    print("ready", flush=True)
    chance = random.Random(seed)
    ways = {near: (far, deque[tuple[float, bytes]]()), far: (near, deque[tuple[float, bytes]]())}
    poll = select.poll()
    for descriptor in (near, far, sys.stdin.fileno()):
        poll.register(descriptor, select.POLLIN)
    dropped = 0
    while True:
        now = time.monotonic()
        dues = [waiting[0][0] for _to, waiting in ways.values() if waiting]
        pause = max(min(dues) - now, 0.0) * 1000 if dues else None
        for descriptor, _events in poll.poll(pause):
            if descriptor == sys.stdin.fileno():
                print(f"dropped {dropped}", flush=True)
                return
            waiting = ways[descriptor][1]
            due = time.monotonic() + delay_seconds
            for _ in range(_PACKETS_IN_A_ROW):
                try:
                    packet = os.read(descriptor, _MTU)
                except BlockingIOError:
                    break
                if loss and chance.random() < loss:
                    dropped += 1
                else:
                    waiting.append((due, packet))
        now = time.monotonic()
        for to, waiting in ways.values():
            while waiting and waiting[0][0] <= now:
                os.write(to, waiting.popleft()[1])


class LongLine:
    """Connections to `host`:`port` go over the line and end at `target` on this machine."""

    def __init__(self, *targets: int, delay_seconds: float, loss: float = 0.0, seed: int = 1) -> None:
        """Make the line; `ports` has one for each target. Raises LongLineError."""
        self.host = FAR
        if not Path("/dev/net/tun").exists():
            raise LongLineError("there is no /dev/net/tun")
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(delay_seconds), str(loss), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self._process.stdout is None or self._process.stdout.readline() != "ready\n":
            _out, error = self._process.communicate()
            raise LongLineError(f"the line can't be made: {error.strip()[-300:]}")
        self._listeners: list[socket.socket] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        maker = threading.Thread(target=self._listen, args=(len(targets),))
        maker.start()
        maker.join()
        if len(self._listeners) != len(targets):
            self.close()
            raise LongLineError("nobody can listen at its far end")
        self.ports = [each.getsockname()[1] for each in self._listeners]
        for listener, target in zip(self._listeners, targets, strict=True):
            threading.Thread(target=self._accept, args=(listener, target), daemon=True).start()

    def _listen(self, count: int) -> None:
        """Listen at the far end: a socket belongs to the namespace in which its thread was when it was made."""
        try:
            with Path(f"/proc/{self._process.pid}/ns/net").open("rb") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            for _ in range(count):
                self._listeners.append(socket.create_server((FAR, 0), backlog=BACKLOG))
        except OSError as error:
            print(error, file=sys.stderr)

    def _accept(self, listener: socket.socket, target: int) -> None:
        while True:
            try:
                far, _peer = listener.accept()
                near = socket.create_connection(("127.0.0.1", target))
            except OSError:
                return
            with self._lock:
                self._open |= {far, near}
            for source, sink in ((far, near), (near, far)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        buffer = memoryview(bytearray(_READ_BYTES))
        try:
            while count := source.recv_into(buffer):
                sink.sendall(buffer[:count])
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for each in (source, sink):
                _end(each)

    def close(self) -> int:
        """End it; return how many packets were lost."""
        for each in (*self._listeners, *self._open):
            _end(each)
            each.close()
        out, _error = self._process.communicate()
        return int(out.split()[-1]) if out.split() else 0


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It has ended.
        pass


if __name__ == "__main__":
    forward(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
