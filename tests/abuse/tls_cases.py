"""The family of abuse of the TLS layer: broken records, ClientHellos that lie, certificates of strangers, odd ends."""

import contextlib
import os
import ssl
import struct
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping

from tests.abuse.hold import CT, Case, Held, Hold
from tests.abuse.strange_certificates import STRANGE
from tests.real import raw_peer as raw
from tests.real.processes import LOOPBACK
from tests.real.recording_archive import VERIFICATION

ECHO_ALONE: raw.Contexts = {1: (VERIFICATION, [raw.IMPLICIT])}
SERVER_NAME, ALPN, SUPPORTED_VERSIONS, KEY_SHARE, PSK_MODES = 0, 16, 43, 51, 45
_EARLY_DATA, _PRE_SHARED_KEY, _POST_HANDSHAKE_AUTH = 42, 41, 49
# Between two commands for OpenSSL's client, which takes only one from each read.
_PAUSE = 0.005


def hello(*, change: Mapping[int, bytes] | None = None, more: bytes = b"", suites: bytes = b"") -> bytes:
    """Return a ClientHello as OpenSSL says it, with some of its extensions changed and bytes behind them."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    said = outgoing.read()
    if change is None and not more and not suites:
        return said
    body = said[9:]
    at = 34 + 1 + body[34]
    fixed, at = body[:at], at + 2 + int.from_bytes(body[at : at + 2], "big")
    own_suites, compression = body[len(fixed) : at], body[at : at + 1 + body[at]]
    at += len(compression) + 2
    extensions = b""
    while at < len(body):
        kind, length = struct.unpack_from(">HH", body, at)
        data = (change or {}).get(kind, body[at + 4 : at + 4 + length])
        extensions += extension(kind, data)
        at += 4 + length
    extensions += more
    chosen = own_suites if not suites else struct.pack(">H", len(suites)) + suites
    whole = fixed + chosen + compression + struct.pack(">H", len(extensions) & 0xFFFF) + extensions
    return records(b"\1" + len(whole).to_bytes(3, "big") + whole)


def extension(kind: int, data: bytes) -> bytes:
    """Encode an extension of a ClientHello."""
    return struct.pack(">HH", kind, len(data)) + data


def records(handshake: bytes, *, size: int = 16384) -> bytes:
    """Put a handshake message into records of at most `size` bytes."""
    parts = [handshake[at : at + size] for at in range(0, len(handshake), size)]
    return b"".join(struct.pack(">BHH", 22, 0x0301, len(part)) + part for part in parts)


def _plain(data: Callable[[], bytes], *, answers: int = 1) -> Case:
    def case(hold: Hold) -> None:
        held = hold.plain()
        held.send(data())
        for _ in range(answers):
            held.receive()

    return case


def _changed(change: Mapping[int, bytes], more: bytes = b"", behind: bytes = b"") -> Case:
    return _plain(lambda: hello(change=change, more=more) + behind)


def _version(maximum: ssl.TLSVersion) -> Case:
    def case(hold: Hold) -> None:
        context = _careless()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            # That they are old is the point.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = maximum
        hold.open(context).receive()

    return case


def _careless() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _without_certificate(hold: Hold) -> None:
    held = hold.open(_careless())
    held.send(raw.request_on(hold.route, ECHO_ALONE))
    held.receive()


def _with_certificate(name: str) -> Case:
    def case(hold: Hold) -> None:
        context = _careless()
        # Small keys are refused by the other end, not by this one.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.load_cert_chain(*STRANGE[name](hold.directory()))
        held = hold.open(context)
        held.send(raw.request_on(hold.route, ECHO_ALONE))
        held.receive()

    return case


def _asks_for(*protocols: str, name: str = "localhost") -> Case:
    """Do an association with ALPN and a server name of one's own."""

    def case(hold: Hold) -> None:
        assert hold.context is not None
        hold.context.check_hostname = False
        if protocols:
            hold.context.set_alpn_protocols(list(protocols))
        held = hold.open(name=name)
        held.send(raw.request_on(hold.route, ECHO_ALONE))
        held.pdu()

    return case


def _garbage_inside(hold: Hold) -> None:
    held = hold.open()
    held.send(b"\xff" * 5000)
    held.receive()


def _below(held: Held, data: bytes) -> None:
    """Write bytes on the socket below a TLS connection."""
    with contextlib.suppress(OSError):
        os.write(held.socket.fileno(), data)


def _garbage_beside(hold: Hold) -> None:
    held = hold.open()
    _below(held, b"\x17\x03\x03\x00\x20" + bytes(32))
    held.receive()


def _dicom_without_tls(hold: Hold) -> None:
    held = hold.plain()
    held.send(raw.request_on(hold.route, ECHO_ALONE))
    held.receive()


def _silent_after_handshake(hold: Hold) -> None:
    hold.open()


def _in_single_bytes(hold: Hold) -> None:
    """Say a whole association in TLS records of one byte."""
    held = hold.open()
    for byte in raw.request_on(hold.route, ECHO_ALONE):
        if not held.send(bytes([byte])):
            return
    held.pdu()
    for byte in raw.echo_rq(1, 1):
        held.send(bytes([byte]))
    held.pdu()


def _image_in_single_bytes(hold: Hold) -> None:
    held = hold.associated()
    held.send(raw.store_rq(3, CT.sop_class_uid, CT.sop_instance_uid))
    for byte in raw.p_data(3, CT.data_set[:4000], command=False, last=False):
        if not held.send(bytes([byte])):
            return


def _closes_properly_and_stays(hold: Hold) -> None:
    held = hold.associated()
    _close_notify(held)
    held.receive()


def _close_notify(held: Held) -> None:
    # The peer's own close_notify may not come, and the socket stays open.
    with contextlib.suppress(OSError, ValueError):
        assert isinstance(held.socket, ssl.SSLSocket)
        held.socket.unwrap()


def _close_notify_inside_an_image(hold: Hold) -> None:
    held = hold.associated()
    held.send(raw.store_rq(3, CT.sop_class_uid, CT.sop_instance_uid))
    held.send(raw.p_data(3, CT.data_set[:9000], command=False, last=False))
    _close_notify(held)


def _fin_without_close_notify(hold: Hold) -> None:
    held = hold.associated()
    held.send(raw.store_rq(3, CT.sop_class_uid, CT.sop_instance_uid))
    held.send(raw.p_data(3, CT.data_set[:9000], command=False, last=False))
    # SSLSocket.shutdown ends the TCP connection's half and says nothing in TLS.
    held.half_close()


def _fin_inside_the_handshake(hold: Hold) -> None:
    held = hold.plain()
    held.send(hello())
    held.receive()
    held.half_close()


def _talks_after_close_notify(hold: Hold) -> None:
    held = hold.associated()
    _close_notify(held)
    _below(held, b"\x17\x03\x03\x00\x20" + bytes(32))
    held.receive()


def _resumed(count: int) -> Case:
    """Resume one session again and again, with associations that are left open."""

    def case(hold: Hold) -> None:
        first = hold.associated(ECHO_ALONE)
        assert hold.context is not None
        session = getattr(first.socket, "session", None)
        for _ in range(count):
            held = hold.plain()
            with contextlib.suppress(OSError):
                secure = hold.context.wrap_socket(held.socket, server_hostname="localhost", session=session)
                secure.close()

    return case


def _commands(letter: str, count: int, *options: str) -> Case:
    """Let OpenSSL's client do something `count` times on a connection, by its commands of one letter."""

    def case(hold: Hold) -> None:
        credentials = hold.route.credentials
        assert credentials is not None
        command = ["openssl", "s_client", "-connect", f"{LOOPBACK}:{hold.route.port}", *options]
        command += ["-cert", str(credentials.certificate), "-key", str(credentials.key)]
        command += ["-CAfile", str(credentials.authority)]
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert client.stdin is not None

        def end() -> None:
            client.kill()
            client.communicate()

        hold.over.append(end)
        with contextlib.suppress(OSError):
            for _ in range(count):
                client.stdin.write(f"{letter}\n".encode())
                client.stdin.flush()
                # Its only way to read one command at a time.
                time.sleep(_PAUSE)

    return case


def _alert(description: int) -> Callable[[], bytes]:
    return lambda: bytes([0x15, 3, 3, 0, 2, 2, description])


_FAKE_PSK = extension(PSK_MODES, b"\1\1") + extension(
    _PRE_SHARED_KEY, struct.pack(">HH", 38, 32) + bytes(32) + bytes(4) + struct.pack(">HB", 33, 32) + bytes(32)
)
_EARLY = b"".join(b"\x17\x03\x03" + struct.pack(">H", 16000) + bytes(16000) for _ in range(20))

TLS: dict[str, Case] = {
    "half-a-client-hello": _plain(lambda: hello()[:100], answers=0),
    "client-hello-and-silence": _plain(hello),
    "client-hello-twice": _plain(lambda: hello() * 2),
    "client-hello-in-records-of-one-byte": _plain(lambda: records(hello()[5:], size=1)),
    "client-hello-of-100-kibibytes": _plain(lambda: records(b"\1\1\x90\0" + hello()[9:] + bytes(102400))),
    "client-hello-with-10000-suites": _plain(lambda: hello(suites=b"\x13\x99" * 10000)),
    "client-hello-with-5000-extensions": _plain(
        lambda: hello(more=b"".join(extension(n, b"") for n in range(60, 5060)))
    ),
    "client-hello-with-an-extension-twice": _plain(lambda: hello(more=extension(SUPPORTED_VERSIONS, b"\2\3\4"))),
    "client-hello-with-one-extension-that-lies": _plain(lambda: hello(more=b"\0\x99\xff\xff")),
    "versions-of-the-future": _changed({SUPPORTED_VERSIONS: b"\4\3\5\x7f\xff"}),
    "no-key-share-and-silence": _changed({KEY_SHARE: b"\0\0"}),
    "key-share-of-a-group-that-is-none": _changed({KEY_SHARE: b"\0\x05\x0a\x0a\0\1\0"}),
    "key-share-of-zeros": _changed({KEY_SHARE: b"\0\x24\0\x1d\0\x20" + bytes(32)}),
    "early-data": _changed({}, extension(_EARLY_DATA, b"") + _FAKE_PSK, _EARLY),
    "early-data-without-a-key": _changed({}, extension(_EARLY_DATA, b""), _EARLY),
    "key-that-nobody-shared": _changed({}, _FAKE_PSK),
    "post-handshake-authentication": _changed({}, extension(_POST_HANDSHAKE_AUTH, b"")),
    "server-name-of-nothing": _changed({SERVER_NAME: b""}),
    "server-name-of-no-length": _changed({SERVER_NAME: b"\0\3\0\0\0"}),
    "server-name-of-60000-bytes": _changed({SERVER_NAME: struct.pack(">HBH", 60003, 0, 60000) + b"a" * 60000}),
    "server-name-with-zeros": _changed({SERVER_NAME: b"\0\x0c\0\0\x09local\0ost"}),
    "server-name-of-another-type": _changed({SERVER_NAME: b"\0\x08\x07\0\x05hello"}),
    "server-name-twice": _changed({SERVER_NAME: b"\0\x0c\0\0\3abc\0\0\3abc"}),
    "server-name-of-another-host": _asks_for(name="other.example"),
    "server-name-of-an-address": _asks_for(name="127.0.0.1"),
    "alpn-of-nothing": _changed({}, extension(ALPN, b"")),
    "alpn-of-an-empty-name": _changed({}, extension(ALPN, b"\0\1\0")),
    "alpn-that-lies": _changed({}, extension(ALPN, b"\xff\xff\x02h2")),
    "alpn-of-30000-names": _changed({}, extension(ALPN, struct.pack(">H", 60000) + b"\1a" * 30000)),
    "alpn-of-http": _asks_for("h2", "http/1.1"),
    "alpn-of-255-bytes": _asks_for("x" * 255, "dicom"),
    "record-header-alone": _plain(lambda: b"\x16\x03\x01\x02\x00", answers=0),
    "record-of-65535-bytes": _plain(lambda: b"\x16\x03\x01\xff\xff" + bytes(65535)),
    "record-of-length-0": _plain(lambda: b"\x16\x03\x01\0\0" * 100),
    "client-hello-that-lies": _plain(lambda: b"\x16\x03\x01\x00\x04\x01\xff\xff\xff"),
    "alert-first": _plain(_alert(40)),
    "thousand-warnings": _plain(lambda: bytes([0x15, 3, 3, 0, 2, 1, 90]) * 1000),
    "application-data-first": _plain(lambda: b"\x17\x03\x03\x00\x10" + bytes(16)),
    "change-cipher-spec-storm": _plain(lambda: b"\x14\x03\x03\x00\x01\x01" * 1000),
    "change-cipher-spec-storm-behind-the-hello": _plain(lambda: hello() + b"\x14\x03\x03\x00\x01\x01" * 5000),
    "ssl-2-hello": _plain(lambda: b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40)),
    "heartbeat-that-bleeds": _plain(lambda: hello() + b"\x18\x03\x02\x00\x03\x01\x40\x00"),
    "dicom-without-tls": _dicom_without_tls,
    "tls-1.0": _version(ssl.TLSVersion.TLSv1),
    "tls-1.1": _version(ssl.TLSVersion.TLSv1_1),
    "no-certificate": _without_certificate,
    **{f"certificate: {name}": _with_certificate(name) for name in STRANGE},
    "renegotiation-20-times": _commands("R", 20, "-tls1_2"),
    "key-update-100-times": _commands("k", 100, "-tls1_3"),
    "key-update-asked-for-100-times": _commands("K", 100, "-tls1_3"),
    "session-resumed-40-times": _resumed(40),
    "garbage-inside-tls": _garbage_inside,
    "forged-record-on-a-connection": _garbage_beside,
    "handshake-and-silence": _silent_after_handshake,
    "association-in-records-of-one-byte": _in_single_bytes,
    "image-in-records-of-one-byte": _image_in_single_bytes,
    "end-inside-the-handshake": _fin_inside_the_handshake,
    "end-without-close-notify-inside-an-image": _fin_without_close_notify,
    "close-notify-and-silence": _closes_properly_and_stays,
    "close-notify-inside-an-image": _close_notify_inside_an_image,
    "data-after-close-notify": _talks_after_close_notify,
}
