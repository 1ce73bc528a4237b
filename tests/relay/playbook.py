"""A play: inputs and the effects that must follow, in order.

    assert Playbook(relay) >> received(REQUESTOR, rq) << "stop-timer request" << "record-durably AssociationAllowed"

`>>` gives an input (or a function that makes one of the last effect's id), `<<` expects one effect, as text. Nothing
runs before the playbook is asked for its truth; then a difference is printed line by line. A playbook that was never
asked fails (`unfinished`, which conftest.py looks at).
"""

import difflib
from collections.abc import Callable

from dicomward.dicom.framing import HEADROOM
from dicomward.relay.effects import (
    Close,
    Effect,
    Finished,
    KeepCharges,
    OpenUpstream,
    Pause,
    Record,
    RecordDurably,
    RegisterCommitment,
    RegisterMove,
    Resume,
    Send,
    StartTimer,
    StopTimer,
    VerifyPerson,
)
from dicomward.relay.inputs import (
    Correlated,
    Input,
    Instant,
    Leg,
    Received,
    Recorded,
    UpstreamFailed,
    UpstreamOpened,
)
from dicomward.relay.relay import Relay
from dicomward.vocab.reason import ReasonCode
from tests.relay.wire import Message, Reader
from tests.relay.world import NOON

Step = Input | Callable[[int], Input]

unfinished: list["Playbook"] = []


def received(leg: Leg, data: bytes) -> Received:
    buffer = bytearray(HEADROOM) + data
    return Received(leg, memoryview(buffer), HEADROOM, len(buffer))


def recorded(written: bool = True) -> Callable[[int], Input]:
    return lambda effect_id: Recorded(effect_id, written)


def opened() -> Callable[[int], Input]:
    return UpstreamOpened


def failed(reason: ReasonCode = ReasonCode.UPSTREAM_UNREACHABLE) -> Callable[[int], Input]:
    return lambda effect_id: UpstreamFailed(effect_id, reason, "for the log")


def correlated(granted: bool = True) -> Callable[[int], Input]:
    return lambda effect_id: Correlated(effect_id, granted)


class Playbook:
    """One relay, played through."""

    def __init__(self, relay: Relay, *, at: float = 1000.0) -> None:
        self._relay = relay
        self._at = at
        self._script: list[Step | str] = []
        self._readers = {leg: Reader() for leg in Leg}
        self._last_id = 0
        unfinished.append(self)

    def __rshift__(self, step: Step) -> "Playbook":
        self._script.append(step)
        return self

    def __lshift__(self, expected: str) -> "Playbook":
        self._script.append(expected)
        return self

    def after(self, seconds: float) -> "Playbook":
        """Let time go by before the next play."""
        self._at += seconds
        return self

    def __bool__(self) -> bool:
        if self in unfinished:
            unfinished.remove(self)
        expected: list[str] = []
        actual: list[str] = []
        for step in self._script:
            if isinstance(step, str):
                expected.append(f"    << {step}")
                continue
            happened = step(self._last_id) if callable(step) else step
            name = f">> {type(happened).__name__}"
            expected.append(name)
            actual.append(name)
            actual += [f"    << {self._text(e)}" for e in self._relay.handle(happened, Instant(self._at, NOON))]
        self._script = []
        if expected == actual:
            return True
        difference = "\n".join(difflib.unified_diff(expected, actual, "expected", "actual", lineterm="", n=20))
        raise AssertionError(f"the relay left the script:\n{difference}")

    def _text(self, effect: Effect) -> str:
        match effect:
            case Send(leg=leg, data=data):
                read = self._readers[leg].read(bytes(data))
                names = [str(each) if isinstance(each, Message) else type(each).__name__ for each in read]
                return f"send {leg.name.lower()} {', '.join(names) or f'{len(data)} bytes'}"
            case Close() | Pause() | Resume():
                return f"{type(effect).__name__.lower()} {effect.leg.name.lower()}"
            case OpenUpstream(effect_id=effect_id, target=target):
                self._last_id = effect_id
                return f"open-upstream {target.name}"
            case VerifyPerson(effect_id=effect_id, claim=claim):
                self._last_id = effect_id
                return f"verify-person {claim.name}"
            case Record(event=event):
                return f"record {type(event).__name__}" + (f" {event.reason}" if event.reason else "")
            case RecordDurably(effect_id=effect_id, event=event):
                self._last_id = effect_id
                return f"record-durably {type(event).__name__}" + (f" {event.reason}" if event.reason else "")
            case RegisterMove(effect_id=effect_id, move=move):
                self._last_id = effect_id
                return f"register-move {move.message_id} to {move.destination_ae_title}"
            case RegisterCommitment(effect_id=effect_id, commitment=commitment):
                self._last_id = effect_id
                return f"register-commitment {commitment.transaction_uid}"
            case KeepCharges():
                return "keep-charges"
            case StartTimer(timer=timer, seconds=seconds):
                return f"start-timer {timer} {seconds:g}"
            case StopTimer(timer=timer):
                return f"stop-timer {timer}"
            case Finished():
                return "finished"
