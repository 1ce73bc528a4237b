"""A hostile archive: what it answers to the gateway's A-ASSOCIATE-RQ and to a request on the association."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping

from tests.abuse.association_cases import USER, item
from tests.real import raw_peer as raw
from tests.real.processes import LOOPBACK

# What it does with a connection: the request as it came, and the way to answer.
Answer = Callable[[raw.Pdu, socket.socket], None]


def _says(*data: bytes) -> Answer:
    def answer(_: raw.Pdu, connected: socket.socket) -> None:
        connected.sendall(b"".join(data))

    return answer


def _accepts_then(*data: bytes, after_request: bool = True) -> Answer:
    """Accept, wait for the first request (or not), and send this."""

    def answer(request: raw.Pdu, connected: socket.socket) -> None:
        connected.sendall(raw.associate_ac(request))
        if after_request:
            raw.Connection(connected).receive()
        connected.sendall(b"".join(data))

    return answer


def _accept(
    request: raw.Pdu,
    *,
    results: bytes = b"\0",
    transfer: bytes = b"1.2.840.10008.1.2",
    user: bytes = USER,
    number: int = 0,
    times: int = 1,
) -> bytes:
    first = next(content[0] for kind, content in raw.items_of(request.body[68:]) if kind == 0x20)
    contexts = item(0x21, bytes([number or first, 0]) + results + b"\0" + item(0x40, transfer)) * times
    body = request.body[:68] + item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + item(0x50, user)
    return raw.pdu(raw.ASSOCIATE_AC, body)


def _accepts(change: Callable[[raw.Pdu], bytes]) -> Answer:
    def answer(request: raw.Pdu, connected: socket.socket) -> None:
        connected.sendall(change(request))

    return answer


def _in_single_bytes(request: raw.Pdu, connected: socket.socket) -> None:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in raw.associate_ac(request):
        connected.sendall(bytes([byte]))


def _half_closes(request: raw.Pdu, connected: socket.socket) -> None:
    connected.sendall(raw.associate_ac(request))
    connected.shutdown(socket.SHUT_WR)


def _closes_inside_an_answer(request: raw.Pdu, connected: socket.socket) -> None:
    connected.sendall(raw.associate_ac(request))
    raw.Connection(connected).receive()
    connected.sendall(_response()[:40])
    connected.close()


def _answers_in_single_bytes(request: raw.Pdu, connected: socket.socket) -> None:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.sendall(raw.associate_ac(request))
    raw.Connection(connected).receive()
    for byte in _response():
        connected.sendall(bytes([byte]))


def _releases_and_goes_on(request: raw.Pdu, connected: socket.socket) -> None:
    peer = raw.Connection(connected)
    peer.send(raw.associate_ac(request))
    peer.receive()
    peer.send(_header(raw.RELEASE_RQ, 4) + bytes(4))
    peer.receive()
    peer.send(_response())


def _releases_twice(request: raw.Pdu, connected: socket.socket) -> None:
    peer = raw.Connection(connected)
    peer.send(raw.associate_ac(request))
    peer.receive()
    peer.send((_header(raw.RELEASE_RQ, 4) + bytes(4)) * 2)


def _collides(request: raw.Pdu, connected: socket.socket) -> None:
    """Ask for a release while the device does; answer the gateway's as the acceptor has to (PS3.8 §7.2.2.7)."""
    peer = raw.Connection(connected)
    peer.send(raw.associate_ac(request))
    peer.receive()
    peer.send(_header(raw.RELEASE_RQ, 4) + bytes(4))
    while (said := peer.receive()) is not None:
        if said.kind == raw.RELEASE_RQ:
            peer.send(_header(raw.RELEASE_RP, 4) + bytes(4))


def _aborts_in_a_collision(request: raw.Pdu, connected: socket.socket) -> None:
    peer = raw.Connection(connected)
    peer.send(raw.associate_ac(request))
    peer.receive()
    peer.send(_header(raw.RELEASE_RQ, 4) + bytes(4))
    peer.receive()
    peer.send(raw.pdu(raw.ABORT, bytes(4)))


def _closes(_: raw.Pdu, connected: socket.socket) -> None:
    connected.close()


def _resets(_: raw.Pdu, connected: socket.socket) -> None:
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connected.close()


def _accepts_and_resets(request: raw.Pdu, connected: socket.socket) -> None:
    connected.sendall(raw.associate_ac(request))
    _resets(request, connected)


def _header(kind: int, length: int) -> bytes:
    return struct.pack(">BBI", kind, 0, length)


def _response(**changes: raw.Value) -> bytes:
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: changes.get("sop_class", "1.2.840.10008.1.1"),
        raw.COMMAND_FIELD: changes.get("field", raw.C_ECHO | raw.RESPONSE),
        raw.MESSAGE_ID_RESPONDED_TO: changes.get("message_id", 1),
        raw.DATA_SET_TYPE: changes.get("type", raw.NO_DATA_SET),
        raw.STATUS: changes.get("status", 0),
    }
    return raw.command(1, values)


_MESSAGES = {
    # A case of a device's is one of an archive's too where it is only bytes; those that wait are left out.
    "empty-p-data": raw.pdu(raw.P_DATA, b""),
    "pdv-length-0": raw.pdu(raw.P_DATA, struct.pack(">IBB", 0, 1, 3)),
    "pdv-longer-than-the-pdu": raw.pdu(raw.P_DATA, struct.pack(">IBB", 500, 1, 3) + b"short"),
    "pdv-length-4-gibibytes": raw.pdu(raw.P_DATA, struct.pack(">IBB", 0xFFFFFFFF, 1, 3)),
    "context-never-accepted": raw.pdu(raw.P_DATA, struct.pack(">IBB", 12, 99, 3) + bytes(10)),
    "control-header-255": raw.pdu(raw.P_DATA, struct.pack(">IBB", 12, 1, 255) + bytes(10)),
    "garbage-command": raw.p_data(1, b"\xff" * 40, command=True),
    "empty-command": raw.p_data(1, b"", command=True),
    "five-thousand-empty-fragments": raw.p_data(1, b"", command=True, last=False) * 5000,
    "megabyte-of-zeros": bytes(1 << 20),
    "data-without-a-command": raw.p_data(1, b"data", command=False),
    "pdu-of-4-gibibytes": _header(raw.P_DATA, 0xFFFFFFFF),
    "type-99": _header(99, 4) + bytes(4),
    "half-a-pdu": _response()[:30],
    "answer-to-nobody": _response(message_id=777),
    "answer-to-another-command": _response(field=raw.C_STORE | raw.RESPONSE),
    "answer-twice": _response() * 2,
    "answer-that-promises-a-data-set": _response(type=raw.WITH_DATA_SET),
    "pending-for-an-echo": _response(status=0xFF00),
    "thousand-pending": _response(status=0xFF00) * 1000,
    "answer-with-a-sop-class-of-2000-digits": _response(sop_class="1." * 1000),
    "answer-with-control-characters": _response(sop_class="\n\x1b[2J"),
    "request-that-no-archive-makes": raw.echo_rq(1, 5),
    "cancel": raw.command(1, {raw.COMMAND_FIELD: raw.C_CANCEL, raw.MESSAGE_ID_RESPONDED_TO: 1, raw.DATA_SET_TYPE: 257}),
    "release-instead-of-an-answer": _header(raw.RELEASE_RQ, 4) + bytes(4),
    "release-reply": _header(raw.RELEASE_RP, 4) + bytes(4),
    "abort": _header(raw.ABORT, 4) + bytes(4),
    "abort-and-more": _header(raw.ABORT, 4) + bytes(4) + _response(),
    "pdu-one-byte-longer-than-its-pdv": raw.pdu(raw.P_DATA, struct.pack(">IBB", 2, 1, 3) + b"\0"),
    "pdv-length-1": raw.pdu(raw.P_DATA, struct.pack(">IBB", 1, 1, 3)),
    "element-of-4-gibibytes": raw.p_data(1, struct.pack("<HHI", 0, 0x5000, 0xFFFFFFFF), command=True),
    "ten-thousand-empty-pdus": raw.pdu(raw.P_DATA, b"") * 10000,
    "pdu-larger-than-agreed": raw.p_data(1, bytes(1 << 20), command=True),
    "answer-in-two-contexts": raw.p_data(1, b"\0\0", command=True, last=False) + raw.p_data(3, b"\0\0", command=True),
    "answer-of-message-id-65535": _response(message_id=0xFFFF),
    "answer-of-status-65535": _response(status=0xFFFF),
    "answer-of-a-field-that-is-none": _response(field=0xFFFF),
    "thousand-answers": _response() * 1000,
    "thousand-aborts": raw.pdu(raw.ABORT, bytes(4)) * 1000,
    "thousand-releases": raw.pdu(raw.RELEASE_RQ, bytes(4)) * 1000,
    "abort-of-255-255": raw.pdu(raw.ABORT, b"\0\0\xff\xff"),
    "abort-without-a-body": raw.pdu(raw.ABORT, b""),
    "reject-on-an-association": raw.pdu(raw.ASSOCIATE_RJ, b"\0\1\1\1"),
    "second-accept": _header(raw.ASSOCIATE_AC, 68) + bytes(68),
    "second-request": _header(raw.ASSOCIATE_RQ, 68) + bytes(68),
}

HOSTILE: Mapping[str, Answer] = {
    "silent": lambda _request, _connected: None,
    "closes": _closes,
    "resets": _resets,
    "accepts-and-resets": _accepts_and_resets,
    "says-http": _says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "garbage": _says(b"\xff" * 4000),
    "accept-of-length-0": _says(_header(raw.ASSOCIATE_AC, 0)),
    "accept-of-4-gibibytes": _says(_header(raw.ASSOCIATE_AC, 0xFFFFFFFF)),
    "accept-cut-short": _accepts(lambda request: raw.associate_ac(request)[:-5]),
    "accept-byte-by-byte": _accepts(lambda request: raw.associate_ac(request)[:40]),
    "reject-255-255-255": _says(raw.pdu(raw.ASSOCIATE_RJ, b"\0\xff\xff\xff")),
    "reject-without-a-body": _says(raw.pdu(raw.ASSOCIATE_RJ, b"")),
    "request-instead-of-an-accept": _accepts(lambda request: raw.pdu(raw.ASSOCIATE_RQ, request.body)),
    "abort-instead-of-an-accept": _says(raw.pdu(raw.ABORT, bytes(4))),
    "data-instead-of-an-accept": _says(_response()),
    "accept-with-a-result-of-255": _accepts(lambda request: _accept(request, results=b"\xff")),
    "accept-of-a-syntax-nobody-offered": _accepts(lambda request: _accept(request, transfer=b"1.2.3.4")),
    "accept-of-a-syntax-of-300-digits": _accepts(lambda request: _accept(request, transfer=b"1." * 150)),
    "accept-with-maximum-length-1": _accepts(lambda request: _accept(request, user=item(0x51, b"\0\0\0\1"))),
    "accept-without-user-items": _accepts(lambda request: _accept(request, user=b"")),
    "accept-with-60000-bytes-of-version": _accepts(
        lambda request: _accept(request, user=USER + item(0x55, b"V" * 60000))
    ),
    "accept-in-single-bytes": _in_single_bytes,
    "accept-and-half-close": _half_closes,
    "accept-of-a-context-nobody-offered": _accepts(lambda request: _accept(request, number=99)),
    "accept-of-an-even-context": _accepts(lambda request: _accept(request, number=2)),
    "accept-of-a-context-200-times": _accepts(lambda request: _accept(request, times=200)),
    "accept-of-no-context": _accepts(lambda request: _accept(request, times=0)),
    "accept-with-roles-nobody-asked-for": _accepts(
        lambda request: _accept(request, user=USER + item(0x54, struct.pack(">H", 17) + b"1.2.840.10008.1.1\1\1") * 3)
    ),
    "accept-with-every-user-item-twice": _accepts(lambda request: _accept(request, user=(USER + item(0x55, b"V")) * 2)),
    "accept-with-an-identity-nobody-asked-for": _accepts(
        lambda request: _accept(request, user=USER + item(0x59, b"\0\4root"))
    ),
    "accept-with-a-window-nobody-asked-for": _accepts(
        lambda request: _accept(request, user=USER + item(0x53, b"\xff" * 4))
    ),
    "accept-with-unknown-items": _accepts(lambda request: _accept(request, user=USER + item(0x5F, b"?") * 1000)),
    "accept-with-maximum-length-4-gibibytes": _accepts(
        lambda request: _accept(request, user=item(0x51, b"\xff" * 4) + item(0x52, b"1.2"))
    ),
    "closes-inside-an-answer": _closes_inside_an_answer,
    "answer-in-single-bytes": _answers_in_single_bytes,
    "releases-and-goes-on": _releases_and_goes_on,
    "releases-twice": _releases_twice,
    "release-collision": _collides,
    "release-collision-and-abort": _aborts_in_a_collision,
    "accept-twice": _accepts(lambda request: raw.associate_ac(request) * 2),
    "silent-after-the-accept": _accepts_then(),
    **{f"answer: {name}": _accepts_then(data) for name, data in _MESSAGES.items()},
    **{f"at once: {name}": _accepts_then(data, after_request=False) for name, data in _MESSAGES.items()},
}


class HostileArchive:
    """Listens, and answers each connection as the case says that is set; connections stay open. Context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.answer: Answer = HOSTILE["silent"]
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "HostileArchive":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=10)
        self.let_go()

    def let_go(self) -> None:
        """Close what the cases so far have left open."""
        while self._held:
            self._held.pop().close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            connected.settimeout(5)
            self._held.append(connected)
            threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        with contextlib.suppress(OSError, AssertionError):
            request = raw.Connection(connected).receive()
            if request is not None:
                self.answer(request, connected)
