"""Promise: whatever file comes, a capture is read, or refused as none; nothing else is raised, and memory is bounded.

The input is a capture file: pcap or pcapng, damaged or made up, with whatever is in its packets.
"""

import tempfile
from collections import Counter
from pathlib import Path

import harness

with harness.instrumented():
    from dicomward.identity.draft import draft_text
    from dicomward.identity.inventory import Inventory
    from dicomward.io.capture.inventory import overhear
    from dicomward.io.capture.pcap import CaptureError

_HEADER = b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00" + bytes(8) + b"\x00\x00\x04\x00\x65\x00\x00\x00"
_RQ = b"\x01\x00\x00\x00\x00\x44\x00\x01\x00\x00" + b"PACS".ljust(16) + b"CT1".ljust(16) + bytes(32)
_IP = b"\x45\x00\x00\x00\x00\x00\x00\x00\x40\x06\x00\x00\x0a\x01\x02\x03\x0a\x09\x00\x05"
_TCP = b"\x9c\x40\x00\x68\x00\x00\x00\x01\x00\x00\x00\x00\x50\x10\x20\x00\x00\x00\x00\x00"


def _record(payload: bytes) -> bytes:
    packet = _IP + _TCP + payload
    return bytes(8) + len(packet).to_bytes(4, "little") * 2 + packet


def one_input(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        file.write(data)
        file.flush()
        inventory = Inventory()
        try:
            counts: Counter[str] = overhear(Path(file.name), inventory)
        except CaptureError:
            return
        if any(count < 0 for count in counts.values()):
            raise AssertionError("a count below zero")
        draft_text(inventory.draft("fuzz"))


SEEDS = [
    _HEADER + _record(_RQ) + _record(b"\x04\x00"),
    _HEADER + _record(b"\x16\x03\x01hello"),
    b"\x0a\x0d\x0d\x0a\x1c\x00\x00\x00\x4d\x3c\x2b\x1a" + bytes(16),
]


if __name__ == "__main__":
    harness.main(one_input, SEEDS)
