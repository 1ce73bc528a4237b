"""Capture files made by the tests: TCP segments of real PDUs in every kind of wrapping."""

import struct
from collections.abc import Iterable
from ipaddress import ip_address

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.framing import encode_p_data
from dicomward.dicom.pdu import AAssociateRq
from tests.relay.wire import BOTH, Contexts, a_associate_ac, a_associate_rq

ETHERNET, RAW, NULL, SLL, SLL2 = 1, 101, 0, 113, 276
SYN, ACK, FIN, RST = 0x02, 0x10, 0x01, 0x04
End = tuple[str, int]


def tcp(source: End, destination: End, sequence: int, payload: bytes = b"", flags: int = ACK) -> bytes:
    """Return an IP packet with one segment."""
    segment = struct.pack(">HHIIBBHHH", source[1], destination[1], sequence % 2**32, 0, 5 << 4, flags, 8192, 0, 0)
    segment += payload
    from_, to = ip_address(source[0]), ip_address(destination[0])
    if from_.version == 4:
        return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0) + from_.packed + to.packed + segment
    return struct.pack(">IHBB", 6 << 28, len(segment), 6, 64) + from_.packed + to.packed + segment


def frame(packet: bytes, link_type: int = ETHERNET, vlans: int = 0) -> bytes:
    """Wrap an IP packet for a kind of link."""
    kind = struct.pack(">H", 0x0800 if packet[0] >> 4 == 4 else 0x86DD)
    match link_type:
        case 1:
            return bytes(12) + b"\x81\x00\x00\x07" * vlans + kind + packet
        case 113:
            return bytes(14) + kind + packet
        case 276:
            return kind + bytes(18) + packet
        case 0 | 108:
            return bytes(4) + packet
        case _:
            return packet


def pcap(frames: Iterable[bytes], link_type: int = ETHERNET, order: str = "<", magic: int = 0xA1B2C3D4) -> bytes:
    """Return a pcap file."""
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)
    for each in frames:
        out += struct.pack(order + "IIII", 1, 0, len(each), len(each)) + each
    return out


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def pcapng(frames: Iterable[bytes], link_type: int = ETHERNET, order: str = "<") -> bytes:
    """Return a pcapng file with enhanced packet blocks, and blocks that are of no interest."""
    out = section(order) + block(1, struct.pack(order + "HHI", link_type, 0, 0), order) + block(5, bytes(12), order)
    for each in frames:
        out += block(6, struct.pack(order + "IIIII", 0, 0, 0, len(each), len(each)) + each, order)
    return out


class Talk:
    """One TCP connection that is written down packet by packet."""

    def __init__(self, client: End, server: End, *, start: int = 1000) -> None:
        self.ends = {True: client, False: server}
        self.next = {True: start, False: start + 5000}
        self.packets: list[bytes] = []
        self._packet(True, b"", SYN)
        self._packet(False, b"", SYN | ACK)
        self.next = {side: number + 1 for side, number in self.next.items()}

    def _packet(self, from_client: bool, payload: bytes, flags: int = ACK) -> None:
        source, destination = self.ends[from_client], self.ends[not from_client]
        self.packets.append(tcp(source, destination, self.next[from_client], payload, flags))

    def say(self, from_client: bool, data: bytes, size: int = 1400) -> None:
        for at in range(0, len(data), size):
            part = data[at : at + size]
            self._packet(from_client, part)
            self.next[from_client] += len(part)

    def close(self) -> list[bytes]:
        for side in (True, False):
            self._packet(side, b"", FIN | ACK)
        return self.packets

    def associate(self, calling: str, called: str, contexts: Contexts) -> AAssociateRq:
        request = a_associate_rq(contexts, calling=calling, called=called, transfer_syntaxes=BOTH[1:])
        self.say(True, encode_pdu(request))
        self.say(False, encode_pdu(a_associate_ac(request)))
        return request

    def request(self, context_id: int, command: CommandSet, data: bytes = b"", *, from_client: bool = True) -> None:
        self.say(from_client, encode_p_data(context_id, encode_command_set(command), 16384, command=True))
        if data:
            self.say(from_client, encode_p_data(context_id, data, 16384, command=False))
