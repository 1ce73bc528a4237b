"""Families of abuse that end with the A-ASSOCIATE-RQ: framing, and its items."""

import struct
from collections.abc import Callable, Sequence

from tests.abuse.hold import CT, Case, Hold
from tests.real import raw_peer as raw

_APPLICATION = "1.2.840.10008.3.1.1.1"
_VERIFICATION = "1.2.840.10008.1.1"


def item(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """Encode an item, with a length that may lie."""
    return struct.pack(">BBH", kind, 0, len(body) if length is None else length) + body


def context(
    number: int = 1,
    abstract: Sequence[bytes] = (_VERIFICATION.encode(),),
    transfer: Sequence[bytes] = (raw.IMPLICIT.encode(),),
    **options: int,
) -> bytes:
    """Encode a presentation context item with any number of syntaxes."""
    syntaxes = b"".join(item(0x30, each) for each in abstract) + b"".join(item(0x40, each) for each in transfer)
    return item(0x20, struct.pack(">B3x", number) + syntaxes, **options)


USER = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.826.0.1.3680043.10.543.1")


def request(
    hold: Hold,
    *,
    called: bytes | None = None,
    calling: bytes | None = None,
    version: int = 1,
    application: bytes = item(0x10, _APPLICATION.encode()),
    contexts: bytes | None = None,
    user: bytes | None = None,
    more: bytes = b"",
) -> bytes:
    """Encode an A-ASSOCIATE-RQ whose every part may be wrong."""
    titles = (
        (hold.route.called_ae_title.encode().ljust(16) if called is None else called),
        (hold.route.calling_ae_title.encode().ljust(16) if calling is None else calling),
    )
    body = struct.pack(">HH", version, 0) + b"".join(titles) + bytes(32) + application
    body += context() if contexts is None else contexts
    body += item(0x50, USER) if user is None else user
    return raw.pdu(raw.ASSOCIATE_RQ, body + more)


def _bytes(data: bytes) -> Case:
    def case(hold: Hold) -> None:
        held = hold.open()
        held.send(data)
        held.receive()

    return case


def _asked(make: Callable[[Hold], bytes]) -> Case:
    def case(hold: Hold) -> None:
        held = hold.open()
        held.send(make(hold))
        held.receive()

    return case


def _user(items: bytes) -> Case:
    return _asked(lambda hold: request(hold, user=item(0x50, items)))


def _contexts(items: bytes) -> Case:
    return _asked(lambda hold: request(hold, contexts=items))


def _good(hold: Hold) -> bytes:
    return request(hold)


def _header(kind: int, length: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBI", kind, 0, length) + body


FRAMING: dict[str, Case] = {
    "nothing-at-all": _bytes(b""),
    "one-byte": _bytes(b"\1"),
    "five-bytes-of-a-header": _bytes(b"\1\0\0\0\0"),
    "header-alone": _asked(lambda hold: _good(hold)[:6]),
    "half-a-request": _asked(lambda hold: _good(hold)[:80]),
    "all-but-the-last-byte": _asked(lambda hold: _good(hold)[:-1]),
    "length-one-too-large": _asked(lambda hold: _header(1, len(_good(hold)) - 5, _good(hold)[6:])),
    "length-one-too-small": _asked(lambda hold: _header(1, len(_good(hold)) - 7, _good(hold)[6:])),
    "length-zero": _bytes(_header(1, 0)),
    "length-67": _bytes(_header(1, 67, bytes(67))),
    "length-68-of-zeros": _bytes(_header(1, 68, bytes(68))),
    "length-1-mebibyte-unsent": _bytes(_header(1, 1 << 20)),
    "length-256-mebibytes-unsent": _bytes(_header(1, 1 << 28)),
    "length-4-gibibytes-unsent": _bytes(_header(1, 0xFFFFFFFF)),
    "length-4-gibibytes-and-a-request": _asked(lambda hold: _header(1, 0xFFFFFFFF, _good(hold)[6:])),
    "megabyte-of-zeros": _bytes(bytes(1 << 20)),
    "megabyte-of-ones": _bytes(b"\xff" * (1 << 20)),
    "type-0": _bytes(_header(0, 4, bytes(4))),
    "type-8": _bytes(_header(8, 4, bytes(4))),
    "type-255": _bytes(_header(255, 4, bytes(4))),
    "accept-first": _bytes(_header(2, 68, bytes(68))),
    "reject-first": _bytes(_header(3, 4, b"\0\1\1\1")),
    "data-first": _bytes(raw.p_data(1, b"data", command=True)),
    "release-first": _bytes(_header(5, 4, bytes(4))),
    "release-reply-first": _bytes(_header(6, 4, bytes(4))),
    "abort-first": _bytes(_header(7, 4, bytes(4))),
    "abort-with-a-body-of-64-kibibytes": _bytes(_header(7, 65536, bytes(65536))),
    "thousand-bogus-headers": _bytes(_header(0x99, 0) * 1000),
    "http-get": _bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "ssh-banner": _bytes(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "proxy-protocol-nobody-asked-for": _bytes(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
    "smb-negotiate": _bytes(b"\0\0\0\x54\xffSMBr" + bytes(80)),
}

_LONG_UID = b"1." + b"2" * 300


def _role(scu: int, scp: int) -> bytes:
    return item(0x54, struct.pack(">H", 17) + _VERIFICATION.encode() + bytes([scu, scp]))


ITEMS: dict[str, Case] = {
    "version-0": _asked(lambda hold: request(hold, version=0)),
    "version-2": _asked(lambda hold: request(hold, version=2)),
    "version-65535": _asked(lambda hold: request(hold, version=0xFFFF)),
    "called-title-of-blanks": _asked(lambda hold: request(hold, called=b" " * 16)),
    "called-title-of-zeros": _asked(lambda hold: request(hold, called=bytes(16))),
    "called-title-unknown": _asked(lambda hold: request(hold, called=b"NOBODY".ljust(16))),
    "called-title-of-control-characters": _asked(
        lambda hold: request(hold, called=b"\n\r\t\x1b[2J\0\x07\x08".ljust(16))
    ),
    "calling-title-of-blanks": _asked(lambda hold: request(hold, calling=b" " * 16)),
    "calling-title-of-zeros": _asked(lambda hold: request(hold, calling=bytes(16))),
    "calling-title-of-high-bytes": _asked(lambda hold: request(hold, calling=b"\xff" * 16)),
    "calling-title-with-backslash": _asked(lambda hold: request(hold, calling=b"A\\B".ljust(16))),
    "calling-title-with-sql": _asked(lambda hold: request(hold, calling=b"' OR 1=1; --".ljust(16))),
    "calling-title-with-json": _asked(lambda hold: request(hold, calling=b'","x":"\n{'.ljust(16))),
    "calling-title-with-a-zero-inside": _asked(lambda hold: request(hold, calling=b"GOOD\0EVIL".ljust(16))),
    "calling-title-of-somebody-else": _asked(lambda hold: request(hold, calling=b"GOOD".ljust(16))),
    "calling-title-in-small-letters": _asked(
        lambda hold: request(hold, calling=hold.route.calling_ae_title.lower().encode().ljust(16))
    ),
    "called-title-of-the-caller": _asked(
        lambda hold: request(hold, called=hold.route.calling_ae_title.encode().ljust(16))
    ),
    "no-application-context": _asked(lambda hold: request(hold, application=b"")),
    "two-application-contexts": _asked(lambda hold: request(hold, application=item(0x10, b"1.2") * 2)),
    "other-application-context": _asked(lambda hold: request(hold, application=item(0x10, b"1.2.3"))),
    "empty-application-context": _asked(lambda hold: request(hold, application=item(0x10, b""))),
    "no-contexts": _contexts(b""),
    "no-user-information": _asked(lambda hold: request(hold, user=b"")),
    "two-user-informations": _asked(lambda hold: request(hold, user=item(0x50, USER) * 2)),
    "empty-user-information": _user(b""),
    "unknown-item-at-the-end": _asked(lambda hold: request(hold, more=item(0x77, b"?" * 40))),
    "item-longer-than-the-pdu": _asked(lambda hold: request(hold, more=item(0x20, b"", length=0xFFFF))),
    "three-bytes-at-the-end": _asked(lambda hold: request(hold, more=b"\x20\0\0")),
    "thousand-unknown-items": _asked(lambda hold: request(hold, more=item(0x77, b"") * 1000)),
    "items-in-reverse-order": _asked(
        lambda hold: request(hold, application=item(0x50, USER), user=item(0x10, _APPLICATION.encode()))
    ),
    "maximum-length-0": _user(item(0x51, bytes(4)) + item(0x52, b"1.2")),
    "maximum-length-1": _user(item(0x51, b"\0\0\0\1") + item(0x52, b"1.2")),
    "maximum-length-7": _user(item(0x51, b"\0\0\0\7") + item(0x52, b"1.2")),
    "maximum-length-4-gibibytes": _user(item(0x51, b"\xff" * 4) + item(0x52, b"1.2")),
    "maximum-length-of-two-bytes": _user(item(0x51, b"\x40\0") + item(0x52, b"1.2")),
    "maximum-length-twice": _user(USER + item(0x51, b"\0\0\x40\0")),
    "no-maximum-length": _user(item(0x52, b"1.2")),
    "no-implementation-class": _user(item(0x51, b"\0\0\x40\0")),
    "implementation-class-of-300-digits": _user(item(0x51, b"\0\0\x40\0") + item(0x52, _LONG_UID)),
    "implementation-version-of-60000-bytes": _user(USER + item(0x55, b"V" * 60000)),
    "implementation-version-of-control-characters": _user(USER + item(0x55, b"\x1b]0;owned\x07")),
    "window-0-0": _user(USER + item(0x53, bytes(4))),
    "window-65535": _user(USER + item(0x53, b"\xff" * 4)),
    "window-of-one-byte": _user(USER + item(0x53, b"\1")),
    "window-twice": _user(USER + item(0x53, b"\0\1\0\1") * 2),
    "role-of-no-context": _user(USER + item(0x54, struct.pack(">H", 3) + b"1.2" + b"\1\1")),
    "role-with-a-length-that-lies": _user(USER + item(0x54, b"\xff\xff1.2\1\1")),
    "role-of-value-7": _user(USER + item(0x54, struct.pack(">H", 17) + _VERIFICATION.encode() + b"\7\7")),
    "role-twice-and-not-the-same": _user(USER + _role(1, 0) + _role(0, 1)),
    "role-200-times": _user(USER + _role(1, 1) * 200),
    "role-of-nothing": _user(USER + _role(0, 0)),
    "role-of-an-empty-class": _user(USER + item(0x54, b"\0\0\1\1")),
    "role-without-its-last-byte": _user(USER + item(0x54, struct.pack(">H", 17) + _VERIFICATION.encode() + b"\1")),
    "ten-thousand-roles": _user(USER + item(0x54, struct.pack(">H", 3) + b"1.2" + b"\1\1") * 5000),
    "extended-negotiation-that-lies": _user(USER + item(0x56, b"\xff\xff1.2")),
    "extended-negotiation-of-50000-bytes": _user(USER + item(0x56, struct.pack(">H", 3) + b"1.2" + bytes(50000))),
    "common-extended-negotiation-that-lies": _user(USER + item(0x57, b"\0\x031.2\0\x031.3\xff\xff")),
    "extended-negotiation-twice": _user(USER + item(0x56, struct.pack(">H", 17) + _VERIFICATION.encode() + b"\1") * 2),
    "extended-negotiation-of-nothing": _user(USER + item(0x56, b"")),
    "common-extended-negotiation-twice": _user(
        USER + item(0x57, struct.pack(">H", 17) + _VERIFICATION.encode() + b"\0\x031.2\0\0") * 2
    ),
    "common-extended-negotiation-of-thousand-classes": _user(
        USER
        + item(
            0x57,
            struct.pack(">H", 17)
            + _VERIFICATION.encode()
            + b"\0\x031.2"
            + struct.pack(">H", 5000)
            + b"\0\x031.2" * 1000,
        )
    ),
    "implementation-class-twice": _user(USER + item(0x52, b"1.2.3")),
    "implementation-version-twice": _user(USER + item(0x55, b"ONE") + item(0x55, b"TWO")),
    "implementation-version-empty": _user(USER + item(0x55, b"")),
    "every-user-item-100-times": _user(
        (USER + item(0x53, b"\0\1\0\1") + _role(1, 1) + item(0x55, b"V") + item(0x58, b"\1\0\0\1u\0\0")) * 100
    ),
    "thousand-unknown-user-items": _user(USER + item(0x5F, b"") * 1000),
    "user-item-of-a-type-from-the-association": _user(USER + item(0x20, b"\1\0\0\0") + item(0x50, USER)),
    "user-information-of-65535-bytes": _user((USER + item(0x5F, bytes(65500)))[:65535]),
    "identity-of-type-0": _user(USER + item(0x58, b"\0\0\0\0\0\0")),
    "identity-of-type-255": _user(USER + item(0x58, b"\xff\1\0\1x\0\0")),
    "identity-with-a-length-that-lies": _user(USER + item(0x58, b"\1\1\xff\xffuser\0\0")),
    "identity-of-60000-bytes": _user(USER + item(0x58, struct.pack(">BBH", 2, 1, 60000) + b"u" * 60000 + b"\0\1p")),
    "identity-saml-billion-laughs": _user(
        USER
        + item(
            0x58, struct.pack(">BBH", 4, 1, 63) + b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>&c;    \0\0'
        )
    ),
    "identity-twice": _user(USER + item(0x58, b"\1\0\0\1u\0\0") * 2),
    "identity-response-in-a-request": _user(USER + item(0x59, b"\0\1x")),
    "user-item-of-the-future": _user(USER + item(0x5F, b"future" * 10)),
    "user-item-longer-than-its-parent": _user(USER + item(0x51, b"\0", length=0x7FFF)),
}

CONTEXT_CASES: dict[str, Case] = {
    "context-id-0": _contexts(context(0)),
    "context-id-even": _contexts(context(2)),
    "all-even-context-ids": _contexts(b"".join(context(number) for number in range(0, 256, 2))),
    "context-id-twice": _contexts(context(1) + context(1)),
    "same-context-id-200-times": _contexts(context(1) * 200),
    "128-contexts": _contexts(b"".join(context(number) for number in range(1, 256, 2))),
    "129-contexts": _contexts(b"".join(context(number) for number in range(1, 256, 2)) + context(1)),
    "1500-contexts": _contexts(context(1) * 1500),
    "20000-contexts": _contexts(context(1) * 20000),
    "128-contexts-of-60-transfer-syntaxes": _contexts(
        b"".join(context(number, transfer=[b"1.2.840.10008.1.2"] * 60) for number in range(1, 256, 2))
    ),
    "same-context-id-for-two-classes": _contexts(context(1) + context(1, abstract=(b"1.2.840.10008.5.1.4.1.1.2",))),
    "context-ids-in-reverse-order": _contexts(b"".join(context(number) for number in range(255, 0, -2))),
    "no-abstract-syntax": _contexts(context(1, abstract=())),
    "two-abstract-syntaxes": _contexts(context(1, abstract=(b"1.2.840.10008.1.1", b"1.2.3"))),
    "empty-abstract-syntax": _contexts(context(1, abstract=(b"",))),
    "abstract-syntax-of-letters": _contexts(context(1, abstract=(b"verification",))),
    "abstract-syntax-of-300-digits": _contexts(context(1, abstract=(_LONG_UID,))),
    "abstract-syntax-of-zeros": _contexts(context(1, abstract=(bytes(64),))),
    "abstract-syntax-unknown": _contexts(context(1, abstract=(b"1.2.3.4.5.6",))),
    "abstract-syntax-with-a-leading-zero": _contexts(context(1, abstract=(b"1.02.840.10008.1.1",))),
    "no-transfer-syntax": _contexts(context(1, transfer=())),
    "empty-transfer-syntax": _contexts(context(1, transfer=(b"",))),
    "thousand-transfer-syntaxes": _contexts(context(1, transfer=[b"1.2.840.10008.1.2"] * 1000)),
    "transfer-syntax-unknown": _contexts(context(1, transfer=(b"1.2.3",))),
    "transfer-syntax-of-control-characters": _contexts(context(1, transfer=(b"\n\x1b[31m",))),
    "context-length-0": _contexts(context(1, length=0)),
    "context-length-65535": _contexts(context(1, length=0xFFFF)),
    "context-length-one-too-small": _contexts(context(1, length=42)),
    "context-of-four-bytes": _contexts(item(0x20, b"\1\0\0\0")),
    "context-of-one-byte": _contexts(item(0x20, b"\1")),
    "accept-item-in-a-request": _contexts(item(0x21, b"\1\0\0\0" + item(0x40, b"1.2.840.10008.1.2"))),
    "interleaved-syntaxes": _contexts(
        item(0x20, b"\1\0\0\0" + (item(0x40, b"1.2.840.10008.1.2") + item(0x30, CT.sop_class_uid.encode())) * 50)
    ),
}
