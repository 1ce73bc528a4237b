"""One host: whatever it sends, it costs a bounded time, and the verdicts say what was seen."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import Control, Protocol, Reach, ServerObservation
from dicomward.assess.plan import STORAGE, VERIFICATION
from dicomward.assess.scope import Scope, parse_scope
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import (
    AAssociateAc,
    AAssociateRj,
    AReleaseRp,
    PresentationContextAc,
    UserInformation,
)
from dicomward.io.assess.probe_guard import STOP_FILE, Guard, Pacer, ProbingStopped
from dicomward.io.assess.probe_host import HostProbe
from dicomward.io.assess.probe_result import HostTask
from dicomward.io.assess.run import load_known
from dicomward.io.audit.log import AuditLog
from tests.io.strange_servers import StrangeServer, answering, chunks
from tests.real.pki import Authority

NOW = datetime(2026, 11, 25, tzinfo=UTC)
ACCEPTANCE = encode_pdu(
    AAssociateAc(
        called_ae_title="X",
        calling_ae_title="Y",
        presentation_contexts=(
            PresentationContextAc(context_id=1, result=0, transfer_syntax="1.2.840.10008.1.2"),
            PresentationContextAc(context_id=3, result=0, transfer_syntax="1.2.840.10008.1.2"),
        ),
        user_information=UserInformation(maximum_length=16384, implementation_class_uid="1.2.3"),
    )
)


def scope_of(address: str = "127.0.0.1", **values: object) -> Scope:
    text = f"""
owner = "C"
authorisation = "A"
contact = "c@example"
valid_from = 2026-11-01
valid_until = 2026-12-31
web_ports = []
dicomweb_roots = ["/dicom-web"]
[[network]]
address = "{address}"
[pace]
answer_timeout = 0.5
connect_timeout = 0.5
connections_per_second = 10000
rate_probe = 2
"""
    return replace(parse_scope(text.encode()), **values)  # type: ignore[arg-type]


@contextmanager
def guard_of(directory: Path, scope: Scope) -> Iterator[Guard]:
    audit = AuditLog(directory / "audit")
    audit.start()
    try:
        yield Guard(scope, audit, directory, now=lambda: NOW, pacer=Pacer(10_000))
    finally:
        audit.close()


def probe(
    directory: Path, port: int, scope: Scope | None = None, *, address: str = "127.0.0.1", titles: tuple[str, ...] = ()
) -> ServerObservation:
    scope = scope or scope_of(address)
    with guard_of(directory, scope) as guard:
        task = HostTask(
            address=address, network=scope.networks[0], ports=(port,), called_ae_titles=titles, is_named=True
        )
        observations, _ = asyncio.run(HostProbe(task, guard, load_known(), lambda: NOW).run())
    assert len(observations) == 1
    return observations[0]


def flood(connection: socket.socket) -> None:
    for _ in chunks(connection):
        while True:
            connection.sendall(b"\x04\x00\x00\x00\x10\x00" + bytes(4096))


def drip(connection: socket.socket) -> None:
    for _ in chunks(connection):
        for byte in ACCEPTANCE * 100:
            connection.sendall(bytes((byte,)))
            if threading.Event().wait(0.05):
                return


def endless_text(connection: socket.socket) -> None:
    for _ in chunks(connection):
        while True:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 65536)


def say_nothing(connection: socket.socket) -> None:
    for _ in chunks(connection):
        pass


def endless_matches(connection: socket.socket) -> None:
    """Accept, answer the C-ECHO with what is no answer, and never stop."""
    heard = chunks(connection)
    if not next(heard, b""):
        return
    connection.sendall(ACCEPTANCE)
    while next(heard, b""):
        connection.sendall(b"\x04\x00\x00\x00\x00\x0c\x00\x00\x00\x08\x03\x00abcdef" * 1000)


@pytest.mark.parametrize(
    ("handler", "reach"),
    [
        (flood, Reach.HOSTILE),
        (drip, Reach.HOSTILE),
        (answering(b"\x02\x00\xff\xff\xff\xff"), Reach.HOSTILE),
        (answering(b"SSH-2.0-OpenSSH_9.2\r\n"), Reach.OTHER),
        (answering(bytes(range(256)) * 400), Reach.OTHER),
        (answering(b"\x02\x00\x00\x00\x00\x04abcd"), Reach.HOSTILE),
        (say_nothing, Reach.OTHER),
        (endless_text, Reach.OTHER),
        (endless_matches, Reach.HOSTILE),
    ],
    ids=[
        "flood",
        "drip",
        "giant length",
        "banner",
        "garbage",
        "broken acceptance",
        "tarpit",
        "endless text",
        "matches",
    ],
)
def test_hostile_server_costs_a_bounded_time(
    tmp_path: Path, handler: Callable[[socket.socket], None], reach: Reach
) -> None:
    began = time.monotonic()
    with StrangeServer(handler) as server:
        seen = probe(tmp_path, server.port)
    assert time.monotonic() - began < 20
    assert seen.reach is reach
    assert seen.problem
    assert seen.verdict_of(Control.FIND) is not Verdict.PASS


def test_host_that_takes_too_long_is_left(tmp_path: Path) -> None:
    scope = scope_of()
    scope = replace(scope, pace=replace(scope.pace, answer_timeout=30, host_seconds=0.3))
    with StrangeServer(say_nothing) as server:
        seen = probe(tmp_path, server.port, scope)
    assert "longer than 0.3 s" in seen.problem


def test_closed_port_of_a_named_host_is_kept(tmp_path: Path) -> None:
    with StrangeServer(say_nothing) as server:
        port = server.port
    assert probe(tmp_path, port).reach is Reach.REFUSED


def test_rejections_are_followed_by_titles_that_are_known(tmp_path: Path) -> None:
    heard: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        for data in chunks(connection):
            heard.append(data[10:26].strip())
            reason = 3 if heard[-1] == b"PACS" else 7
            connection.sendall(encode_pdu(AAssociateRj(result=1, source=1, reason=reason)))

    with StrangeServer(handle) as server:
        seen = probe(tmp_path, server.port, titles=("OTHER", "PACS", "THIRD"))
    assert heard == [b"DW-NOBODY-HERE", b"OTHER", b"PACS"]
    assert seen.verdict_of(Control.CALLED_AE_TITLE) is Verdict.PASS
    assert seen.verdict_of(Control.CALLING_AE_TITLE) is Verdict.PASS
    assert seen.verdict_of(Control.FIND) is Verdict.PASS


def test_factory_titles_only_where_the_scope_allows_it(tmp_path: Path) -> None:
    heard: list[tuple[bytes, bytes]] = []

    def handle(connection: socket.socket) -> None:
        for data in chunks(connection):
            called, calling = data[10:26].strip(), data[26:42].strip()
            heard.append((called, calling))
            reason = 3 if called == b"ORTHANC" else 7
            connection.sendall(encode_pdu(AAssociateRj(result=1, source=1, reason=reason)))

    with StrangeServer(handle) as server:
        assert probe(tmp_path / "a", server.port).verdict_of(Control.FACTORY_AE_TITLE) is Verdict.NOT_RUN
        assert len(heard) == 1
        seen = probe(tmp_path / "b", server.port, scope_of(factory_titles=True))
    assert seen.verdict_of(Control.FACTORY_AE_TITLE) is Verdict.PASS
    assert {calling for called, calling in heard if called == b"ORTHANC"} >= {b"DW-ASSESS", b"ECHOSCU"}


def associating(delay: Callable[[int], float]) -> Callable[[socket.socket], None]:
    calls = iter(range(1000))

    def handle(connection: socket.socket) -> None:
        for data in chunks(connection):
            if data[0] == 1:
                threading.Event().wait(delay(next(calls)))
                connection.sendall(ACCEPTANCE)
            elif data[0] == 5:
                connection.sendall(encode_pdu(AReleaseRp()))
                return
            else:
                connection.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00")
                return

    return handle


def test_host_that_slows_down_is_left_alone(tmp_path: Path) -> None:
    with StrangeServer(associating(lambda call: 0.0 if call == 0 else 0.4)) as server:
        seen = probe(tmp_path, server.port)
    rate = next(each for each in seen.controls if each.control is Control.RATE_LIMIT)
    assert "slows down" in seen.problem
    assert seen.reach is Reach.ANSWERED
    assert seen.slowest_ms >= 300
    assert rate.verdict is not Verdict.PASS


def test_ipv6(tmp_path: Path) -> None:
    reject = encode_pdu(AAssociateRj(result=1, source=1, reason=3))
    with StrangeServer(answering(reject), host="::1") as server:
        seen = probe(tmp_path, server.port, address="::1")
    assert seen.address == "::1"
    assert seen.verdict_of(Control.FIND) is Verdict.PASS


def test_redirects_are_not_followed(tmp_path: Path) -> None:
    with StrangeServer(say_nothing) as elsewhere:
        answer = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{elsewhere.port}/x\r\nContent-Length: 0\r\n\r\n"
        with StrangeServer(answering(answer.encode())) as server:
            scope = scope_of(web_ports=(server.port,))
            seen = probe(tmp_path, server.port, scope)
        assert elsewhere.calls == 0
    assert seen.protocol is Protocol.HTTP
    assert seen.verdict_of(Control.DICOMWEB_TOKEN) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [("200 OK", "[]", Verdict.FAIL), ("401 Unauthorized", "", Verdict.PASS), ("204 No Content", "", Verdict.FAIL)],
)
def test_dicomweb(tmp_path: Path, status: str, body: str, verdict: Verdict) -> None:
    def handle(connection: socket.socket) -> None:
        for data in chunks(connection):
            assert data.startswith(b"GET ")
            found = b"/dicom-web/studies?StudyInstanceUID=2.25." in data
            said = status if found else "404 Not Found"
            text = (
                f"HTTP/1.1 {said}\r\nContent-Type: application/dicom+json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            )
            connection.sendall(text.encode())

    with StrangeServer(handle) as server:
        seen = probe(tmp_path, server.port, scope_of(web_ports=(server.port,)))
    assert seen.verdict_of(Control.DICOMWEB_TOKEN) is verdict
    assert seen.reach is Reach.ANSWERED


def test_tls_with_and_without_a_client_certificate(tmp_path: Path) -> None:
    credentials = Authority("CA", tmp_path).issue("pacs")
    reject = encode_pdu(AAssociateRj(result=1, source=1, reason=3))
    for wants, directory in ((False, "a"), (True, "b")):
        context = credentials.server_context()
        context.verify_mode = ssl.CERT_REQUIRED if wants else ssl.CERT_NONE

        def handle(connection: socket.socket, context: ssl.SSLContext = context) -> None:
            with context.wrap_socket(connection, server_side=True) as sealed:
                answering(reject)(sealed)

        with StrangeServer(handle) as server:
            seen = probe(tmp_path / directory, server.port, scope_of(ca_file=str(credentials.authority)))
        assert seen.protocol is Protocol.DIMSE_TLS
        assert seen.reach is (Reach.CERTIFICATE_WANTED if wants else Reach.ANSWERED)
        assert seen.verdict_of(Control.CLIENT_CERTIFICATE) is (Verdict.PASS if wants else Verdict.FAIL)
        assert seen.verdict_of(Control.FIND) is Verdict.PASS
        assert seen.tls is not None
        if not wants:
            assert seen.verdict_of(Control.CERTIFICATE_CHAIN) is Verdict.PASS
            assert seen.verdict_of(Control.TLS_VERSION) is Verdict.PASS


def test_stop_file_and_scope_are_asked_before_every_probe(tmp_path: Path) -> None:
    scope = scope_of()
    with guard_of(tmp_path, scope) as guard, pytest.raises(ProbingStopped, match="not allowed: outside the scope"):
        asyncio.run(guard.before("127.0.0.2", (104,), "connect"))
    with guard_of(tmp_path, scope) as guard:
        asyncio.run(guard.before("127.0.0.1", (104,), "connect"))
        (tmp_path / STOP_FILE).touch()
        with pytest.raises(ProbingStopped, match="stop file"):
            asyncio.run(guard.before("127.0.0.1", (104,), "connect"))
    late = Guard(scope, AuditLog(tmp_path / "x"), tmp_path / "y", now=lambda: NOW.replace(year=2027), pacer=Pacer(1))
    with pytest.raises(ProbingStopped, match="ended on 2026-12-31"):
        late.verify_may_go_on()


def test_only_echo_and_find_are_ever_sent(tmp_path: Path) -> None:
    commands: list[int] = []

    def handle(connection: socket.socket) -> None:
        for data in chunks(connection):
            if data[0] == 1:
                connection.sendall(ACCEPTANCE)
            elif data[0] == 4:
                at = data.index(b"\x00\x00\x00\x01\x02\x00\x00\x00")
                commands.append(int.from_bytes(data[at + 8 : at + 10], "little"))
                return
            else:
                return

    with StrangeServer(handle) as server:
        probe(tmp_path, server.port)
    assert set(commands) == {0x0030, 0x0020}
    assert VERIFICATION not in STORAGE


def test_fragile_network_is_asked_gently(tmp_path: Path) -> None:
    scope = scope_of()
    network = replace(scope.networks[0], fragile=True)
    scope = replace(scope, networks=(network,), pace=replace(scope.pace, fragile_pause=0.05))
    began = time.monotonic()
    with StrangeServer(associating(lambda call: 0.0)) as server:
        seen = probe(tmp_path, server.port, scope)
        calls = server.calls
    # Each probe waits: the knock, the association, the C-ECHO, and what follows.
    assert time.monotonic() - began > 0.05 * seen.probes
    assert seen.verdict_of(Control.RATE_LIMIT) is Verdict.NOT_RUN
    assert calls <= 4


def test_https_port_that_answers_plain_http_with_an_error(tmp_path: Path) -> None:
    """As nginx does it."""
    credentials = Authority("CA", tmp_path).issue("pacs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credentials.certificate, credentials.key)
    heard: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        first = connection.recv(1, socket.MSG_PEEK)
        heard.append(first)
        if first != b"\x16":
            answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")(connection)
            return
        with context.wrap_socket(connection, server_side=True) as sealed:
            answering(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")(sealed)

    with StrangeServer(handle) as server:
        seen = probe(tmp_path, server.port, scope_of(web_ports=(server.port,)))
    assert seen.protocol is Protocol.HTTPS
    assert seen.verdict_of(Control.DICOMWEB_TOKEN) is Verdict.PASS
    assert seen.verdict_of(Control.CERTIFICATE_KEY) is Verdict.PASS
    # No DICOM was sent to it.
    assert b"\x01" not in heard
