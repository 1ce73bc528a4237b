"""A family of abuse: what may come in some state of an association comes in another."""

from collections.abc import Callable

from tests.abuse.hold import CT, Case, Held, Hold
from tests.abuse.message_cases import ECHO, on_association, store
from tests.real import raw_peer as raw
from tests.real.recording_archive import VERIFICATION


def _half_open(hold: Hold) -> None:
    held = hold.associated()
    held.half_close()


def _reset_inside_an_image(hold: Hold) -> None:
    held = hold.associated()
    held.send(store(), raw.p_data(3, CT.data_set[:16000], command=False, last=False))
    held.reset()


def _request_again(hold: Hold) -> None:
    held = hold.associated()
    held.send(raw.request_on(hold.route, {1: (VERIFICATION, [raw.IMPLICIT])}))
    held.receive()


def _release_and_go_on(hold: Hold) -> None:
    held = hold.associated()
    held.send(_RELEASE)
    held.pdu()
    held.send(raw.echo_rq(1, 5))
    held.receive()


def _data_at_once(hold: Hold) -> None:
    held = hold.open()
    held.send(raw.request_on(hold.route, {1: (VERIFICATION, [raw.IMPLICIT])}), raw.echo_rq(1, 1))
    held.receive()


def _two_requests_at_once(hold: Hold) -> None:
    held = hold.open()
    held.send(raw.request_on(hold.route, {1: (VERIFICATION, [raw.IMPLICIT])}) * 2)
    held.receive()


def _abort_at_once(hold: Hold) -> None:
    held = hold.open()
    held.send(raw.request_on(hold.route, {1: (VERIFICATION, [raw.IMPLICIT])}), _ABORT)


def _request(hold: Hold) -> bytes:
    return raw.request_on(hold.route, {1: (VERIFICATION, [raw.IMPLICIT])})


def _said(data: Callable[[Hold], bytes], *, associated: bool, answers: int = 0) -> Callable[[Hold], Held]:
    def stage(hold: Hold) -> Held:
        held = hold.associated() if associated else hold.open()
        held.send(data(hold))
        for _ in range(answers):
            held.pdu()
        return held

    return stage


def _ends(stage: Callable[[Hold], Held], end: Callable[[Held], object]) -> Case:
    def case(hold: Hold) -> None:
        end(stage(hold))

    return case


def _after_a_rejection(*data: bytes) -> Case:
    """Go on talking on a connection whose association was rejected."""

    def case(hold: Hold) -> None:
        held = hold.open()
        called = hold.route.called_ae_title
        held.send(raw.associate_rq(called=called, calling="NOBODY", contexts={1: (VERIFICATION, [raw.IMPLICIT])}))
        held.pdu()
        held.send(*data)
        held.receive()

    return case


def _much_before_the_accept(hold: Hold) -> None:
    held = hold.open()
    held.send(_request(hold), raw.echo_rq(1, 1) * 12000)
    held.receive()


_RELEASE, _RELEASED = raw.pdu(raw.RELEASE_RQ, bytes(4)), raw.pdu(raw.RELEASE_RP, bytes(4))
_ABORT = raw.pdu(raw.ABORT, bytes(4))
_IMAGE = store() + raw.p_data(3, CT.data_set[:9000], command=False, last=False)
# How far a peer comes before it ends: in every state of PS3.8 §9.2 that a requestor can be in.
_STAGES: dict[str, Callable[[Hold], Held]] = {
    "before-the-request": _said(lambda _: b"", associated=False),
    "inside-the-request": _said(lambda hold: _request(hold)[:50], associated=False),
    "after-the-request": _said(_request, associated=False),
    "on-an-idle-association": _said(lambda _: b"", associated=True),
    "inside-a-pdu": _said(lambda _: raw.echo_rq(1, 1)[:20], associated=True),
    "inside-a-command": _said(lambda _: raw.p_data(1, ECHO[:20], command=True, last=False), associated=True),
    "between-command-and-data": _said(lambda _: store(), associated=True),
    "inside-a-data-set": _said(lambda _: _IMAGE, associated=True),
    "while-an-echo-is-under-way": _said(lambda _: raw.echo_rq(1, 1), associated=True),
    "after-a-release": _said(lambda _: _RELEASE, associated=True),
    "after-the-release-reply": _said(lambda _: _RELEASE, associated=True, answers=1),
    "after-an-abort": _said(lambda _: _ABORT, associated=True),
}
_ENDS: dict[str, Callable[[Held], object]] = {
    "abort": lambda held: held.send(_ABORT),
    "half-close": Held.half_close,
    "reset": Held.reset,
    "release": lambda held: held.send(_RELEASE),
}

STATES: dict[str, Case] = {
    **{f"{end}-{stage}": _ends(come, how) for end, how in _ENDS.items() for stage, come in _STAGES.items()},
    "megabyte-before-the-accept": _much_before_the_accept,
    "request-again-after-a-rejection": _after_a_rejection(
        raw.associate_rq(called="ARCHIVE", calling="GOOD", contexts={1: (VERIFICATION, [raw.IMPLICIT])})
    ),
    "megabyte-after-a-rejection": _after_a_rejection(bytes(1 << 20)),
    "data-after-a-rejection": _after_a_rejection(raw.echo_rq(1, 1)),
    "thousand-releases": on_association(_RELEASE * 1000),
    "thousand-aborts": on_association(_ABORT * 1000),
    "release-and-its-reply": on_association(_RELEASE + _RELEASED),
    "release-reply-and-release": on_association(_RELEASED + _RELEASE),
    "release-of-another-length": on_association(raw.pdu(raw.RELEASE_RQ, bytes(65536))),
    "request-on-an-association": _request_again,
    "two-requests-at-once": _two_requests_at_once,
    "data-before-the-accept": _data_at_once,
    "abort-before-the-accept": _abort_at_once,
    "accept-on-an-association": on_association(raw.pdu(raw.ASSOCIATE_AC, bytes(68))),
    "reject-on-an-association": on_association(raw.pdu(raw.ASSOCIATE_RJ, b"\0\1\1\1")),
    "release-reply-without-a-release": on_association(_RELEASED),
    "release-twice": on_association(_RELEASE * 2),
    "release-inside-an-image": on_association(
        store(), raw.p_data(3, CT.data_set[:9000], command=False, last=False), _RELEASE
    ),
    "data-after-a-release": _release_and_go_on,
    "data-after-an-abort": on_association(_ABORT, raw.echo_rq(1, 1)),
    "abort-inside-an-image": on_association(
        store(), raw.p_data(3, CT.data_set[:9000], command=False, last=False), _ABORT
    ),
    "abort-of-255-255": on_association(raw.pdu(raw.ABORT, b"\0\0\xff\xff")),
    "abort-without-a-body": on_association(raw.pdu(raw.ABORT, b"")),
    "release-without-a-body": on_association(raw.pdu(raw.RELEASE_RQ, b"")),
    "type-99-on-an-association": on_association(raw.pdu(99, bytes(10))),
    "half-closed": _half_open,
    "reset-inside-an-image": _reset_inside_an_image,
}
