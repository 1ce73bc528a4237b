"""Families of abuse by time and number: the TLS layer, slow peers, floods and storms."""

import contextlib
import os
import ssl
import threading
import warnings
from collections.abc import Callable

from tests.abuse.hold import CT, Case, Hold
from tests.real import raw_peer as raw
from tests.real.recording_archive import VERIFICATION

ECHO_ALONE: raw.Contexts = {1: (VERIFICATION, [raw.IMPLICIT])}


def _hello() -> bytes:
    """Return a ClientHello as OpenSSL says it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def _plain(data: Callable[[], bytes], *, answers: int = 1) -> Case:
    def case(hold: Hold) -> None:
        held = hold.plain()
        held.send(data())
        for _ in range(answers):
            held.receive()

    return case


def _version(maximum: ssl.TLSVersion) -> Case:
    def case(hold: Hold) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            # That they are old is the point.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = maximum
        hold.open(context).receive()

    return case


def _without_certificate(hold: Hold) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    held = hold.open(context)
    held.send(raw.request_on(hold.route, ECHO_ALONE))
    held.receive()


def _garbage_inside(hold: Hold) -> None:
    held = hold.open()
    held.send(b"\xff" * 5000)
    held.receive()


def _garbage_beside(hold: Hold) -> None:
    """Bytes that are no record, on the socket below the TLS connection."""
    held = hold.open()
    with contextlib.suppress(OSError):
        os.write(held.socket.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
    held.receive()


def _dicom_without_tls(hold: Hold) -> None:
    held = hold.plain()
    held.send(raw.request_on(hold.route, ECHO_ALONE))
    held.receive()


def _silent_after_handshake(hold: Hold) -> None:
    hold.open()


def _alert(description: int) -> Callable[[], bytes]:
    return lambda: bytes([0x15, 3, 3, 0, 2, 2, description])


TLS: dict[str, Case] = {
    "half-a-client-hello": _plain(lambda: _hello()[:100], answers=0),
    "client-hello-and-silence": _plain(_hello),
    "client-hello-twice": _plain(lambda: _hello() * 2),
    "record-header-alone": _plain(lambda: b"\x16\x03\x01\x02\x00", answers=0),
    "record-of-65535-bytes": _plain(lambda: b"\x16\x03\x01\xff\xff" + bytes(65535)),
    "record-of-length-0": _plain(lambda: b"\x16\x03\x01\0\0" * 100),
    "client-hello-that-lies": _plain(lambda: b"\x16\x03\x01\x00\x04\x01\xff\xff\xff"),
    "alert-first": _plain(_alert(40)),
    "thousand-warnings": _plain(lambda: bytes([0x15, 3, 3, 0, 2, 1, 90]) * 1000),
    "application-data-first": _plain(lambda: b"\x17\x03\x03\x00\x10" + bytes(16)),
    "change-cipher-spec-storm": _plain(lambda: b"\x14\x03\x03\x00\x01\x01" * 1000),
    "ssl-2-hello": _plain(lambda: b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40)),
    "heartbeat-that-bleeds": _plain(lambda: _hello() + b"\x18\x03\x02\x00\x03\x01\x40\x00"),
    "dicom-without-tls": _dicom_without_tls,
    "tls-1.0": _version(ssl.TLSVersion.TLSv1),
    "tls-1.1": _version(ssl.TLSVersion.TLSv1_1),
    "no-certificate": _without_certificate,
    "garbage-inside-tls": _garbage_inside,
    "forged-record-on-a-connection": _garbage_beside,
    "handshake-and-silence": _silent_after_handshake,
}


def _drip(hold: Hold, send: Callable[[bytes], bool], data: bytes, pause: float) -> None:
    """Send single bytes from a thread while the case is held open."""
    over = threading.Event()

    def run() -> None:
        for at in range(len(data)):
            if over.wait(pause) or not send(data[at : at + 1]):
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def end() -> None:
        over.set()
        thread.join(timeout=5)

    hold.over.append(end)


def _slow_request(count: int, pause: float) -> Case:
    def case(hold: Hold) -> None:
        for _ in range(count):
            _drip(hold, hold.open().send, raw.request_on(hold.route, ECHO_ALONE), pause)

    return case


def _slow_hello(hold: Hold) -> None:
    _drip(hold, hold.plain().send, _hello(), 0.05)


def _slow_image(hold: Hold) -> None:
    held = hold.associated()
    held.send(_STORE)
    _drip(hold, held.send, raw.p_data(3, CT.data_set[:16000], command=False, last=False), 0.05)


def _never_reads(hold: Hold) -> None:
    held = hold.associated(receive_buffer=2048)
    held.socket.settimeout(0.2)
    for number in range(2000):
        if not held.send(raw.echo_rq(1, 1 + number % 60000)):
            return


def _window_of_one_byte(hold: Hold) -> None:
    held = hold.associated(receive_buffer=256)
    held.send(*(raw.echo_rq(1, number) for number in range(1, 50)))
    held.receive(1)


def _idle(count: int) -> Case:
    def case(hold: Hold) -> None:
        for _ in range(count):
            hold.associated(ECHO_ALONE)

    return case


_STORE = raw.command(
    3,
    {
        raw.AFFECTED_SOP_CLASS_UID: CT.sop_class_uid,
        raw.COMMAND_FIELD: raw.C_STORE,
        raw.MESSAGE_ID: 1,
        raw.PRIORITY: 0,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
        raw.AFFECTED_SOP_INSTANCE_UID: CT.sop_instance_uid,
    },
)
SLOW: dict[str, Case] = {
    "one-byte-at-a-time-in-the-request": _slow_request(1, 0.05),
    "twenty-that-drip-their-request": _slow_request(20, 0.1),
    "one-byte-at-a-time-in-the-client-hello": _slow_hello,
    "one-byte-at-a-time-in-an-image": _slow_image,
    "peer-that-never-reads": _never_reads,
    "receive-window-of-one-byte": _window_of_one_byte,
    "one-idle-association": _idle(1),
    "four-idle-associations": _idle(4),
}


def _silent(count: int, first: Callable[[Hold], bytes] = lambda _: b"") -> Case:
    def case(hold: Hold) -> None:
        data = first(hold)
        refused = 0
        for _ in range(count):
            # Nobody is let in any more: the flood has reached its aim.
            refused = 0 if hold.plain().send(data) else refused + 1
            if refused == 10:
                return

    return case


def _never_read_flood(hold: Hold) -> None:
    for _ in range(16):
        held = hold.associated(receive_buffer=2048)
        held.socket.settimeout(0.1)
        for number in range(300):
            if not held.send(raw.echo_rq(1, 1 + number)):
                break


def _half_images(hold: Hold) -> None:
    for _ in range(24):
        held = hold.associated()
        held.send(_STORE, *[raw.p_data(3, bytes(16000), command=False, last=False)] * 8)


def _flood_of_echoes(hold: Hold) -> None:
    held = hold.associated()
    for number in range(1, 300):
        if not held.send(raw.echo_rq(1, number)) or not held.pdu():
            return


FLOODS: dict[str, Case] = {
    "100-silent-connections": _silent(100),
    "500-silent-connections": _silent(500),
    "300-half-client-hellos": _silent(300, lambda _: _hello()[:60]),
    "100-that-wait-after-the-client-hello": _silent(100, lambda _: _hello()),
    "200-half-requests": _silent(200, lambda hold: raw.request_on(hold.route, ECHO_ALONE)[:50]),
    "64-idle-associations": _idle(64),
    "16-that-never-read": _never_read_flood,
    "24-images-without-an-end": _half_images,
    "echo-flood-on-one-association": _flood_of_echoes,
}


def _storm(count: int, act: Callable[[Hold], None]) -> Case:
    def case(hold: Hold) -> None:
        for _ in range(count):
            act(hold)

    return case


def _reset_at_once(hold: Hold) -> None:
    hold.plain().reset()


def _reset_after_a_request(hold: Hold) -> None:
    held = hold.open()
    held.send(raw.request_on(hold.route, ECHO_ALONE))
    held.reset()


def _reset_on_an_association(hold: Hold) -> None:
    hold.associated(ECHO_ALONE).reset()


def _handshake_and_away(hold: Hold) -> None:
    hold.open().socket.close()


def _unknown_title(hold: Hold) -> None:
    held = hold.open()
    called, calling = hold.route.called_ae_title, "NOBODY"
    held.send(raw.associate_rq(called=called, calling=calling, contexts=ECHO_ALONE))
    held.receive()


STORMS: dict[str, Case] = {
    "500-connections-reset-at-once": _storm(500, _reset_at_once),
    "500-connections-closed-at-once": _storm(500, lambda hold: hold.plain().socket.close()),
    "60-resets-after-a-request": _storm(60, _reset_after_a_request),
    "40-resets-on-an-association": _storm(40, _reset_on_an_association),
    "60-handshakes-and-away": _storm(60, _handshake_and_away),
    "20-titles-that-nobody-has": _storm(20, _unknown_title),
}
