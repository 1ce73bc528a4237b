"""What is known of the link to an archive before it is registered: is it loopback, where does it call from, its pin."""

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from dicomward.identity.network import parse_address

LOOPBACK_NETWORKS: Final = ("127.0.0.0/8", "::1/128")


class ArchiveLinkError(Exception):
    """The link can't be registered like this; the message says why and what to do."""


def is_loopback(host: str) -> bool:
    """Say if the host is this machine for sure. A name that resolves to loopback today may not do so tomorrow."""
    address = parse_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def networks_of(host: str, *, prefix: str = "--") -> tuple[str, ...]:
    """Return the networks that an archive at this host calls from: its addresses. Raises ArchiveLinkError.

    `prefix` goes in front of the options that messages name.
    """
    if is_loopback(host):
        return LOOPBACK_NETWORKS
    address = parse_address(host)
    if address is not None:
        return (_single(str(address)),)
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ArchiveLinkError(
            f"the name {host!r} has no address ({error}); "
            f"correct it, or say where it calls from with {prefix}network CIDR"
        ) from error
    return tuple(sorted({_single(str(entry[4][0]).partition("%")[0]) for entry in found}))


def pin_of(path: Path) -> str:
    """Return the SHA-256 fingerprint of the archive's certificate file. Raises ArchiveLinkError."""
    from cryptography.hazmat.primitives import hashes

    from dicomward.io.ca.local import LocalCaError, load_certificates

    try:
        # In a chain file the archive's own certificate comes first (RFC 8446 §4.4.2).
        return load_certificates(path)[0].fingerprint(hashes.SHA256()).hex()
    except LocalCaError as error:
        raise ArchiveLinkError(str(error)) from error


def verify_link(host: str, *, tls: bool, dedicated_link: bool, prefix: str = "--") -> None:
    """Refuse a link on which anybody could read along. Raises ArchiveLinkError."""
    if not (tls or dedicated_link or is_loopback(host)):
        raise ArchiveLinkError(
            f"{host} is not this machine, so plaintext to it could be read and changed on the way; "
            f"use TLS with the archive's pinned certificate ({prefix}tls {prefix}pin CERT), "
            "or say --dedicated-link if nobody else is on that link"
        )


def _single(address: str) -> str:
    return f"{address}/{ip_address(address).max_prefixlen}"
