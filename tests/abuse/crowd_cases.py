"""Families of abuse by time and number: slow peers, floods and storms."""

import threading
from collections.abc import Callable

from tests.abuse.hold import CT, Case, Hold
from tests.abuse.tls_cases import ECHO_ALONE, hello
from tests.real import raw_peer as raw


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
    _drip(hold, hold.plain().send, hello(), 0.05)


def _slow_image(hold: Hold) -> None:
    held = hold.associated()
    held.send(_STORE)
    _drip(hold, held.send, raw.p_data(3, CT.data_set[:16000], command=False, last=False), 0.05)


def _slow_command(hold: Hold) -> None:
    _drip(hold, hold.associated().send, raw.echo_rq(1, 1), 0.05)


def _slow_release(hold: Hold) -> None:
    _drip(hold, hold.associated().send, raw.pdu(raw.RELEASE_RQ, bytes(4)), 0.05)


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


_STORE = raw.store_rq(3, CT.sop_class_uid, CT.sop_instance_uid)
SLOW: dict[str, Case] = {
    "one-byte-at-a-time-in-the-request": _slow_request(1, 0.05),
    "twenty-that-drip-their-request": _slow_request(20, 0.1),
    "one-byte-at-a-time-in-the-client-hello": _slow_hello,
    "one-byte-at-a-time-in-an-image": _slow_image,
    "one-byte-at-a-time-in-a-command": _slow_command,
    "one-byte-at-a-time-in-a-release": _slow_release,
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
    "300-half-client-hellos": _silent(300, lambda _: hello()[:60]),
    "100-that-wait-after-the-client-hello": _silent(100, lambda _: hello()),
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


def _release(hold: Hold) -> None:
    held = hold.associated(ECHO_ALONE)
    held.send(raw.pdu(raw.RELEASE_RQ, bytes(4)))
    held.pdu()


def _abort(hold: Hold) -> None:
    held = hold.open()
    held.send(raw.request_on(hold.route, ECHO_ALONE), raw.pdu(raw.ABORT, bytes(4)))
    held.socket.close()


STORMS: dict[str, Case] = {
    "60-associations-released-at-once": _storm(60, _release),
    "60-requests-aborted-at-once": _storm(60, _abort),
    "500-connections-reset-at-once": _storm(500, _reset_at_once),
    "500-connections-closed-at-once": _storm(500, lambda hold: hold.plain().socket.close()),
    "60-resets-after-a-request": _storm(60, _reset_after_a_request),
    "40-resets-on-an-association": _storm(40, _reset_on_an_association),
    "60-handshakes-and-away": _storm(60, _handshake_and_away),
    "20-titles-that-nobody-has": _storm(20, _unknown_title),
}
