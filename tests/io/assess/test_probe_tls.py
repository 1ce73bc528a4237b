"""What a certificate says, and which versions a server takes."""

import asyncio
import socket
import ssl
import warnings
from pathlib import Path

import pytest

from dicomward.io.assess.probe_tls import await_alert, chain_problem, read_certificate, takes_version
from tests.io.strange_servers import Handler, StrangeServer, answering, chunks
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


def test_alert_of_a_server_that_hangs_up() -> None:
    async def work(port: int) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        says = await await_alert(reader)
        writer.close()
        await writer.wait_closed()
        return says

    with StrangeServer(lambda connection: None) as server:
        assert asyncio.run(work(server.port)) == "closed"
    with StrangeServer(answering()) as server:
        assert asyncio.run(work(server.port)) in ("", "closed")
