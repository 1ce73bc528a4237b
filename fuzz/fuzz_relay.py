"""Promise: whatever both peers send, in whatever pieces, a relay raises nothing and keeps its acceptor safe.

The acceptor sees nothing before an allow is on record; then only whole, well-formed PDUs, only requests that are on
record as allowed, only in contexts that are permitted, and after an A-ABORT nothing more. The requestor sees a
well-formed stream too. What was admitted is released once. How the bytes were cut changes nothing.

An input is one byte for the scene (its lowest two bits: who has called, and what is under way) and for how the bytes
are cut the second time (the next bit), then segments: leg (1 byte), length (2), bytes.
"""

import pickle
import sys
from pathlib import Path

import harness

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with harness.instrumented():
    from tests.relay.wire import (
        RELEASE_RP,
        RELEASE_RQ,
        Message,
        a_associate_rq,
        c_cancel_rq,
        c_echo_rq,
        c_find_rq,
        c_get_rq,
        c_move_rq,
        c_store_rq,
        identifier,
        image,
        message,
        n_action_rq,
        n_event_report_rq,
        response_to,
        transaction,
    )
    from tests.relay.world import (
        ACCEPTOR,
        EVERYTHING,
        REQUESTOR,
        FakeWorld,
        Line,
        established,
        established_by_archive,
    )

    from dicomward.audit.event import AssociationAllowed, AssociationEnded, OperationAllowed
    from dicomward.dicom.codec import encode_pdu
    from dicomward.dicom.pdu import AAbort, AAssociateRq
    from dicomward.relay.inputs import Ended, Leg
    from dicomward.vocab.reason import ReasonCode

SCENES = 4
SINGLE_BYTES = 4
LONGEST_IN_SINGLE_BYTES = 800


def _scene(number: int) -> Line:
    world = FakeWorld().limited(max_held_bytes=2000, max_head_bytes=400, max_identifier_bytes=600)
    world.limits.matches = 2
    match number:
        case 0:
            return Line(world)
        case 1:
            return established(world)
        case 2:
            line = established(world, calling="WS1")
            line.say(REQUESTOR, 9, c_get_rq(1), identifier())
            return line
        case _:
            established(world, calling="WS1").say(REQUESTOR, 7, c_move_rq(1), identifier())
            established(world).say(REQUESTOR, 15, n_action_rq(1), transaction())
            return established_by_archive(world)


def _prepared(number: int) -> bytes:
    line = _scene(number)
    # Views of buffers can't be kept, and nobody asks for what was done before.
    line.effects.clear()
    return pickle.dumps(line)


# To build a scene takes longer than most inputs do, so each is built once, and then a copy is made for each input.
_PREPARED = [_prepared(number) for number in range(SCENES)]


def _segments(data: bytes) -> list[tuple[Leg, bytes]]:
    out = []
    at = 0
    while at + 3 <= len(data):
        leg = Leg(data[at] & 1)
        size = int.from_bytes(data[at + 1 : at + 3], "big")
        out.append((leg, data[at + 3 : at + 3 + size]))
        at += 3 + size
    return out


def _check(line: Line, read: list[object], allowed: int, permitted: set[int]) -> None:
    """Compare what the acceptor has read with what is on record."""
    requests = 0
    for each in read:
        if isinstance(each, AAssociateRq):
            if not line.recorded(AssociationAllowed):
                raise AssertionError("the acceptor was contacted without an allow on record")
        elif isinstance(each, Message):
            requests += each.command.is_request
            if each.context_id not in permitted:
                raise AssertionError(f"{each} in a context that is not permitted")
    if requests > allowed:
        raise AssertionError(f"{requests} requests for the acceptor, {allowed} are on record as allowed")


def _played(number: int, segments: list[tuple[Leg, bytes]], step: int) -> object:
    line: Line = pickle.loads(_PREPARED[number % SCENES])
    upstream = line.upstream_request
    permitted = {context.context_id for context in upstream.presentation_contexts} if upstream else set()
    before = len([e for e in line.recorded(OperationAllowed) if e.direction == "requestor"])  # type: ignore[attr-defined]
    line.read(ACCEPTOR)
    for leg, data in segments:
        line.send(leg, data, chunks=[step] * (len(data) // step) if step else (), at_once=True)
    reads = {leg: line.read(leg) for leg in Leg}
    for pdu in reads[ACCEPTOR]:
        if isinstance(pdu, AAssociateRq):
            permitted |= {context.context_id for context in pdu.presentation_contexts}
    allowed = len([e for e in line.recorded(OperationAllowed) if e.direction == "requestor"])  # type: ignore[attr-defined]
    _check(line, list(reads[ACCEPTOR]), allowed - before, permitted)
    records = list(line.records)
    line.handle(Ended(ReasonCode.DRAINING))
    for reader in line.readers.values():
        reader.finish()
    if not line.relay.is_over or line.finished != 1:
        raise AssertionError("the relay has no end")
    # Those that the scene has opened beside this one are still open.
    if sum(line.world.limits.open.values()) != line.world.lines - 1:
        raise AssertionError("an admission was not released once")
    if len(line.recorded(AssociationEnded)) > 1:
        raise AssertionError("two ends")
    return reads, records


def one_input(data: bytes) -> None:
    if not data:
        return
    segments = _segments(data[1:])
    single = data[0] & SINGLE_BYTES and len(data) < LONGEST_IN_SINGLE_BYTES
    if _played(data[0], segments, 0) != _played(data[0], segments, 1 if single else 1 + len(data) % 23):
        raise AssertionError("pieces mean something else than the whole")


def _seed(scene: int, *segments: tuple[Leg, bytes]) -> bytes:
    return bytes([scene]) + b"".join(bytes([leg]) + len(data).to_bytes(2, "big") + data for leg, data in segments)


_ABORT = encode_pdu(AAbort(source=2, reason=0))
SEEDS = [
    _seed(0, (REQUESTOR, encode_pdu(a_associate_rq(EVERYTHING)))),
    _seed(
        1,
        (REQUESTOR, message(1, c_echo_rq(1))),
        (ACCEPTOR, message(1, response_to(c_echo_rq(1)))),
        (REQUESTOR, message(3, c_store_rq(2), image(pixels=b"p" * 500), size=100)),
        (ACCEPTOR, message(3, response_to(c_store_rq(2)))),
        (REQUESTOR, RELEASE_RQ),
        (ACCEPTOR, RELEASE_RP),
    ),
    _seed(
        2,
        (ACCEPTOR, message(3, c_store_rq(1), image(pixels=b"q" * 200), size=60)),
        (REQUESTOR, message(5, c_find_rq(4), identifier())),
        (REQUESTOR, message(3, response_to(c_store_rq(1)))),
        (ACCEPTOR, message(9, response_to(c_get_rq(1)))),
        (ACCEPTOR, message(5, response_to(c_find_rq(4), 0xFF00, has_data_set=True), identifier())),
        (REQUESTOR, message(5, c_cancel_rq(4))),
        (ACCEPTOR, _ABORT),
    ),
    _seed(
        3,
        (REQUESTOR, message(3, c_store_rq(1), image("9.9"))),
        (REQUESTOR, message(3, c_store_rq(2, move_originator_ae_title="WS1", move_originator_message_id=1), image())),
        (ACCEPTOR, message(3, response_to(c_store_rq(2)))),
        (REQUESTOR, message(15, n_event_report_rq(3), transaction())),
        (ACCEPTOR, RELEASE_RQ),
    ),
]

SEEDS += [bytes([seed[0] | SINGLE_BYTES]) + seed[1:] for seed in SEEDS]

if __name__ == "__main__":
    harness.main(one_input, SEEDS)
