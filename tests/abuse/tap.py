"""A wire between the gateway and an archive that reads along, strictly, everything that the gateway says.

The reading is the tests' own (PS3.8 §9.3, PS3.7 §6.3): what our codec takes for right doesn't count here.
"""

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from tests.real import raw_peer as raw
from tests.real.processes import LOOPBACK

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*")
_LONGEST_UID = 64


class Breach(Exception):
    """What was said is not well-formed, or not permitted."""


@dataclass(slots=True)
class Permitted:
    """What the requestors of this wire may ask for."""

    titles: AbstractSet[str]
    sop_classes: AbstractSet[str]
    commands: AbstractSet[int]


def _need(condition: object, what: str) -> None:
    if not condition:
        raise Breach(what)


def _items(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        _need(len(data) >= 4, f"{len(data)} bytes where an item should begin")
        kind, length = struct.unpack_from(">BxH", data)
        _need(len(data) >= 4 + length, f"item {kind:02X}H is longer than what holds it")
        found.append((kind, data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def _uid(data: bytes, what: str, known: AbstractSet[str]) -> str:
    """Read a UID by PS3.5 §9.1; with leading zeros only one that is known (docs/adr/0015)."""
    text = data.rstrip(b"\0").decode("latin-1")
    is_uid = len(data) <= _LONGEST_UID and (_UID.fullmatch(text) or text in known)
    _need(is_uid, f"{what} is no UID: {data[:80]!r}")
    return text


@dataclass(slots=True)
class StrictReader:
    """Reads one direction of one association; `feed` and `close` raise Breach."""

    permitted: Permitted | None = None
    contexts: dict[int, str] = field(default_factory=dict)
    kinds: list[int] = field(default_factory=list)
    longest: int = 1 << 32
    _rest: bytes = b""
    _command: bytes = b""
    _command_context: int = 0
    _in_command: bool = False
    _data_context: int = 0

    def feed(self, data: bytes) -> None:
        """Read what has come."""
        self._rest += data
        while len(self._rest) >= 6:
            kind, length = struct.unpack_from(">BxI", self._rest)
            _need(1 <= kind <= 7, f"PDU type {kind}")
            _need(length <= 1 << 20, f"a PDU of {length} bytes")
            if len(self._rest) < 6 + length:
                return
            body, self._rest = self._rest[6 : 6 + length], self._rest[6 + length :]
            self._pdu(kind, body)

    def close(self) -> None:
        """Read the end."""
        _need(not self._rest, f"the connection ended inside a PDU, after {len(self._rest)} bytes of it")

    @property
    def _known(self) -> AbstractSet[str]:
        return frozenset() if self.permitted is None else self.permitted.sop_classes

    def _pdu(self, kind: int, body: bytes) -> None:
        _need(raw.ABORT not in self.kinds, f"PDU type {kind} after an A-ABORT")
        first = not self.kinds
        self.kinds.append(kind)
        match kind:
            case raw.ASSOCIATE_RQ:
                _need(first, "a second A-ASSOCIATE-RQ")
                self._request(body)
            case raw.ASSOCIATE_AC | raw.ASSOCIATE_RJ:
                _need(first and self.permitted is None, f"PDU type {kind} where it has no place")
                _need(kind == raw.ASSOCIATE_AC or len(body) == 4, "A-ASSOCIATE-RJ of another length than 4")
            case raw.P_DATA:
                _need(not first, "P-DATA-TF before an association")
                _need(not {raw.RELEASE_RQ, raw.RELEASE_RP} & set(self.kinds), "P-DATA-TF after a release")
                _need(len(body) <= self.longest, f"P-DATA-TF of {len(body)} bytes, {self.longest} are agreed")
                self._data(body)
            case _:
                _need(len(body) == 4, f"PDU type {kind} of {len(body)} bytes")

    def _request(self, body: bytes) -> None:
        _need(len(body) > 68, "A-ASSOCIATE-RQ without items")
        _need(struct.unpack_from(">H", body)[0] & 1, "not protocol version 1")
        for title in (body[4:20], body[20:36]):
            _need(title.strip() and all(0x20 <= byte < 0x7F and byte != 0x5C for byte in title), f"title {title!r}")
        items = _items(body[68:])
        kinds = [kind for kind, _ in items]
        _need(kinds.count(0x10) == 1 and kinds.count(0x50) == 1 and kinds.count(0x20), f"items {kinds}")
        for kind, content in items:
            if kind == 0x20:
                self._context(content)
            elif kind == 0x50:
                _need(all(each in range(0x51, 0x5A) for each, _ in _items(content)), "an unknown user item")
        if self.permitted is not None:
            calling = body[20:36].decode().strip()
            _need(calling in self.permitted.titles, f"calling AE title {calling!r}")

    def _context(self, content: bytes) -> None:
        _need(len(content) > 4 and content[0] % 2 == 1, "a presentation context without an odd ID")
        _need(content[0] not in self.contexts, f"presentation context {content[0]} twice")
        inner = _items(content[4:])
        kinds = [kind for kind, _ in inner]
        _need(kinds.count(0x30) == 1 and kinds.count(0x40) == len(kinds) - 1 >= 1, f"syntaxes {kinds}")
        uids = [_uid(data, "a syntax", self._known) for kind, data in inner]
        self.contexts[content[0]] = next(uid for (kind, _), uid in zip(inner, uids, strict=True) if kind == 0x30)
        if self.permitted is not None:
            abstract = self.contexts[content[0]]
            _need(abstract in self.permitted.sop_classes, f"SOP class {abstract} is not permitted")

    def _data(self, body: bytes) -> None:
        _need(body, "a P-DATA-TF without a PDV")
        while body:
            _need(len(body) >= 6, "less than a PDV's header")
            length, context_id, flags = struct.unpack_from(">IBB", body)
            _need(2 <= length <= len(body) - 4, f"a PDV of {length} bytes in {len(body)}")
            _need(flags < 4, f"message control header {flags}")
            if self.contexts:
                _need(context_id in self.contexts, f"presentation context {context_id}")
            self._fragment(context_id, bool(flags & 1), bool(flags & 2), body[6 : 4 + length])
            body = body[4 + length :]

    def _fragment(self, context_id: int, is_command: bool, is_last: bool, data: bytes) -> None:
        if not is_command:
            _need(self._data_context == context_id, f"data in context {context_id} that no command has announced")
            if is_last:
                self._data_context = 0
            return
        _need(not self._data_context, "a command inside a data set")
        _need(not self._in_command or self._command_context == context_id, "two commands interleaved")
        self._in_command, self._command_context = True, context_id
        self._command += data
        if is_last:
            if self._has_data_set(context_id):
                self._data_context = context_id
            self._command, self._in_command = b"", False

    def _has_data_set(self, context_id: int) -> bool:
        values: dict[int, bytes] = {}
        rest, before = self._command, -1
        while rest:
            _need(len(rest) >= 8, "less than an element of a command set")
            group, element, length = struct.unpack_from("<HHI", rest)
            _need(group == 0 and element > before, f"element ({group:04X},{element:04X}) in a command set")
            _need(length % 2 == 0 and length <= len(rest) - 8, f"element {element:04X} of {length} bytes")
            values[element], before = rest[8 : 8 + length], element
            rest = rest[8 + length :]
        _need(int.from_bytes(values.get(0, b""), "little") == len(self._command) - 12, "a wrong group length")
        field_ = int.from_bytes(values.get(raw.COMMAND_FIELD, b""), "little")
        if self.permitted is not None:
            _need(field_ in self.permitted.commands or field_ & raw.RESPONSE, f"command {field_:04X}")
        sop_class = values.get(raw.AFFECTED_SOP_CLASS_UID)
        if sop_class is not None and self.contexts:
            _uid(sop_class, "the affected SOP class", self._known)
            if field_ == raw.C_STORE:
                _need(
                    _uid(sop_class, "", self._known) == self.contexts[context_id],
                    "another SOP class than its context's",
                )
        return int.from_bytes(values.get(raw.DATA_SET_TYPE, b"\1\1"), "little") != raw.NO_DATA_SET


class Tap:
    """Forwards connections to an archive and reads what goes there; context manager."""

    def __init__(self, permitted: Permitted, *, address: str = LOOPBACK) -> None:
        self._permitted = permitted
        self._listener = socket.create_server((address, 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.target = 0
        self.breaches: list[str] = []
        self.associations = 0
        # A test may cut what is open, or hold everything back by this many seconds.
        self.delay = 0.0
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "Tap":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=10)

    def cut(self, how: int = socket.SHUT_RDWR) -> None:
        """Cut the connections that are open, or only one direction of each."""
        for each in self._open[-64:]:
            with contextlib.suppress(OSError):
                each.shutdown(how)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                archive = socket.create_connection((LOOPBACK, self.target), timeout=10)
            except OSError:
                client.close()
                continue
            for each in (client, archive):
                each.settimeout(None)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.associations += 1
            self._open = [each for each in self._open if each.fileno() >= 0] + [client, archive]
            reader = StrictReader(self._permitted)
            threading.Thread(target=self._pass, args=(client, archive, reader), daemon=True).start()
            threading.Thread(target=self._pass, args=(archive, client, None), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, reader: StrictReader | None) -> None:
        try:
            while data := source.recv(65536):
                if reader is not None:
                    reader.feed(data)
                if self.delay:
                    time.sleep(self.delay)
                target.sendall(data)
            if reader is not None:
                reader.close()
        except Breach as breach:
            self.breaches.append(str(breach))
        except OSError:
            pass
        finally:
            for each in (source, target):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            if reader is not None:
                source.close()
                target.close()
