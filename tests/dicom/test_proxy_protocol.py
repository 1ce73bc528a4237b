"""The PROXY protocol, version 2: exact, bounded, and the same however the bytes were cut."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.dicom.proxy_protocol import (
    MAX_PROXY_HEADER_BYTES,
    SIGNATURE,
    ProxyProtocolError,
    ProxyReader,
    ProxySource,
)


def header(command: int, family: int, body: bytes, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return SIGNATURE + bytes([command, family]) + size.to_bytes(2, "big") + body


def tcp4(source: str, tlvs: bytes = b"") -> bytes:
    return header(0x21, 0x11, IPv4Address(source).packed + bytes([10, 0, 0, 1, 0x1F, 0x90, 0x2B, 0x68]) + tlvs)


def tcp6(source: str, tlvs: bytes = b"") -> bytes:
    return header(0x21, 0x21, IPv6Address(source).packed + bytes(16) + b"\x1f\x90\x2b\x68" + tlvs)


def read(data: bytes, *cuts: int) -> tuple[ProxySource | None, int]:
    """Feed it as a socket would that has so many bytes each time; return the source and how much was taken."""
    reader, at = ProxyReader(), 0
    steps = iter(cuts)
    while at < len(data):
        taken = data[at : at + min(reader.wanted, max(1, next(steps, len(data))))]
        at += len(taken)
        if (source := reader.feed(taken)) is not None:
            return source, at
    return None, at


def test_source_over_ipv4() -> None:
    whole = tcp4("192.0.2.7")
    assert read(whole + b"\x16\x03") == (ProxySource("192.0.2.7"), len(whole))


def test_source_over_ipv6() -> None:
    assert read(tcp6("2001:db8::7"))[0] == ProxySource("2001:db8::7")


def test_ipv4_that_is_written_as_ipv6_is_ipv4() -> None:
    assert read(tcp6("::ffff:192.0.2.7"))[0] == ProxySource("192.0.2.7")


def test_tlvs_are_skipped() -> None:
    whole = tcp4("192.0.2.7", tlvs=b"\x04\x00\x04abcd\x05\x00\x10" + bytes(16))
    assert read(whole + b"next") == (ProxySource("192.0.2.7"), len(whole))


@pytest.mark.parametrize("family", [0x00, 0x11, 0x21, 0x31, 0xFF])
def test_local_is_the_balancer_itself_whatever_follows(family: int) -> None:
    assert read(header(0x20, family, b"anything")) == (ProxySource(None), 24)
    assert read(header(0x20, family, b"")) == (ProxySource(None), 16)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 11112\r\n", "version 1; let the balancer send version 2"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", "begins with 16 03 01 02"),
        (b"\x01\x00\x00\x00\x00\xce", "no PROXY protocol header"),
        (header(0x11, 0x11, bytes(12)), "version and command 11H"),
        (header(0x22, 0x11, bytes(12)), "version and command 22H"),
        (header(0x21, 0x00, b""), r"family 00H \(no address\)"),
        (header(0x21, 0x12, bytes(12)), r"family 12H \(UDP over IPv4\)"),
        (header(0x21, 0x31, bytes(216)), r"family 31H \(a Unix socket\)"),
        (header(0x21, 0x77, bytes(216)), r"family 77H \(unknown\)"),
        (header(0x21, 0x11, bytes(11)), "11 bytes are too few"),
        (header(0x21, 0x21, bytes(35)), "35 bytes are too few"),
        (header(0x21, 0x11, b"", length=MAX_PROXY_HEADER_BYTES - 15), "4097 bytes, more than 4096"),
    ],
)
def test_what_is_no_header_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ProxyProtocolError, match=problem):
        read(data)


def test_largest_header_is_read() -> None:
    assert read(tcp4("192.0.2.7", tlvs=bytes(MAX_PROXY_HEADER_BYTES - 28))) == (
        ProxySource("192.0.2.7"),
        MAX_PROXY_HEADER_BYTES,
    )


def test_wrong_first_byte_is_refused_at_once() -> None:
    """Nobody waits for sixteen bytes of something else."""
    with pytest.raises(ProxyProtocolError):
        ProxyReader().feed(b"\x16")


def test_reader_knows_if_something_has_come() -> None:
    reader = ProxyReader()
    assert reader.is_empty
    reader.feed(b"\r")
    assert not reader.is_empty


_HEADERS = st.one_of(
    st.ip_addresses(v=4).map(lambda address: tcp4(str(address))),
    st.ip_addresses(v=6).map(lambda address: tcp6(str(address), b"\x04\x00\x01x")),
    st.binary(max_size=40).map(lambda body: header(0x20, 0, body)),
    st.builds(header, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=60)),
    st.binary(max_size=80),
)


@given(_HEADERS, st.lists(st.integers(1, 20), max_size=60))
def test_cuts_change_nothing(data: bytes, cuts: list[int]) -> None:
    def outcome(*how: int) -> object:
        try:
            return read(data, *how)[0]
        except ProxyProtocolError:
            return ProxyProtocolError

    assert outcome() == outcome(*cuts)
