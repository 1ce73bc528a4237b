"""One connection's bytes: partial writes, TLS records in any slices, ends of every kind."""

import select
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomward.dicom.framing import HEADROOM
from dicomward.io.gateway.wire import READ_BYTES, Scratch, Wire, WireClosed
from dicomward.io.system import calls
from dicomward.io.tls import CaDates, CertificateFiles, PeerCertificates, client_context, server_context
from dicomward.settings import Settings
from tests.directory_helpers import copy_directory
from tests.io.world import Credentials, issue


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return copy_directory(tmp_path_factory.mktemp("wire") / "gateway")


@pytest.fixture(scope="module")
def credentials(settings: Settings) -> Credentials:
    return issue(settings, "ct1")


@pytest.fixture
def server(settings: Settings) -> ssl.SSLContext:
    files = [CertificateFiles(pair.certificate, pair.key) for pair in settings.tls.certificates]
    return server_context(files, settings.tls.client_ca, ssl.TLSVersion.TLSv1_2)


class Pair:
    """A wire, and a blocking socket (or TLS socket) at its other end."""

    def __init__(self, context: ssl.SSLContext | None = None, *, server_side: bool = True) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.peer = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        listener.close()
        self.peer.settimeout(10)
        self.wire = Wire(accepted, context, server_side=server_side)
        self.scratch = Scratch()

    def secure(self, context: ssl.SSLContext) -> ssl.SSLObject:
        """Do the peer's part of a handshake by hand, in step with ours."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        done = [False, False]
        while not all(done):
            if not done[0]:
                try:
                    tls.do_handshake()
                    done[0] = True
                except ssl.SSLWantReadError:
                    pass
            if outgoing.pending:
                self.peer.sendall(outgoing.read())
            if not done[1]:
                done[1] = self.wire.handshake(self.scratch, first=False)
                self.wire.flush()
            self.peer.setblocking(False)
            try:
                incoming.write(self.peer.recv(1 << 16))
            except BlockingIOError:
                pass
            self.peer.settimeout(10)
        self.incoming, self.outgoing, self.tls = incoming, outgoing, tls
        return tls

    def shake(self) -> None:
        """Go on with our part of the handshake until it is done, or fails."""
        while not self.wire.handshake(self.scratch, first=False):
            pass

    def say(self, data: bytes) -> None:
        self.tls.write(data)
        self.peer.sendall(self.outgoing.read())

    def read(self) -> bytes:
        """Read once as a session does, waiting for the kernel."""
        end = self.wire.read(self.scratch)
        return b"" if end < 0 else bytes(self.scratch.plain[HEADROOM:end])

    def read_all(self, count: int) -> bytes:
        data = b""
        self.wire.socket.setblocking(False)
        while len(data) < count:
            data += self.read()
        return data

    def close(self) -> None:
        self.peer.close()
        self.wire.socket.close()


@pytest.fixture
def plain() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


@pytest.fixture
def sealed(server: ssl.SSLContext, credentials: Credentials) -> Iterator[Pair]:
    pair = Pair(server)
    pair.secure(credentials.context())
    yield pair
    pair.close()


def fill(pair: Pair) -> int:
    """Write until bytes have to wait; return how many were written."""
    written = 0
    while not pair.wire.is_blocked:
        pair.wire.write([memoryview(bytes([written // 65536 % 251]) * 65536)])
        written += 65536
    return written


def drain(pair: Pair, count: int) -> bytes:
    """Read at the peer's end, flushing at ours when the kernel takes more, until so many bytes have come."""
    data = bytearray()
    while len(data) < count:
        readable, writable, _ = select.select([pair.peer], [pair.wire.socket] if pair.wire.is_blocked else [], [], 10)
        assert readable or writable, "nothing moves"
        if writable:
            pair.wire.flush()
        if readable:
            data += pair.peer.recv(1 << 20)
    return bytes(data)


# -- plaintext ---------------------------------------------------------------------------------------------------------


def test_nothing_to_read_is_not_an_end(plain: Pair) -> None:
    assert plain.wire.read(plain.scratch) == -1
    assert plain.wire.pending(plain.scratch) == -1
    assert plain.wire.handshake(plain.scratch, first=True)


def test_bytes_arrive_behind_the_headroom(plain: Pair) -> None:
    plain.peer.sendall(b"hello")
    assert plain.read_all(5) == b"hello"
    assert not plain.wire.may_have_more


def test_full_read_says_that_there_may_be_more(plain: Pair) -> None:
    plain.peer.sendall(b"x" * 1000)
    into = plain.scratch.plain[:500]
    assert plain.wire._receive(into) == 500
    assert plain.wire.may_have_more


def test_end_and_reset_of_the_peer_close_the_wire(plain: Pair) -> None:
    plain.peer.close()
    with pytest.raises(WireClosed, match="connection closed"):
        plain.wire.read(plain.scratch)


def test_reset_closes_the_wire_and_is_seen_without_reading(plain: Pair) -> None:
    assert (plain.wire.is_broken, plain.wire.is_connected) == (False, True)
    plain.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    plain.peer.close()
    assert (plain.wire.is_broken, plain.wire.is_connected) == (True, False)
    with pytest.raises(WireClosed, match="reset"):
        plain.wire.read(plain.scratch)
    with pytest.raises(WireClosed):
        plain.wire.write([b"data"])


def test_half_closed_connection_is_not_broken(plain: Pair) -> None:
    plain.peer.shutdown(socket.SHUT_WR)
    assert not plain.wire.is_broken


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_what_the_socket_cannot_take_waits_in_order(plain: Pair, kind: type) -> None:
    written = fill(plain)
    waiting = plain.wire.waiting_bytes
    assert 0 < waiting <= 65536
    tail = bytearray(b"tail")
    plain.wire.write([kind(bytes(tail) if kind is bytes else tail)])
    tail[:] = b"!!!!"  # a worker's buffer is used for the next connection
    assert plain.wire.waiting_bytes == waiting + 4
    data = drain(plain, written + 4)
    assert data[-4:] == b"tail"
    assert data[:-4] == b"".join(bytes([n % 251]) * 65536 for n in range(written // 65536))
    assert not plain.wire.is_blocked
    assert plain.wire.waiting_bytes == 0


def test_more_buffers_than_the_kernel_takes_at_once_are_joined(plain: Pair) -> None:
    plain.wire.write([bytes([number % 256]) for number in range(1500)])
    assert drain(plain, 1500) == bytes(number % 256 for number in range(1500))


@pytest.mark.parametrize("buffers", [[], [b""], [b"", b""]])
def test_nothing_is_written_for_nothing(plain: Pair, buffers: list[bytes | memoryview]) -> None:
    plain.wire.write(buffers)
    assert not plain.wire.is_blocked


def test_partial_write_of_several_buffers_goes_on_at_the_right_byte(plain: Pair) -> None:
    plain.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    parts = [bytes([number]) * 70_000 for number in range(200)]
    plain.wire.write(list(parts))
    assert plain.wire.is_blocked
    assert drain(plain, 200 * 70_000) == b"".join(parts)


class Flags:
    """A socket that notes the flags of what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, int]] = []

    def send(self, data: bytes, flags: int = 0) -> int:
        self.sent.append((bytes(data), flags))
        return len(data)


def test_what_may_wait_for_more_is_marked(plain: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = Flags()
    monkeypatch.setattr(plain.wire, "socket", flags)
    plain.wire._keep([b"tick", b"et"])
    plain.wire.flush(more=True)
    plain.wire.write([b"answer"])
    plain.wire._keep([b"alert"])
    plain.wire.flush()
    assert flags.sent == [(b"ticket", calls.MORE), (b"answer", 0), (b"alert", 0)]


def test_end_says_goodbye_once_everything_is_written(plain: Pair) -> None:
    plain.wire.write([b"last"])
    plain.wire.end()
    assert plain.peer.recv(100) == b"last"
    assert plain.peer.recv(100) == b""


def test_end_of_a_blocked_wire_waits_and_of_a_broken_one_is_quiet(plain: Pair) -> None:
    fill(plain)
    plain.wire.end()
    assert plain.wire.is_blocked
    plain.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    plain.peer.close()
    plain.wire.end()


def test_peer_that_is_switched_off_or_reads_nothing_is_given_up(plain: Pair) -> None:
    """Else it would hold its place at the archive for hours."""
    options = plain.wire.socket.getsockopt
    assert options(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert options(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert options(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 300_000
    assert options(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


# -- TLS ---------------------------------------------------------------------------------------------------------------


def test_tls_carries_both_ways(sealed: Pair) -> None:
    sealed.say(b"from the peer" * 10_000)
    assert sealed.read_all(130_000) == b"from the peer" * 10_000
    sealed.wire.write([b"head", memoryview(b"body" * 30_000)])
    assert not sealed.wire.is_blocked
    data = b""
    while len(data) < 120_004:
        sealed.incoming.write(sealed.peer.recv(1 << 17))
        try:
            while True:
                data += sealed.tls.read(1 << 17)
        except ssl.SSLWantReadError:
            pass
    assert data == b"head" + b"body" * 30_000


def test_bytes_without_a_whole_record_are_no_data_yet(sealed: Pair) -> None:
    sealed.tls.write(b"x" * 1000)
    record = sealed.outgoing.read()
    sealed.peer.sendall(record[:100])
    while (end := sealed.wire.read(sealed.scratch)) < 0:
        pass
    assert end == HEADROOM
    sealed.peer.sendall(record[100:])
    assert sealed.read_all(1000) == b"x" * 1000


def test_data_that_comes_with_the_end_of_the_handshake_is_not_lost(
    server: ssl.SSLContext, credentials: Credentials
) -> None:
    pair = Pair(server)
    context = credentials.context(maximum=ssl.TLSVersion.TLSv1_3)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    pair.peer.sendall(outgoing.read())
    while not pair.wire.is_blocked and not pair.wire.handshake(pair.scratch, first=False):
        pass
    pair.wire.flush()
    incoming.write(pair.peer.recv(1 << 16))
    tls.do_handshake()
    tls.write(b"early")
    pair.peer.sendall(outgoing.read())
    while not pair.wire.handshake(pair.scratch, first=False):
        pass
    end = pair.wire.pending(pair.scratch)
    assert bytes(pair.scratch.plain[HEADROOM:end]) == b"early"
    pair.close()


def test_handshake_without_bytes_goes_on_later(server: ssl.SSLContext) -> None:
    pair = Pair(server)
    assert not pair.wire.handshake(pair.scratch, first=False)
    pair.close()


def test_client_starts_its_handshake_without_a_byte(settings: Settings) -> None:
    files = [CertificateFiles(pair.certificate, pair.key) for pair in settings.tls.certificates]
    pair = Pair(client_context(files, ssl.TLSVersion.TLSv1_2), server_side=False)
    assert not pair.wire.handshake(pair.scratch, first=True)
    pair.wire.flush()
    assert pair.peer.recv(1) == b"\x16"
    pair.close()


def test_failed_handshake_leaves_the_alert_to_be_sent(server: ssl.SSLContext) -> None:
    pair = Pair(server)
    pair.peer.sendall(b"\x16\x03\x01\x00\x05hello")
    with pytest.raises(ssl.SSLError):
        pair.shake()
    pair.wire.flush()
    assert pair.peer.recv(1) == b"\x15"
    pair.close()


class Fed:
    """A memory BIO that notes the largest piece that it was given."""

    def __init__(self, real: ssl.MemoryBIO) -> None:
        self._real = real
        self.largest = 0

    def write(self, data: memoryview) -> int:
        self.largest = max(self.largest, len(data))
        return self._real.write(data)


def test_stranger_fills_no_memory_before_its_handshake(server: ssl.SSLContext) -> None:
    """A memory BIO keeps the largest size that it ever had, so it must not see what nobody has asked for."""
    pair = Pair(server)
    pair.peer.setblocking(False)
    hello = b"\x16\x03\x01\x40\x00\x01\x00\xff\x00" + b"x" * 0x4000
    sent = pair.peer.send(hello + b"y" * 100_000)
    assert sent > 50_000
    fed = Fed(pair.wire._in)
    pair.wire._in = fed  # type: ignore[assignment]
    with pytest.raises(ssl.SSLError):
        pair.shake()
    assert 0 < fed.largest <= 17 * 1024
    pair.close()


def test_nothing_to_read_on_tls_is_not_an_end(sealed: Pair) -> None:
    assert sealed.wire.read(sealed.scratch) == -1


@pytest.mark.parametrize("said", [b"", b"last"])
def test_peer_that_answers_our_close_notify_ends_the_wire(sealed: Pair, said: bytes) -> None:
    sealed.wire.end()
    if said:
        sealed.tls.write(said)
    sealed.incoming.write(sealed.peer.recv(1 << 16))
    sealed.tls.unwrap()
    sealed.peer.sendall(sealed.outgoing.read())
    with pytest.raises(WireClosed, match="TLS closed"):
        sealed.read_all(1 << 30)


def test_close_notify_ends_the_wire(sealed: Pair) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        sealed.tls.unwrap()
    sealed.peer.sendall(sealed.outgoing.read())
    with pytest.raises(WireClosed, match="TLS closed"):
        sealed.read_all(1 << 30)


def test_close_notify_behind_data_ends_the_wire_at_the_next_read(sealed: Pair) -> None:
    """The peer may wait for our own close_notify before it closes: no event will come for its end."""
    sealed.tls.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        sealed.tls.unwrap()
    sealed.peer.sendall(sealed.outgoing.read())
    assert sealed.read_all(4) == b"last"
    assert sealed.wire.may_have_more
    with pytest.raises(WireClosed, match="TLS closed"):
        sealed.wire.read(sealed.scratch)


def test_broken_record_is_an_error_of_tls(sealed: Pair) -> None:
    sealed.peer.sendall(b"\x17\x03\x03\x00\x20" + b"garbage!" * 4)
    with pytest.raises(ssl.SSLError):
        sealed.read_all(1 << 30)


def test_write_after_the_end_of_tls_is_a_closed_wire_and_no_other_error(sealed: Pair) -> None:
    """An SSLError would be taken for one of the leg that is read from at that moment."""
    sealed.wire.end()
    with pytest.raises(WireClosed, match="TLS"):
        sealed.wire.write([b"late"])


def test_tls_end_sends_close_notify_and_then_fin(sealed: Pair) -> None:
    sealed.wire.write([b"last"])
    sealed.wire.end()
    data = b""
    while chunk := sealed.peer.recv(1 << 16):
        data += chunk
    sealed.incoming.write(data)
    assert sealed.tls.read(100) == b"last"
    assert sealed.tls.read(100) == b""
    sealed.wire.end()


def test_blocked_tls_keeps_its_records_in_order(sealed: Pair) -> None:
    written = 0
    while not sealed.wire.is_blocked:
        sealed.wire.write([memoryview(b"z" * 65536)])
        written += 65536
    sealed.wire.write([b"end"])
    data = bytearray()
    while len(data) < written + 3:
        readable, writable, _ = select.select([sealed.peer], [sealed.wire.socket], [], 10)
        if writable:
            sealed.wire.flush()
        if readable:
            sealed.incoming.write(sealed.peer.recv(1 << 16))
        try:
            while True:
                data += sealed.tls.read(1 << 16)
        except ssl.SSLWantReadError:
            pass
    assert data == b"z" * written + b"end"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 21, 22, 23, 4000])
def test_records_in_any_pieces_give_the_same_bytes(sealed: Pair, size: int) -> None:
    said = [bytes([number]) * length for number, length in enumerate((1, 50, 16384, 3, 700))]
    for each in said:
        sealed.tls.write(each)
    stream = sealed.outgoing.read()
    pieces = (
        [stream[at : at + size] for at in range(0, len(stream), size)]
        if size > 4
        else [
            *(stream[at : at + size] for at in range(0, 200, size)),
            stream[200 // size * size + size * (200 % size > 0) :],
        ]
    )
    got = b""
    for piece in pieces:
        sealed.peer.sendall(piece)
        select.select([sealed.wire.socket], [], [], 10)
        got += sealed.read()
    assert got == b"".join(said)


def test_record_longer_than_any_may_be_is_an_error_at_once(sealed: Pair) -> None:
    sealed.peer.sendall(b"\x17\x03\x03\xff\xff" + bytes(100))
    select.select([sealed.wire.socket], [], [], 10)
    with pytest.raises(ssl.SSLError):
        sealed.read()


def test_big_read_is_decrypted_in_slices_within_the_buffer(sealed: Pair) -> None:
    """A leftover record and a full read fit together."""
    sealed.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * READ_BYTES)
    sealed.peer.setblocking(True)
    sealed.tls.write(b"q" * (3 * READ_BYTES))
    sealed.peer.sendall(sealed.outgoing.read())
    assert sealed.read_all(3 * READ_BYTES) == b"q" * (3 * READ_BYTES)


def test_certificate_of_the_peer_is_read_off_the_wire(
    sealed: Pair, server: ssl.SSLContext, credentials: Credentials
) -> None:
    assert sealed.wire.tls is not None
    certificate = PeerCertificates(CaDates(server)).read(sealed.wire.tls)
    assert certificate is not None
    assert certificate.sha256 == credentials.record.sha256


def test_files_of_the_fixture_are_private(credentials: Credentials) -> None:
    assert isinstance(credentials.files.key, Path)
