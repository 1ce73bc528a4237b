"""The PROXY protocol, version 2: what a load balancer says about a connection before its first byte (sans I/O).

A header is 16 bytes (signature, version and command, family, length) and then `length` bytes: the addresses, and TLVs,
which are skipped. It is read exactly, never a byte further, so that what follows belongs to TLS or DICOM. Version 1, a
line of text, is refused.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
MAX_PROXY_HEADER_BYTES: Final = 4096
"""Addresses take 36 bytes; the TLVs that balancers send (unique ID, names of TLS) some hundred."""

_FIXED: Final = 16
_VERSION: Final = 2
_LOCAL, _PROXY = 0, 1
_ADDRESS_BYTES: Final = {0x11: 4, 0x21: 16}
_FAMILIES: Final = {
    0x00: "no address",
    0x12: "UDP over IPv4",
    0x22: "UDP over IPv6",
    0x31: "a Unix socket",
    0x32: "a Unix datagram socket",
}


class ProxyProtocolError(ValueError):
    """The bytes are no header of version 2 for a TCP connection; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class ProxySource:
    """Who has connected to the balancer: an IP address as text; None for the balancer itself (a health check)."""

    address: str | None


class ProxyReader:
    """Collects one header. The result doesn't depend on how the bytes were cut."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def wanted(self) -> int:
        """How many bytes may be read next, so that none is read that comes after the header."""
        total = _FIXED if len(self._data) < _FIXED else _FIXED + _length_of(self._data)
        return total - len(self._data)

    @property
    def is_empty(self) -> bool:
        """Say if nothing has come yet."""
        return not self._data

    def feed(self, data: bytes) -> ProxySource | None:
        """Take up to `wanted` bytes; return the source when the header is whole. Raises ProxyProtocolError."""
        self._data += data
        _verify_start(self._data)
        return None if self.wanted else _source_of(self._data)


def _length_of(data: bytearray) -> int:
    return int.from_bytes(data[14:16], "big")


def _verify_start(data: bytearray) -> None:
    """Raise for what can't become a header, as soon as that can be known."""
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        if data[:5] == b"PROXY":
            raise ProxyProtocolError("a header of version 1; let the balancer send version 2 (send-proxy-v2)")
        raise ProxyProtocolError(f"no PROXY protocol header: it begins with {bytes(data[:4]).hex(' ')}")
    if len(data) > 12 and (data[12] >> 4 != _VERSION or data[12] & 0x0F not in (_LOCAL, _PROXY)):
        raise ProxyProtocolError(f"version and command {data[12]:02X}H")
    if len(data) >= _FIXED and _FIXED + _length_of(data) > MAX_PROXY_HEADER_BYTES:
        raise ProxyProtocolError(f"a header of {_FIXED + _length_of(data)} bytes, more than {MAX_PROXY_HEADER_BYTES}")


def _source_of(data: bytearray) -> ProxySource:
    if data[12] & 0x0F == _LOCAL:
        # Whatever it says about addresses is to be ignored.
        return ProxySource(None)
    size = _ADDRESS_BYTES.get(data[13])
    if size is None:
        raise ProxyProtocolError(
            f"family {data[13]:02X}H ({_FAMILIES.get(data[13], 'unknown')}): only TCP has a device"
        )
    # Source and destination address, then both ports.
    if _length_of(data) < 2 * size + 4:
        raise ProxyProtocolError(f"{_length_of(data)} bytes are too few for the addresses of family {data[13]:02X}H")
    raw = bytes(data[_FIXED : _FIXED + size])
    if size == 4:
        return ProxySource(str(IPv4Address(raw)))
    address = IPv6Address(raw)
    return ProxySource(str(address.ipv4_mapped or address))
