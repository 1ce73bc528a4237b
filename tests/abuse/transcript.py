"""What comes over a connection, strictly read, in words: `AC 1:0 3:0`, `RSP 8030 1 0000`, `data`, `RJ 1/1/3`, `EOF`."""

import socket
import struct
import time

from tests.abuse.tap import Breach, StrictReader
from tests.real import raw_peer as raw

PATIENCE = 10.0
_PLAIN = {raw.RELEASE_RQ: "RELEASE-RQ", raw.RELEASE_RP: "RELEASE-RP"}


class Transcript:
    """Reads one connection. What a message asks for or answers is said when its command is whole; `data` ends it."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._reader = StrictReader()
        self._rest = b""
        self._command = b""
        self._events: list[str] = []
        # The last A-ASSOCIATE-RQ or -AC.
        self.associate = raw.Pdu(0, b"")

    def next(self, count: int) -> str:
        """Return the next so many events, fewer if no more come; "BREACH" and why where it is not well-formed."""
        end = time.monotonic() + PATIENCE
        while len(self._events) < count and self._events[-1:] != ["EOF"] and (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                break
            except OSError as error:
                self._events.append(type(error).__name__)
                break
            self._read(data)
        said, self._events = self._events[:count], self._events[count:]
        return " | ".join(said)

    def _read(self, data: bytes) -> None:
        try:
            if data:
                self._reader.feed(data)
            else:
                self._reader.close()
        except Breach as breach:
            self._events.append(f"BREACH {breach}")
        if not data:
            self._events.append("EOF")
        self._rest += data
        while len(self._rest) >= 6:
            kind, length = struct.unpack_from(">BxI", self._rest)
            if len(self._rest) < 6 + length:
                return
            body, self._rest = self._rest[6 : 6 + length], self._rest[6 + length :]
            self._pdu(raw.Pdu(kind, body))

    def _pdu(self, pdu: raw.Pdu) -> None:
        match pdu.kind:
            case raw.ASSOCIATE_AC:
                self.associate = pdu
                contexts = [content for kind, content in raw.items_of(pdu.body[68:]) if kind == 0x21]
                self._events.append(" ".join(["AC", *(f"{each[0]}:{each[2]}" for each in contexts)]))
            case raw.ASSOCIATE_RQ:
                self.associate = pdu
                self._events.append("RQ")
            case raw.ASSOCIATE_RJ:
                self._events.append(f"RJ {pdu.numbers}")
            case raw.ABORT:
                self._events.append(f"ABORT {pdu.body[2]}/{pdu.body[3]}")
            case raw.P_DATA:
                for _, is_command, is_last, fragment in raw.fragments_of([pdu]):
                    self._fragment(fragment, is_command=is_command, is_last=is_last)
            case _:
                self._events.append(_PLAIN[pdu.kind])

    def _fragment(self, fragment: bytes, *, is_command: bool, is_last: bool) -> None:
        self._command += fragment if is_command else b""
        if not is_last:
            return
        if not is_command:
            self._events.append("data")
            return
        values = raw.decode_command_set(self._command)
        self._command = b""
        field = int(values[raw.COMMAND_FIELD])
        if field & raw.RESPONSE:
            said = f"RSP {field:04X} {values[raw.MESSAGE_ID_RESPONDED_TO]} {values[raw.STATUS]:04X}"
        else:
            said = f"REQ {field:04X} {values.get(raw.MESSAGE_ID, values.get(raw.MESSAGE_ID_RESPONDED_TO))}"
        self._events.append(said)
