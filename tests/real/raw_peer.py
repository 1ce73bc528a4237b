"""PDUs and command sets by hand (PS3.8 §9.3, PS3.7 §6.3, §E.1): a codec of the tests' own, for what no stack would say.

A test plays both ends itself: `RawArchive.accept` gives it the gateway's connection to the archive, `connect` its own
to the gateway. So each step happens when the test says so, and nothing is left to timing.
"""

import socket
import ssl
import struct
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tests.real.clients import Route
from tests.real.processes import LOOPBACK

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
SECONDS: Final = 20.0

AFFECTED_SOP_CLASS_UID, COMMAND_FIELD, MESSAGE_ID, MESSAGE_ID_RESPONDED_TO = 0x0002, 0x0100, 0x0110, 0x0120
PRIORITY, DATA_SET_TYPE, STATUS, AFFECTED_SOP_INSTANCE_UID = 0x0700, 0x0800, 0x0900, 0x1000
C_STORE, C_FIND, C_ECHO, C_CANCEL, RESPONSE = 0x0001, 0x0020, 0x0030, 0x0FFF, 0x8000
NO_DATA_SET, WITH_DATA_SET = 0x0101, 0x0001

Contexts = Mapping[int, tuple[str, Sequence[str]]]
Value = int | str


@dataclass(frozen=True, slots=True)
class Pdu:
    """One whole PDU: its type and what follows the six bytes of its header."""

    kind: int
    body: bytes

    @property
    def numbers(self) -> str:
        """Bytes 7 to 10 of an A-ASSOCIATE-RJ (result/source/reason) or an A-ABORT (0/source/reason), as text."""
        return "/".join(str(number) for number in self.body[1:4])


@dataclass(frozen=True, slots=True)
class Message:
    """A message: its command set by element number (values unpacked where they are numbers), and its data set."""

    context_id: int
    command: dict[int, Value]
    data_set: bytes

    def __getitem__(self, element: int) -> Value:
        """Return a value of the command set."""
        return self.command[element]


def pdu(kind: int, body: bytes) -> bytes:
    """Encode a PDU."""
    return struct.pack(">BBI", kind, 0, len(body)) + body


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def _titles(called: str, calling: str) -> bytes:
    return struct.pack(">HH16s16s32x", 1, 0, called.encode().ljust(16), calling.encode().ljust(16))


def _user_information(maximum_length: int, window: tuple[int, int] | None, roles: Sequence[str] = ()) -> bytes:
    items = _item(0x51, struct.pack(">I", maximum_length)) + _item(0x52, b"1.2.826.0.1.3680043.10.543.1")
    if window is not None:
        items += _item(0x53, struct.pack(">HH", *window))
    for uid in roles:
        items += _item(0x54, struct.pack(">H", len(uid)) + uid.encode() + b"\1\1")
    return _item(0x50, items)


def associate_rq(
    *,
    called: str,
    calling: str,
    contexts: Contexts,
    maximum_length: int = 16384,
    window: tuple[int, int] | None = None,
    roles: Sequence[str] = (),
) -> bytes:
    """Encode an A-ASSOCIATE-RQ; `window` is what the requestor may invoke and perform, `roles` are SCU and SCP."""
    body = _titles(called, calling) + _item(0x10, b"1.2.840.10008.3.1.1.1")
    for context_id, (abstract_syntax, transfer_syntaxes) in contexts.items():
        syntaxes = b"".join(_item(0x40, uid.encode()) for uid in transfer_syntaxes)
        body += _item(0x20, bytes([context_id, 0, 0, 0]) + _item(0x30, abstract_syntax.encode()) + syntaxes)
    return pdu(ASSOCIATE_RQ, body + _user_information(maximum_length, window, roles))


def request_on(
    route: Route, contexts: Contexts, *, window: tuple[int, int] | None = None, roles: Sequence[str] = ()
) -> bytes:
    """Encode an A-ASSOCIATE-RQ with a route's titles."""
    called, calling = route.called_ae_title, route.calling_ae_title
    return associate_rq(called=called, calling=calling, contexts=contexts, window=window, roles=roles)


def associate_ac(
    request: Pdu, *, maximum_length: int = 16384, window: tuple[int, int] | None = None, roles: Sequence[str] = ()
) -> bytes:
    """Encode an A-ASSOCIATE-AC that takes each context with its first transfer syntax."""
    body = request.body[:68] + _item(0x10, b"1.2.840.10008.3.1.1.1")
    for kind, content in items_of(request.body[68:]):
        if kind == 0x20:
            first = next(value for inner, value in items_of(content[4:]) if inner == 0x40)
            body += _item(0x21, content[:1] + b"\0\0\0" + _item(0x40, first))
    return pdu(ASSOCIATE_AC, body + _user_information(maximum_length, window, roles))


def items_of(data: bytes) -> list[tuple[int, bytes]]:
    """Return the items in a body: type and content."""
    found = []
    while data:
        kind, length = struct.unpack_from(">BxH", data)
        found.append((kind, data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def results_of(accept: Pdu) -> list[int]:
    """Return the result of each presentation context in an A-ASSOCIATE-AC (PS3.8 §9.3.3.2)."""
    return [content[2] for kind, content in items_of(accept.body[68:]) if kind == 0x21]


def window_of(associate: Pdu) -> tuple[int, int] | None:
    """Return the asynchronous operations window in an A-ASSOCIATE-RQ or -AC (PS3.7 §D.3.3.3), if it has one."""
    user = next(content for kind, content in items_of(associate.body[68:]) if kind == 0x50)
    for kind, content in items_of(user):
        if kind == 0x53:
            invoked, performed = struct.unpack(">HH", content)
            return invoked, performed
    return None


_UIDS: Final = {0x0002, 0x0003, 0x1000, 0x1001}


def command_set(values: Mapping[int, Value]) -> bytes:
    """Encode a command set in Implicit VR Little Endian, with its group length; numbers become US."""
    body = b""
    for element, value in sorted(values.items()):
        if isinstance(value, int):
            raw = struct.pack("<H", value)
        else:
            raw = value.encode()
            raw += (b"\0" if element in _UIDS else b" ") * (len(raw) % 2)
        body += struct.pack("<HHI", 0, element, len(raw)) + raw
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def decode_command_set(data: bytes) -> dict[int, Value]:
    """Decode a command set: two bytes are a number, everything else is text."""
    values: dict[int, Value] = {}
    while data:
        _, element, length = struct.unpack_from("<HHI", data)
        raw = data[8 : 8 + length]
        values[element] = struct.unpack("<H", raw)[0] if length == 2 else raw.rstrip(b"\0 ").decode("latin-1")
        data = data[8 + length :]
    return values


def p_data(context_id: int, fragment: bytes, *, command: bool, last: bool = True) -> bytes:
    """Encode a P-DATA-TF with one PDV (PS3.8 §9.3.5, §E.2)."""
    return pdu(P_DATA, struct.pack(">IBB", len(fragment) + 2, context_id, command | last << 1) + fragment)


def command(context_id: int, values: Mapping[int, Value]) -> bytes:
    """Encode a message's command set in one P-DATA-TF."""
    return p_data(context_id, command_set(values), command=True)


def echo_rq(context_id: int, message_id: int) -> bytes:
    """Encode a C-ECHO-RQ."""
    fields = {COMMAND_FIELD: C_ECHO, MESSAGE_ID: message_id, DATA_SET_TYPE: NO_DATA_SET}
    return command(context_id, {AFFECTED_SOP_CLASS_UID: "1.2.840.10008.1.1", **fields})


def store_rq(context_id: int, sop_class: str, instance: str, *, message_id: int = 1) -> bytes:
    """Encode a C-STORE-RQ, whose data set is still to come."""
    fields: dict[int, Value] = {COMMAND_FIELD: C_STORE, MESSAGE_ID: message_id, PRIORITY: 0}
    fields |= {DATA_SET_TYPE: WITH_DATA_SET, AFFECTED_SOP_INSTANCE_UID: instance}
    return command(context_id, {AFFECTED_SOP_CLASS_UID: sop_class, **fields})


def response_to(request: Message, *, status: int = 0, data_set_type: int = NO_DATA_SET) -> bytes:
    """Encode the command set of a response."""
    values: dict[int, Value] = {
        AFFECTED_SOP_CLASS_UID: request[AFFECTED_SOP_CLASS_UID],
        COMMAND_FIELD: int(request[COMMAND_FIELD]) | RESPONSE,
        MESSAGE_ID_RESPONDED_TO: request[MESSAGE_ID],
        DATA_SET_TYPE: data_set_type,
        STATUS: status,
    }
    if AFFECTED_SOP_INSTANCE_UID in request.command:
        values[AFFECTED_SOP_INSTANCE_UID] = request[AFFECTED_SOP_INSTANCE_UID]
    return command(request.context_id, values)


def element(group: int, number: int, value: str) -> bytes:
    """Encode one data element in Implicit VR Little Endian."""
    raw = value.encode() + b" " * (len(value) % 2)
    return struct.pack("<HHI", group, number, len(raw)) + raw


class Connection:
    """A connection that speaks in whole PDUs; one that is cut short fails the test."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        connected.settimeout(SECONDS)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *data: bytes) -> None:
        """Send bytes, PDUs or less."""
        self.socket.sendall(b"".join(data))

    def receive(self) -> Pdu | None:
        """Return the next PDU, None at the end of the connection."""
        header = self._read(6)
        if not header:
            return None
        kind, length = struct.unpack(">BxI", header)
        return Pdu(kind, self._read(length))

    def expect(self, kind: int) -> Pdu:
        """Return the next PDU, which has to be of this type."""
        received = self.receive()
        if received is None or received.kind != kind:
            raise AssertionError(f"expected a PDU of type {kind}, got {received}")
        return received

    def rest(self) -> list[Pdu]:
        """Return every PDU up to the end of the connection."""
        found = []
        while (received := self.receive()) is not None:
            found.append(received)
        return found

    def message(self) -> Message:
        """Return the next message, put together from its fragments."""
        fragments: dict[bool, bytes] = {True: b"", False: b""}
        context_id, decoded = 0, None
        while True:
            for context_id, is_command, is_last, fragment in fragments_of([self.expect(P_DATA)]):
                fragments[is_command] += fragment
                if is_command and is_last:
                    decoded = decode_command_set(fragments[True])
                if is_last and decoded is not None and (not is_command or decoded[DATA_SET_TYPE] == NO_DATA_SET):
                    return Message(context_id, decoded, fragments[False])

    def says_nothing(self, seconds: float) -> bool:
        """Say if nothing comes for so long."""
        self.socket.settimeout(seconds)
        try:
            return not self.socket.recv(1)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(SECONDS)

    def reset(self) -> None:
        """End the connection with a TCP reset, as a machine does that is switched off and on."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self.socket.recv(count - len(data))
            if not chunk:
                if data:
                    raise AssertionError(f"the connection ended inside a PDU: {len(data)} of {count} bytes")
                return b""
            data += chunk
        return data


def fragments_of(pdus: Sequence[Pdu]) -> list[tuple[int, bool, bool, bytes]]:
    """Return the PDVs of P-DATA-TF PDUs: context, is command, is last, fragment. Each PDU must hold whole ones."""
    found = []
    for each in pdus:
        data = each.body
        while data:
            length, context_id, header = struct.unpack_from(">IBB", data)
            if length < 2 or len(data) < 4 + length:
                raise AssertionError(f"a PDV of {length} bytes in {len(data)}")
            found.append((context_id, bool(header & 1), bool(header & 2), data[6 : 4 + length]))
            data = data[4 + length :]
    return found


def connect(
    route: Route, *, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None
) -> Connection:
    """Connect to the gateway over mutual TLS (resuming a session), in plaintext where the route has no credentials."""
    plain = socket.create_connection((LOOPBACK, route.port), timeout=SECONDS)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None and route.credentials is not None:
        context = route.credentials.client_context()
    if context is None:
        return Connection(plain)
    return Connection(context.wrap_socket(plain, server_hostname="localhost", session=session))


class RawArchive:
    """A listening archive whose every answer a test gives itself."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self._listener.settimeout(SECONDS)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> "RawArchive":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def accept(self) -> Connection:
        """Return the next connection of the gateway."""
        connected, _ = self._listener.accept()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Connection(connected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both ends of one association through the gateway; `request` and `accept` as they arrived at the other end."""

    device: Connection
    archive: Connection
    request: Pdu
    accept: Pdu

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        self.device.socket.close()
        self.archive.socket.close()


def establish(
    route: Route,
    archive: RawArchive,
    contexts: Contexts,
    *,
    window: tuple[int, int] | None = None,
    archive_window: tuple[int, int] | None = None,
) -> Pair:
    """Open an association through the gateway, with the archive played here."""
    with ExitStack() as stack:
        device = stack.enter_context(connect(route))
        device.send(request_on(route, contexts, window=window))
        behind = stack.enter_context(archive.accept())
        request = behind.expect(ASSOCIATE_RQ)
        behind.send(associate_ac(request, window=archive_window))
        accept = device.expect(ASSOCIATE_AC)
        if any(results_of(accept)):
            raise AssertionError(f"not every context was accepted: {results_of(accept)}")
        stack.pop_all()
        return Pair(device=device, archive=behind, request=request, accept=accept)
