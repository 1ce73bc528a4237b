"""A family of abuse whose answers are known: the abort, the rejection or the status of PS3.8 and PS3.7 for each.

Some of it is odd and allowed: it has to be answered as if it were not odd.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.abuse.association_cases import USER, context, item, request
from tests.abuse.hold import CT, Case, Hold
from tests.real import raw_peer as raw
from tests.real.recording_archive import STUDY_FIND, VERIFICATION
from tests.real.samples import sample

Element = tuple[int, int, bytes]
_ECHOED, _STORED = "RSP 8030 1 0000", "RSP 8001 1 0000"
_MALFORMED, _OUT_OF_PLACE = "ABORT 2/6 | EOF", "ABORT 2/2 | EOF"
_UNKNOWN, _UNASKED = "ABORT 2/1 | EOF", "ABORT 2/5 | EOF"
_RELEASED = "RELEASE-RP | EOF"
_APPLICATION = item(0x10, b"1.2.840.10008.3.1.1.1")
_DATA = CT.data_set


@dataclass(frozen=True, slots=True)
class Answered:
    """What is said, on an association or in place of one, and how it is answered; each part is written on its own."""

    says: Callable[[Hold], Sequence[bytes]]
    answer: str
    associated: bool = True

    def case(self) -> Case:
        """Return it as a case that only has to be survived."""

        def case(hold: Hold) -> None:
            held = hold.associated() if self.associated else hold.open()
            for part in self.says(hold):
                held.send(part)
            held.receive()

        return case


def _on(answer: str, *data: bytes) -> Answered:
    return Answered(lambda _: [b"".join(data)], answer)


def _asks(answer: str, **options: bytes | int) -> Answered:
    return Answered(lambda hold: [request(hold, **options)], answer, associated=False)  # type: ignore[arg-type]


def _user(answer: str, items: bytes) -> Answered:
    return _asks(answer, user=item(0x50, items))


def _set(elements: Sequence[Element], *, group_length: int | None = None) -> bytes:
    body = b"".join(struct.pack("<HHI", *number, len(value)) + value for *number, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body) if group_length is None else group_length) + body


def _number(value: int) -> bytes:
    return struct.pack("<H", value)


def _uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def _echo(sop_class: bytes = _uid(VERIFICATION), message_id: int = 1) -> list[Element]:
    return [(0, 2, sop_class), (0, 0x100, _number(0x30)), (0, 0x110, _number(message_id)), (0, 0x800, _number(0x101))]


def _store(
    *, message_id: int = 1, priority: bytes = b"\0\0", data_set: int = 1, sop_class: str = "", instance: bytes = b""
) -> list[Element]:
    return [
        (0, 2, _uid(sop_class or CT.sop_class_uid)),
        (0, 0x100, _number(1)),
        (0, 0x110, _number(message_id)),
        (0, 0x700, priority),
        (0, 0x800, _number(data_set)),
        (0, 0x1000, instance or _uid(CT.sop_instance_uid)),
    ]


def _pdv(context_id: int, flags: int, data: bytes) -> bytes:
    return struct.pack(">IBB", len(data) + 2, context_id, flags) + data


def _pdu(*pdvs: bytes, reserved: int = 0, more: int = 0) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BBI", raw.P_DATA, reserved, len(body) + more) + body


def _command(context_id: int, elements: Sequence[Element], **options: int) -> bytes:
    return _pdu(_pdv(context_id, 3, _set(elements, **options)))


def _image(size: int = 9000, *, flags: int = 2, reserved: int = 0) -> bytes:
    return b"".join(
        _pdu(_pdv(3, flags if at + size >= len(_DATA) else flags & ~2, _DATA[at : at + size]), reserved=reserved)
        for at in range(0, len(_DATA), size)
    )


def _in_records(size: int, data: bytes, answer: str) -> Answered:
    """Say it in TLS records of so many bytes."""
    return Answered(lambda _: [data[at : at + size] for at in range(0, len(data), size)], answer)


def _long_command(size: int) -> bytes:
    """Return a C-ECHO-RQ of exactly that many bytes, with an element that nobody knows."""
    whole = _set([*_echo(), (0, 0x9000, bytes(size - len(_set(_echo())) - 8))])
    starts = range(0, size, 16000)
    return b"".join(_pdu(_pdv(1, 3 if at + 16000 >= size else 1, whole[at : at + 16000])) for at in starts)


def _of_length(hold: Hold, size: int) -> bytes:
    """Return an A-ASSOCIATE-RQ whose body has exactly that many bytes, of items that nobody knows."""
    left = size - (len(request(hold)) - 6)
    items = []
    while left:
        part = left if left <= 60000 else min(left - 4, 60000)
        items.append(item(0x99, bytes(part - 4)))
        left -= part
    return request(hold, more=b"".join(items))


_E, _S = _set(_echo()), _command(3, _store())
_RELEASE = raw.pdu(raw.RELEASE_RQ, bytes(4))
_CANCEL: list[Element] = [(0, 0x100, _number(raw.C_CANCEL)), (0, 0x120, _number(1)), (0, 0x800, _number(0x101))]
_OTHER_CLASS = sample("MR_small.dcm").sop_class_uid


def _identity(kind: int) -> bytes:
    secondary = b"\0\4pass" if kind == 2 else b"\0\0"
    return USER + item(0x58, struct.pack(">BBH", kind, 1, 60000) + b"u" * 60000 + secondary)


def _maximum(length: int) -> bytes:
    return item(0x51, struct.pack(">I", length)) + item(0x52, b"1.2")


ANSWERED: dict[str, Answered] = {
    # framing
    "pdu-that-ends-in-the-next-one": _on(_MALFORMED, _pdu(_pdv(1, 3, _E), more=1), _command(1, _echo())),
    "pdu-that-ends-inside-its-pdv": _on(_MALFORMED, _pdu(_pdv(1, 3, _E), more=-1)),
    "pdu-of-five-bytes": _on(_MALFORMED, _pdu(b"\0\0\0\2\1")),
    **{
        f"type-{kind:02x}": _on(_UNKNOWN, struct.pack(">BBI", kind, 0, 4) + bytes(4))
        for kind in (0x00, 0x08, 0x14, 0x40, 0x80, 0xFF)
    },
    "ten-echoes-in-one-record": _on(
        " | ".join(f"RSP 8030 {number} 0000" for number in range(1, 11)),
        *(_command(1, _echo(message_id=number)) for number in range(1, 11)),
    ),
    "echo-in-records-of-one-byte": _in_records(1, _command(1, _echo()), _ECHOED),
    # An archive of DCMTK's ends at a fragment of odd length.
    "image-in-records-of-five-bytes": _in_records(5, _S + _image(16000), _STORED),
    "image-in-records-of-3001-bytes": _in_records(3001, _S + _image(16000), _STORED),
    "empty-fragments-in-an-image": _on(_STORED, _S, _image(flags=0), _pdu(_pdv(3, 0, b"")) * 3, _pdu(_pdv(3, 2, b""))),
    "command-that-ends-empty": _on(_ECHOED, _pdu(_pdv(1, 1, _E)), _pdu(_pdv(1, 3, b""))),
    "command-that-begins-empty": _on(_ECHOED, _pdu(_pdv(1, 1, b""), _pdv(1, 3, _E))),
    "command-of-a-context-that-was-rejected": _on(_MALFORMED, _command(5, _echo(_uid(STUDY_FIND)))),
    "command-and-data-in-one-pdu": _on(_STORED, _pdu(_pdv(3, 3, _set(_store())), _pdv(3, 0, b"")), _image()),
    "command-fragment-behind-data": _on(_OUT_OF_PLACE, _S, _pdu(_pdv(3, 0, _DATA[:5000]), _pdv(3, 1, _E))),
    "data-behind-half-a-command": _on(_OUT_OF_PLACE, _pdu(_pdv(3, 1, _set(_store()))), _image()),
    "data-without-a-command": _on(_OUT_OF_PLACE, _image()),
    "release-inside-a-command": _on(_OUT_OF_PLACE, _pdu(_pdv(1, 1, _E[:20])), _RELEASE),
    "release-before-the-data": _on(_OUT_OF_PLACE, _S, _RELEASE),
    "release-of-five-bytes": _on(_MALFORMED, raw.pdu(raw.RELEASE_RQ, bytes(5))),
    "release-with-reserved-bytes": _on(_RELEASED, struct.pack(">BBI", raw.RELEASE_RQ, 0xAA, 4) + b"\xff" * 4),
    "echo-and-release-at-once": _on(f"{_ECHOED} | {_RELEASED}", _command(1, _echo()), _RELEASE),
    "image-and-release-at-once": _on(f"{_STORED} | {_RELEASED}", _S, _image(), _RELEASE),
    "reserved-byte-of-a-pdu": _on(_STORED, _S, _image(reserved=0x7F)),
    "reserved-bits-of-control-headers": _on(_STORED, _pdu(_pdv(3, 0xFF, _set(_store()))), _image(flags=0xFE)),
    # command sets
    "store-without-a-data-set": _on(_MALFORMED, _command(3, _store(data_set=raw.NO_DATA_SET))),
    "echo-with-a-data-set": _on(_MALFORMED, _command(1, [*_echo()[:3], (0, 0x800, b"\1\0")]), _pdu(_pdv(1, 2, b"ab"))),
    **{
        f"data-set-type-{kind:04x}": _on(_STORED, _command(3, _store(data_set=kind)), _image())
        for kind in (0x0000, 0x0102, 0xFFFF)
    },
    "group-length-of-0": _on(_ECHOED, _command(1, _echo(), group_length=0)),
    "group-length-of-4-gibibytes": _on(_ECHOED, _command(1, _echo(), group_length=0xFFFFFFFF)),
    "group-length-at-the-end": _on(_MALFORMED, _pdu(_pdv(1, 3, _E[12:] + _E[:12]))),
    "uid-padded-with-a-blank": _on(_ECHOED, _command(1, _echo(VERIFICATION.encode() + b" "))),
    "uid-of-odd-length": _on(_ECHOED, _command(1, _echo(VERIFICATION.encode()))),
    "uid-behind-a-blank": _on(_MALFORMED, _command(1, _echo(b" " + VERIFICATION.encode()))),
    "uid-with-a-zero-byte-inside": _on(_MALFORMED, _command(1, _echo(b"1.2.840\0.10008.1.1"))),
    "instance-of-high-bytes": _on(_MALFORMED, _command(3, _store(instance=b"1.2.\xff\xfe"))),
    "two-instances": _on(_MALFORMED, _command(3, _store(instance=b"1.2\\1.3 "))),
    "instance-of-65-characters": _on(_MALFORMED, _command(3, _store(instance=b"1." + b"2" * 63))),
    "element-out-of-order": _on(_MALFORMED, _command(1, [_echo()[1], _echo()[0], *_echo()[2:]])),
    "elements-that-nobody-knows": _on(_ECHOED, _command(1, [*_echo(), (0, 0x9999, b"xxxx"), (0, 0xFFFF, b"")])),
    "element-of-group-2": _on(_MALFORMED, _command(1, [*_echo(), (2, 0x10, _uid(raw.IMPLICIT))])),
    "two-numbers-for-one": _on(_MALFORMED, _command(1, [*_echo()[:2], (0, 0x110, b"\1\0\2\0"), _echo()[3]])),
    "command-of-64-kibibytes": _on(_ECHOED, _long_command(65536)),
    "command-of-more-than-64-kibibytes": _on(_MALFORMED, _long_command(65538)),
    "priority-of-no-meaning": _on(_STORED, _command(3, _store(priority=b"\3\0")), _image()),
    "priority-of-nothing": _on(_STORED, _command(3, _store(priority=b"")), _image()),
    "store-of-message-id-0": _on("RSP 8001 0 0000", _command(3, _store(message_id=0)), _image()),
    "store-of-message-id-65535": _on("RSP 8001 65535 0000", _command(3, _store(message_id=65535)), _image()),
    "store-of-another-class": _on("RSP 8001 1 A900", _command(3, _store(sop_class=_OTHER_CLASS)), _image()),
    "answer-that-nobody-waits-for": _on(
        _UNASKED, _command(1, [_echo()[0], (0, 0x100, _number(0x8030)), *_CANCEL[1:], (0, 0x900, b"\0\0")])
    ),
    "cancel-of-an-image": _on(_STORED, _S, _image(), _command(3, _CANCEL)),
    "cancel-without-a-message-id": _on(_MALFORMED, _command(1, [_CANCEL[0], _CANCEL[2]])),
    "cancel-with-a-data-set": _on(_MALFORMED, _command(1, [*_CANCEL[:2], (0, 0x800, b"\1\0")])),
    "seventeen-echoes-at-once": _on(
        "ABORT 2/0 | EOF", *(_command(1, _echo(message_id=number)) for number in range(1, 40))
    ),
    # associations
    "application-context-twice": _asks(_UNASKED, application=_APPLICATION * 2),
    "application-context-of-another": _asks("RJ 1/1/2 | EOF", application=item(0x10, b"1.2.3")),
    "version-2-alone": _asks("RJ 1/2/2 | EOF", version=2),
    "version-1-and-2": _asks("AC 1:0", version=3),
    "items-that-nobody-knows": _asks(
        "AC 1:0", application=item(0, b"") + _APPLICATION + item(0xFF, b"zz"), more=item(0x99, bytes(1000))
    ),
    "context-without-a-transfer-syntax": _asks(_MALFORMED, contexts=context(1) + context(3, transfer=())),
    "context-longer-than-the-pdu": _asks(_MALFORMED, more=item(0x20, b"\3\0\0\0", length=60000)),
    "user-information-twice": _asks(_UNASKED, more=item(0x50, USER)),
    "role-of-a-class-that-nobody-asked-for": _user("AC 1:0", USER + item(0x54, b"\0\x051.2.3\1\1")),
    "role-of-a-class-of-letters": _user(_MALFORMED, USER + item(0x54, b"\0\x051.2.x\1\1")),
    **{f"identity-{kind}-of-60000-bytes": _user("RJ 1/2/1 | EOF", _identity(kind)) for kind in range(7)},
    **{f"maximum-of-{size}-bytes": _user("RJ 1/1/1 | EOF", _maximum(size)) for size in (1, 7, 8, 127)},
    **{f"maximum-of-{size}-bytes": _user("AC 1:0", _maximum(size)) for size in (0, 128, 129, 0xFFFFFFFF)},
    "512-user-items": _user("AC 1:0", USER + item(0x5F, b"") * 510),
    "513-user-items": _user(_MALFORMED, USER + item(0x5F, b"") * 511),
    "65-transfer-syntaxes": _asks(_MALFORMED, contexts=context(1, transfer=[b"1.2.3"] * 65)),
    "request-of-128-kibibytes": Answered(lambda hold: [_of_length(hold, 131072)], "AC 1:0", associated=False),
    "request-of-more-than-128-kibibytes": Answered(lambda hold: [_of_length(hold, 131073)], _MALFORMED, False),
}
ANSWERS: dict[str, Case] = {name: each.case() for name, each in ANSWERED.items()}
