"""Capture files: every kind of file and link, and that nothing odd in them fails."""

import random
import struct
from collections import Counter
from pathlib import Path

import pytest

from dicomward.io.capture.pcap import CaptureError, Segment, read_segments
from tests.io.capture_files import (
    ACK,
    ETHERNET,
    FIN,
    NULL,
    RAW,
    SLL,
    SLL2,
    SYN,
    block,
    frame,
    pcap,
    pcapng,
    section,
    tcp,
)

CLIENT, SERVER = ("10.1.2.3", 40000), ("10.9.0.5", 104)
CLIENT6, SERVER6 = ("2001:db8::3", 40000), ("2001:db8::5", 104)
HELLO = tcp(CLIENT, SERVER, 7, b"hello", ACK)


def read(tmp_path: Path, data: bytes) -> tuple[list[Segment], Counter[str]]:
    path = tmp_path / "a.pcap"
    path.write_bytes(data)
    counts: Counter[str] = Counter()
    return list(read_segments(path, counts)), +counts


@pytest.mark.parametrize("link_type", [ETHERNET, RAW, NULL, 108, SLL, SLL2, 12, 228])
@pytest.mark.parametrize("packet", [HELLO, tcp(CLIENT6, SERVER6, 7, b"hello")], ids=["v4", "v6"])
def test_segment_is_found_on_every_link(tmp_path: Path, link_type: int, packet: bytes) -> None:
    for data in (pcap([frame(packet, link_type)], link_type), pcapng([frame(packet, link_type)], link_type)):
        (segment,), counts = read(tmp_path, data)
        assert (segment.source_port, segment.destination_port, segment.sequence) == (40000, 104, 7)
        assert segment.source in ("10.1.2.3", "2001:db8::3")
        assert segment.payload == b"hello"
        assert counts == {"packets": 1, "TCP segments": 1}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_byte_orders_and_nanoseconds(tmp_path: Path, order: str, magic: int) -> None:
    assert len(read(tmp_path, pcap([frame(HELLO)], order=order, magic=magic))[0]) == 1
    assert len(read(tmp_path, pcapng([frame(HELLO)], order=order))[0]) == 1


@pytest.mark.parametrize("vlans", [1, 2])
def test_vlan_tags_are_skipped(tmp_path: Path, vlans: int) -> None:
    assert read(tmp_path, pcap([frame(HELLO, vlans=vlans)]))[0][0].payload == b"hello"


def test_ethernet_padding_is_no_payload(tmp_path: Path) -> None:
    assert read(tmp_path, pcap([frame(HELLO) + bytes(9)]))[0][0].payload == b"hello"


def test_offloaded_packet_without_length_is_whole(tmp_path: Path) -> None:
    packet = HELLO[:2] + b"\0\0" + HELLO[4:]
    assert read(tmp_path, pcap([frame(packet)]))[0][0].payload == b"hello"


def test_ipv6_extension_headers_are_skipped(tmp_path: Path) -> None:
    plain = tcp(CLIENT6, SERVER6, 7, b"hello")
    extension = bytes([6, 0]) + bytes(6)
    packet = plain[:4] + struct.pack(">H", len(plain) - 40 + 8) + b"\0" + plain[7:40] + extension + plain[40:]
    assert read(tmp_path, pcap([frame(packet)]))[0][0].payload == b"hello"


def test_flags_are_read(tmp_path: Path) -> None:
    segments, _ = read(tmp_path, pcap([frame(tcp(CLIENT, SERVER, 7, flags=flags)) for flags in (SYN, FIN | ACK, ACK)]))
    assert [(each.is_first, each.is_last) for each in segments] == [(True, False), (False, True), (False, False)]


@pytest.mark.parametrize(
    ("packet", "what"),
    [
        (bytes(12) + b"\x08\x06" + bytes(28), "packets that aren't IP"),
        (frame(HELLO[:9] + b"\x11" + HELLO[10:]), "packets that aren't TCP"),
        (frame(HELLO[:6] + b"\x20\x00" + HELLO[8:]), "IP fragments"),
        (frame(b"\x60" + bytes(3) + b"\0\x08\x2c\x40" + bytes(40)), "IP fragments"),
        (frame(HELLO)[:20], "packets that are damaged"),
        (frame(HELLO)[:36], "packets that are damaged"),
        (frame(HELLO)[:28], "packets that are damaged"),
        (bytes(5), "packets that are damaged"),
    ],
)
def test_what_is_no_segment_is_counted(tmp_path: Path, packet: bytes, what: str) -> None:
    assert read(tmp_path, pcap([packet]))[1] == {"packets": 1, what: 1}


def test_ip_of_no_version_is_counted(tmp_path: Path) -> None:
    assert read(tmp_path, pcap([b"\x50" + bytes(40)], RAW))[1]["packets that aren't IP"] == 1


def test_unknown_link_type_is_counted(tmp_path: Path) -> None:
    assert read(tmp_path, pcap([HELLO], 147))[1]["packets of the unknown link type 147"] == 1


def test_end_of_file_in_the_middle_is_counted(tmp_path: Path) -> None:
    for whole in (pcap([frame(HELLO)]), pcapng([frame(HELLO)])):
        segments, counts = read(tmp_path, whole + whole[-20:-10])
        assert len(segments) == 1
        assert sum(counts[what] for what in counts if "end of the file" in what or "damaged" in what) == 1
        assert read(tmp_path, whole[:-6])[0] == []
    assert read(tmp_path, pcap([]) + bytes(9))[1] == {"cut off at the end of the file": 1}
    assert read(tmp_path, pcapng([]) + bytes(5))[1] == {"cut off at the end of the file": 1}


def test_damaged_lengths_end_the_reading(tmp_path: Path) -> None:
    assert read(tmp_path, pcap([]) + struct.pack("<IIII", 1, 0, 1 << 30, 1 << 30))[1] == {"damaged rest of the file": 1}
    assert read(tmp_path, pcapng([]) + struct.pack("<II", 6, 1 << 30))[1] == {"damaged rest of the file": 1}


def test_odd_blocks_are_counted_or_skipped(tmp_path: Path) -> None:
    interface = block(1, struct.pack("<HHI", ETHERNET, 0, 0))
    packet = frame(HELLO)
    old = block(2, struct.pack("<HHIIII", 0, 0, 0, 0, len(packet), len(packet)) + packet)
    simple = block(3, struct.pack("<I", len(packet)) + packet)
    lost = block(6, struct.pack("<IIIII", 9, 0, 0, len(packet), len(packet)) + packet)
    long = block(6, struct.pack("<IIIII", 0, 0, 0, 900, 900) + packet)
    data = section() + interface + old + simple + lost + long + block(6, bytes(4)) + section(">")
    segments, counts = read(tmp_path, data)
    assert len(segments) == 2
    assert counts["packets that are damaged"] == 3


def test_cut_packets_are_counted(tmp_path: Path) -> None:
    packet = frame(HELLO)
    data = pcap([]) + struct.pack("<IIII", 1, 0, len(packet), len(packet) + 50) + packet
    assert read(tmp_path, data)[1]["packets that were captured in part"] == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04 a zip", "it begins with 504b0304"),
        (pcap([])[:10], "ends within its header"),
        (section()[:8] + b"nope" + bytes(16), "no byte order"),
        (struct.pack("<III", 0x0A0D0D0A, 12, 0x1A2B3C4D), "a section header of 12 bytes"),
    ],
)
def test_file_that_is_no_capture_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        read(tmp_path, data)


def test_noise_never_fails(tmp_path: Path) -> None:
    noise = random.Random(20261125)
    good = pcapng([frame(HELLO)] * 5), pcap([frame(HELLO)] * 5)
    for number in range(400):
        data = bytearray(good[number % 2])
        for _ in range(noise.randrange(1, 6)):
            data[noise.randrange(28, len(data))] = noise.randrange(256)
        try:
            read(tmp_path, bytes(data))
        except CaptureError:
            pass
