"""A network of one machine whose packets arrive late, twice, in another order, or not at all.

A TUN device leads to OTHER_SIDE. What is sent there comes back with source and destination exchanged, so a connection
to OTHER_SIDE reaches a listener on OUR_SIDE, and every packet between the two passes here, in user space. (The kernel's
own netem would do; many kernels come without it.)
"""

import contextlib
import fcntl
import os
import random
import socket
import struct
import threading
from typing import Final

OUR_SIDE: Final = "10.99.0.1"
OTHER_SIDE: Final = "10.99.0.2"
_TUNSETIFF, _IFF_TUN_WITHOUT_HEADER = 0x400454CA, 0x1001
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFFLAGS, _IFF_UP_RUNNING = 0x8916, 0x891C, 0x8914, 0x41
_NAME = b"dwdisorder0"


def is_possible() -> bool:
    """Say if this process may have a network of its own: in a namespace of its own only."""
    return os.environ.get("DICOMWARD_LOOPBACK_ONLY") == "yes" and os.access("/dev/net/tun", os.R_OK | os.W_OK)


class Disorder:
    """The network; context manager. `share` of the packets are disturbed, 0 at the start."""

    def __init__(self, seed: int = 1) -> None:
        self.share = 0.0
        # How many packets came late, came twice, and were lost.
        self.late = self.twice = self.lost = 0
        self._random = random.Random(seed)
        self._tun = os.open("/dev/net/tun", os.O_RDWR)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Disorder":
        fcntl.ioctl(self._tun, _TUNSETIFF, struct.pack("16sH22x", _NAME, _IFF_TUN_WITHOUT_HEADER))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            for request, address in ((_SIOCSIFADDR, OUR_SIDE), (_SIOCSIFNETMASK, "255.255.255.0")):
                value = struct.pack("16sHH4s8x", _NAME, socket.AF_INET, 0, socket.inet_aton(address))
                fcntl.ioctl(handle, request, value)
            fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sH22x", _NAME, _IFF_UP_RUNNING))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.close(self._tun)

    def _run(self) -> None:
        held: list[bytes] = []
        with contextlib.suppress(OSError):
            while True:
                packet = os.read(self._tun, 65536)
                if packet[0] >> 4 != 4:
                    continue
                turned = packet[:12] + packet[16:20] + packet[12:16] + packet[20:]
                if self._random.random() < self.share:
                    match self._random.randrange(8):
                        case 0:
                            self.lost += 1
                            continue
                        case 1:
                            self.twice += 1
                            os.write(self._tun, turned)
                        case _ if len(held) < 3:
                            self.late += 1
                            held.append(turned)
                            continue
                os.write(self._tun, turned)
                while held:
                    os.write(self._tun, held.pop())
