"""The link to an archive: what counts as this machine, where it calls from, what is pinned, what is refused."""

import hashlib
import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from dicomward.io.ca.local import LocalCa
from dicomward.io.gateway.archive_link import (
    LOOPBACK_NETWORKS,
    ArchiveLinkError,
    is_loopback,
    networks_of,
    pin_of,
    verify_link,
)
from tests.directory_helpers import now


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "::ffff:127.0.0.1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)
    assert networks_of(host) == LOOPBACK_NETWORKS
    verify_link(host, tls=False, dedicated_link=False)


@pytest.mark.parametrize(
    "host", ["10.0.0.5", "2001:db8::1", "pacs.example", "localhost.example", "0.0.0.0", "LOCALHOST."]
)
def test_another_machine_needs_tls_or_a_dedicated_link(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(
        ArchiveLinkError, match=r"could be read and changed .* \(--tls --pin CERT\), or say --dedicated"
    ):
        verify_link(host, tls=False, dedicated_link=False)
    with pytest.raises(ArchiveLinkError, match=r"\(--pacs-tls --pacs-pin CERT\)"):
        verify_link(host, tls=False, dedicated_link=False, prefix="--pacs-")
    verify_link(host, tls=True, dedicated_link=False)
    verify_link(host, tls=False, dedicated_link=True)


@pytest.mark.parametrize(
    ("host", "networks"),
    [("10.0.0.5", ("10.0.0.5/32",)), ("fe80::5%eth0", ("fe80::5/128",)), ("2001:db8::1", ("2001:db8::1/128",))],
)
def test_address_is_where_it_calls_from(host: str, networks: tuple[str, ...]) -> None:
    assert networks_of(host) == networks


def test_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: None, **_options: object) -> list[tuple[object, ...]]:
        assert (host, port) == ("pacs.example", None)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::9%eth0", 0, 0, 2)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert networks_of("pacs.example") == ("192.0.2.7/32", "fe80::9/128")


def test_name_without_an_address_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(
        ArchiveLinkError, match=r"'pacs.example' has no address .* say where it calls from with --network"
    ):
        networks_of("pacs.example")


def test_pin_is_the_fingerprint_of_the_first_certificate(tmp_path: Path) -> None:
    own, issuer = LocalCa.make("own", now()), LocalCa.make("issuer", now())
    (tmp_path / "chain.pem").write_bytes(own.certificate_pem + issuer.certificate_pem)
    der = own.certificate.public_bytes(serialization.Encoding.DER)
    assert pin_of(tmp_path / "chain.pem") == hashlib.sha256(der).hexdigest()


def test_pin_of_no_certificate_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ArchiveLinkError, match=r"none.pem can't be read"):
        pin_of(tmp_path / "none.pem")
