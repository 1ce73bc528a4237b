"""What a certificate says, and which versions a server takes."""

import asyncio
import contextlib
import socket
import ssl
import time
import warnings
from pathlib import Path

import pytest

from dicomward.io.assess.probe_dimse import close_writer
from dicomward.io.assess.probe_tls import (
    anyone,
    await_alert,
    chain_problem,
    connect_tls,
    read_certificate,
    takes_version,
)
from tests.io.strange_servers import Handler, StrangeServer, chunks
from tests.real.pki import Authority, Credentials


def sealed(credentials: Credentials, maximum: ssl.TLSVersion | None = None) -> Handler:
    def handle(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credentials.certificate, credentials.key)
        if maximum is not None:
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = maximum
                context.maximum_version = maximum
        with context.wrap_socket(connection, server_side=True) as inside:
            for _ in chunks(inside):
                pass

    return handle


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Authority("CA", tmp_path).issue("pacs")


def test_certificate_is_read(credentials: Credentials) -> None:
    seen = read_certificate(ssl.PEM_cert_to_DER_cert(credentials.certificate.read_text()))
    assert seen is not None
    assert (seen.key_type, seen.key_bits, seen.signature_hash) == ("EC", 256, "sha256")
    assert not seen.is_self_signed
    assert len(seen.sha256) == 64
    root = read_certificate(ssl.PEM_cert_to_DER_cert(credentials.authority.read_text()))
    assert root is not None
    assert root.is_self_signed
    assert root.dns_names == ()


def test_what_is_no_certificate_is_none() -> None:
    assert read_certificate(b"0\x03abc") is None


@pytest.mark.parametrize(("maximum", "takes"), [(ssl.TLSVersion.TLSv1_2, False), (None, False)])
def test_server_that_refuses_obsolete_versions(
    credentials: Credentials, maximum: ssl.TLSVersion | None, takes: bool
) -> None:
    with StrangeServer(sealed(credentials, maximum)) as server:
        assert asyncio.run(takes_version("127.0.0.1", server.port, "TLSv1.1", timeout=5)) is takes


def test_server_that_takes_an_obsolete_version(credentials: Credentials) -> None:
    with StrangeServer(sealed(credentials, ssl.TLSVersion.TLSv1_1)) as server:
        assert asyncio.run(takes_version("127.0.0.1", server.port, "TLSv1.1", timeout=5)) is True


def test_version_of_a_server_that_says_nothing_is_unknown() -> None:
    def say_nothing(connection: socket.socket) -> None:
        for _ in chunks(connection):
            pass

    with StrangeServer(say_nothing) as server:
        assert asyncio.run(takes_version("127.0.0.1", server.port, "TLSv1", timeout=0.2)) is None


def test_chain(credentials: Credentials) -> None:
    with StrangeServer(sealed(credentials)) as server:
        authority = str(credentials.authority)
        assert asyncio.run(chain_problem("127.0.0.1", server.port, authority, server_name="", timeout=5)) == ""
        problem = asyncio.run(chain_problem("127.0.0.1", server.port, "", server_name="", timeout=5))
        assert problem is not None
        assert "issuer" in problem
    assert asyncio.run(chain_problem("127.0.0.1", server.port, authority, server_name="", timeout=5)) is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_1])
def test_chain_of_an_old_device(tmp_path: Path, version: ssl.TLSVersion) -> None:
    credentials = Authority("CA", tmp_path).issue("pacs", key="rsa")

    def handle(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credentials.certificate, credentials.key)
        context.set_ciphers("AES128-SHA:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as inside:
            for _ in chunks(inside):
                pass

    with StrangeServer(handle) as server:
        authority = str(credentials.authority)
        assert asyncio.run(chain_problem("127.0.0.1", server.port, authority, server_name="", timeout=5)) == ""
        assert asyncio.run(chain_problem("127.0.0.1", server.port, "", server_name="", timeout=5))


def alert_of(credentials: Credentials, maximum: ssl.TLSVersion, *, tickets: int, asks: bool) -> tuple[str, float]:
    def handle(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credentials.certificate, credentials.key)
        context.maximum_version = maximum
        context.num_tickets = tickets
        if asks:
            context.load_verify_locations(credentials.authority)
            context.verify_mode = ssl.CERT_REQUIRED
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as inside:
            for _ in chunks(inside):
                pass

    async def work() -> tuple[str, float]:
        reader, writer = await connect_tls("127.0.0.1", server.port, anyone(), server_name="", timeout=5)
        began = time.monotonic()
        says = await await_alert(reader, writer)
        seconds = time.monotonic() - began
        await close_writer(writer)
        return says, seconds

    with StrangeServer(handle) as server:
        return asyncio.run(work())


def test_alert_of_a_server_that_wants_to_know_who_calls(credentials: Credentials) -> None:
    assert alert_of(credentials, ssl.TLSVersion.TLSv1_3, tickets=2, asks=True)[0] == "certificate"


def test_ticket_of_a_server_says_that_it_has_taken_the_handshake(credentials: Credentials) -> None:
    says, seconds = alert_of(credentials, ssl.TLSVersion.TLSv1_3, tickets=2, asks=False)
    assert says == ""
    assert seconds < 0.45


def test_server_without_tickets_is_waited_for(credentials: Credentials) -> None:
    says, seconds = alert_of(credentials, ssl.TLSVersion.TLSv1_3, tickets=0, asks=False)
    assert says == ""
    assert seconds > 0.45


def test_older_version_says_it_within_the_handshake(credentials: Credentials) -> None:
    says, seconds = alert_of(credentials, ssl.TLSVersion.TLSv1_2, tickets=0, asks=False)
    assert says == ""
    assert seconds < 0.45


def test_server_that_hangs_up_after_the_handshake(credentials: Credentials) -> None:
    def handle(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credentials.certificate, credentials.key)
        context.num_tickets = 0
        context.wrap_socket(connection, server_side=True).close()

    async def work() -> str:
        reader, writer = await connect_tls("127.0.0.1", server.port, anyone(), server_name="", timeout=5)
        says = await await_alert(reader, writer)
        await close_writer(writer)
        return says

    with StrangeServer(handle) as server:
        assert asyncio.run(work()) == "closed"
