"""Reading capture files: pcap (also with nanoseconds) and pcapng, and the TCP segment in each packet.

Nothing here fails on odd packets: what can't be read is counted by its kind. docs/adr/ has why no library does this.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Final

MOST_PACKET_BYTES: Final = 16 * 1024 * 1024
"""A length above this is no packet, but a damaged file."""

_PCAP_MAGIC: Final = {
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xd4\xc3\xb2\xa1": "<",
    b"\xa1\xb2\x3c\x4d": ">",
    b"\x4d\x3c\xb2\xa1": "<",
}
_SECTION: Final = 0x0A0D0D0A
_ORDERS: Final = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
_INTERFACE, _SIMPLE, _ENHANCED, _OLD_PACKET = 1, 3, 6, 2

_ETHERNET, _LINUX_SLL, _LINUX_SLL2 = 1, 113, 276
_LOOPBACK: Final = frozenset({0, 108})
_RAW: Final = frozenset({12, 14, 101, 228, 229})
_IPV4, _IPV6 = 0x0800, 0x86DD
_VLAN: Final = frozenset({0x8100, 0x88A8, 0x9100, 0x9200})
_TCP: Final = 6
# Hop-by-hop, routing, destination options, mobility; fragments are counted instead.
_EXTENSIONS: Final = frozenset({0, 43, 60, 135})
_FRAGMENT: Final = 44


class CaptureError(Exception):
    """The file is no capture that we can read; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment: addresses as text, `sequence` of its first byte, and what it carries."""

    source: str
    source_port: int
    destination: str
    destination_port: int
    sequence: int
    is_first: bool
    is_last: bool
    payload: bytes


def read_segments(path: Path, counts: Counter[str]) -> Iterator[Segment]:
    """Yield the TCP segments of a capture file; `counts` gets what there was and what can't be read.

    Raises CaptureError for a file that is no capture, OSError.
    """
    with path.open("rb") as file:
        for link_type, packet in _packets(file, path, counts):
            counts["packets"] += 1
            found = _segment(link_type, packet)
            if isinstance(found, str):
                counts[found] += 1
            else:
                counts["TCP segments"] += 1
                yield found


# --- files -----------------------------------------------------------------------------------------------------------


def _packets(file: IO[bytes], path: Path, counts: Counter[str]) -> Iterator[tuple[int, bytes]]:
    magic = file.read(4)
    if magic in _PCAP_MAGIC:
        yield from _pcap_packets(file, _PCAP_MAGIC[magic], path, counts)
    elif magic == _SECTION.to_bytes(4, "big"):
        yield from _pcapng_packets(file, path, counts)
    else:
        kind = "it is empty" if not magic else f"it begins with {magic.hex()}"
        raise CaptureError(f"{path} is neither pcap nor pcapng ({kind}); write one with: tcpdump -w FILE tcp")


def _pcap_packets(file: IO[bytes], order: str, path: Path, counts: Counter[str]) -> Iterator[tuple[int, bytes]]:
    header = file.read(20)
    if len(header) < 20:
        raise CaptureError(f"{path} ends within its header; it holds no packet")
    # The upper bits of the link type hold the length of a frame check sequence.
    link_type = struct.unpack(order + "HHiIII", header)[5] & 0xFFFF
    while True:
        head = file.read(16)
        if len(head) < 16:
            counts["cut off at the end of the file"] += bool(head)
            return
        captured, length = struct.unpack(order + "IIII", head)[2:]
        if captured > MOST_PACKET_BYTES:
            counts["damaged rest of the file"] += 1
            return
        packet = file.read(captured)
        if len(packet) < captured:
            counts["cut off at the end of the file"] += 1
            return
        counts["packets that were captured in part"] += captured < length
        yield link_type, packet


def _pcapng_packets(file: IO[bytes], path: Path, counts: Counter[str]) -> Iterator[tuple[int, bytes]]:
    order, interfaces = _section_order(file, path), list[int]()
    # What is left of the first section header: its length is known, its options are of no use.
    while True:
        head = file.read(8)
        if len(head) < 8:
            counts["cut off at the end of the file"] += bool(head)
            return
        if head[:4] == _SECTION.to_bytes(4, "big"):
            file.seek(-4, 1)
            order, interfaces = _section_order(file, path), []
            continue
        kind, length = struct.unpack(order + "II", head)
        if length < 12 or length > MOST_PACKET_BYTES:
            counts["damaged rest of the file"] += 1
            return
        body = file.read(length - 8)
        if len(body) < length - 8:
            counts["cut off at the end of the file"] += 1
            return
        if kind == _INTERFACE and len(body) >= 2:
            interfaces.append(struct.unpack_from(order + "H", body)[0])
        found = _pcapng_packet(kind, body[:-4], order, interfaces)
        if isinstance(found, str):
            counts[found] += 1
        elif found is not None:
            counts["packets that were captured in part"] += found[2]
            yield found[0], found[1]


def _section_order(file: IO[bytes], path: Path) -> str:
    """Read a section header, from its length on, and return the byte order."""
    head = file.read(8)
    order = _ORDERS.get(head[4:])
    if order is None:
        raise CaptureError(f"{path}: a section of it has no byte order; it is damaged")
    length = int(struct.unpack(order + "I", head[:4])[0])
    if not 28 <= length <= MOST_PACKET_BYTES:
        raise CaptureError(f"{path}: a section header of {length} bytes; it is damaged")
    file.read(length - 12)
    return order


def _pcapng_packet(kind: int, body: bytes, order: str, interfaces: list[int]) -> tuple[int, bytes, bool] | str | None:
    """Return link type, packet and whether it was cut; a text for one that can't be read; None for other blocks."""
    if kind == _SIMPLE and len(body) >= 4:
        interface, start = 0, 4
        captured = length = min(struct.unpack_from(order + "I", body)[0], len(body) - 4)
    elif kind == _ENHANCED and len(body) >= 20:
        interface, _, _, captured, length = struct.unpack_from(order + "IIIII", body)
        start = 20
    elif kind == _OLD_PACKET and len(body) >= 20:
        interface, _, _, _, captured, length = struct.unpack_from(order + "HHIIII", body)
        start = 20
    elif kind in (_SIMPLE, _ENHANCED, _OLD_PACKET):
        return "packets that are damaged"
    else:
        return None
    if interface >= len(interfaces) or start + captured > len(body):
        return "packets that are damaged"
    return interfaces[interface], body[start : start + captured], captured < length


# --- packets ---------------------------------------------------------------------------------------------------------


def _segment(link_type: int, packet: bytes) -> Segment | str:
    """Return the TCP segment of a packet, or why there is none."""
    try:
        network = _network_layer(link_type, packet)
        if isinstance(network, str):
            return network
        return _ip(network)
    except (struct.error, IndexError, ValueError):
        # ValueError: an address that is cut short.
        return "packets that are damaged"


def _network_layer(link_type: int, packet: bytes) -> bytes | str:
    """Strip what is below IP."""
    if link_type in _RAW:
        return packet
    if link_type in _LOOPBACK:
        return packet[4:]
    if link_type == _ETHERNET:
        kind, start = struct.unpack_from(">H", packet, 12)[0], 14
    elif link_type == _LINUX_SLL:
        kind, start = struct.unpack_from(">H", packet, 14)[0], 16
    elif link_type == _LINUX_SLL2:
        kind, start = struct.unpack_from(">H", packet)[0], 20
    else:
        return f"packets of the unknown link type {link_type}"
    while kind in _VLAN:
        kind, start = struct.unpack_from(">H", packet, start + 2)[0], start + 4
    return packet[start:] if kind in (_IPV4, _IPV6) else "packets that aren't IP"


def _ip(packet: bytes) -> Segment | str:
    version = packet[0] >> 4
    if version == 4:
        start, total = (packet[0] & 0x0F) * 4, struct.unpack_from(">H", packet, 2)[0]
        fragment = struct.unpack_from(">H", packet, 6)[0]
        if fragment & 0x3FFF:
            return "IP fragments"
        # Segmentation offload leaves the length empty.
        end = total or len(packet)
        protocol, source, destination = packet[9], packet[12:16], packet[16:20]
    elif version == 6:
        start, end = 40, (struct.unpack_from(">H", packet, 4)[0] + 40) if packet[4:6] != b"\0\0" else len(packet)
        protocol, source, destination = packet[6], packet[8:24], packet[24:40]
        while protocol in _EXTENSIONS:
            protocol, start = packet[start], start + (packet[start + 1] + 1) * 8
        if protocol == _FRAGMENT:
            return "IP fragments"
    else:
        return "packets that aren't IP"
    if protocol != _TCP:
        return "packets that aren't TCP"
    return _tcp(packet[start:end], str(ip_address(source)), str(ip_address(destination)))


def _tcp(segment: bytes, source: str, destination: str) -> Segment:
    source_port, destination_port, sequence = struct.unpack_from(">HHI", segment)
    offset, flags = (segment[12] >> 4) * 4, segment[13]
    return Segment(
        source=source,
        source_port=source_port,
        destination=destination,
        destination_port=destination_port,
        sequence=sequence,
        is_first=bool(flags & 0x02),
        is_last=bool(flags & 0x05),
        payload=segment[offset:],
    )
