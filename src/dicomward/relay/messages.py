"""What is under way on an established association: exchanges, the message being received, the way out of each leg."""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.framing import DataRun, encode_p_data, refragment
from dicomward.dicom.nesting import NestingGauge
from dicomward.limits.budgets import Holder
from dicomward.relay.correlations import PendingMove
from dicomward.relay.effects import Effect, Send
from dicomward.relay.inputs import Leg
from dicomward.relay.subjects import UNKNOWN_SUBJECT, Subject, SubjectTap
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode


@dataclass(frozen=True, slots=True)
class Lift:
    """What would have been refused, and passes: `rule_id` names the open bypass, or the device that is observed."""

    rule_id: str
    reason: ReasonCode


@dataclass(frozen=True, slots=True)
class Asked:
    """What the identifier of a query or retrieval asks for: its keys, and the one patient and study that it names."""

    tags: frozenset[int] = frozenset()
    patient: bytes = b""
    study: bytes = b""


ASKED_NOTHING: Final = Asked()


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request and its responses. `invoker` is the leg that the request came from."""

    invoker: Leg
    context_id: int
    command: CommandSet
    operation: Operation
    started: float
    rule_ids: tuple[str, ...] = ()
    forwarded: bool = False
    bytes: int = 0
    matches: int = 0
    matches_allowed: int = 0
    query_level: str | None = None
    cut: ReasonCode | None = None
    move: PendingMove | None = None
    suboperation_of: "tuple[Exchange | PendingMove, ...]" = ()
    refused_suboperations: int = 0
    transaction_uid: str | None = None
    subject: Subject = UNKNOWN_SUBJECT
    identifier: bytearray = field(default_factory=bytearray)
    lifts: tuple[Lift, ...] = ()
    told_lifts: int = 0
    asked: Asked = ASKED_NOTHING
    # What its matches may not hold.
    strip: frozenset[int] = frozenset()
    # Whose data went out in its matches and isn't on record yet.
    matched: dict[Subject, None] = field(default_factory=dict)
    # Why the first match that was held back was.
    withheld: ReasonCode | None = None

    def add_lift(self, lift: Lift) -> None:
        """Note that something was let pass; what is known already stays as it is."""
        if lift not in self.lifts:
            self.lifts += (lift,)

    @property
    def message_id(self) -> int:
        """Message ID of the request."""
        return self.command.message_id or 0

    @property
    def all_rule_ids(self) -> tuple[str, ...]:
        """The rules that decided, and the bypasses that lifted what was refused."""
        return (*self.rule_ids, *dict.fromkeys(lift.rule_id for lift in self.lifts))

    @property
    def waived(self) -> tuple[str, ...]:
        """The reasons for which it would have been refused, had no bypass been open."""
        return tuple(dict.fromkeys(lift.reason.value for lift in self.lifts))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not forwarded. `moves` are those that it may have belonged to: none of them was a success."""

    reason: ReasonCode
    rule_ids: tuple[str, ...] = ()
    detail: str = ""
    moves: tuple[PendingMove, ...] = ()


class Mode(Enum):
    """What happens to the fragments of a message."""

    HEAD = auto()  # collected until the head is judged
    HOLD = auto()  # collected until the message's turn comes
    INSPECT = auto()  # collected until the whole of it is judged
    FORWARD = auto()  # sent on
    DISCARD = auto()  # dropped; the refusal is answered when the data set has ended


@dataclass(slots=True, kw_only=True)
class Transfer:
    """The message that is being received from a leg, or that waits for its turn."""

    leg: Leg
    context_id: int
    command: CommandSet
    mode: Mode
    exchange: Exchange
    refusal: Refusal | None = None
    stop_after: int = 0
    head: bytearray = field(default_factory=bytearray)
    next_scan: int = 0
    kept: bytearray = field(default_factory=bytearray)
    largest_pdu: int = 0
    complete: bool = False
    ends_exchange: bool = False
    tap: SubjectTap | None = None
    gauge: NestingGauge | None = None
    # Whose budgets pay for what still comes of it.
    payers: tuple[Holder, ...] = ()

    def keep(self, run: DataRun) -> None:
        """Copy a run until it can be sent."""
        # One buffer: a peer that sends single bytes must not make us hold an object for each.
        self.kept += run.view
        self.largest_pdu = max(self.largest_pdu, run.largest_pdu)

    def drop(self) -> None:
        """Forget what was kept."""
        self.kept = bytearray()
        self.head = bytearray()


class Outlet:
    """The one way out of a leg: messages leave it whole, one after the other, never mixed (PS3.7 §6.3.1)."""

    __slots__ = ("_leg", "_maximum_length", "_queue", "_streaming", "queued_bytes")

    def __init__(self, leg: Leg, maximum_length: int) -> None:
        self._leg = leg
        self._maximum_length = maximum_length
        self._streaming: Transfer | None = None
        self._queue: deque[bytes] = deque()
        self.queued_bytes = 0

    @property
    def is_busy(self) -> bool:
        """Say if a message has begun to leave and not ended."""
        return self._streaming is not None

    def message(self, context_id: int, command: CommandSet, out: list[Effect]) -> None:
        """Send a message without a data set; it waits where another is on its way."""
        data = encode_p_data(context_id, encode_command_set(command), self._maximum_length, command=True)
        if self._streaming is not None:
            self._queue.append(data)
            self.queued_bytes += len(data)
        else:
            out.append(Send(self._leg, data))

    def begin(self, transfer: Transfer, command: CommandSet, out: list[Effect]) -> None:
        """Start to send a message whose data set follows; what was kept of it goes at once.

        INVARIANT: the caller has seen `is_busy` False.
        """
        data = encode_p_data(transfer.context_id, encode_command_set(command), self._maximum_length, command=True)
        out.append(Send(self._leg, data))
        if transfer.kept:
            out.append(Send(self._leg, self._fitted(memoryview(transfer.kept), transfer.largest_pdu)))
        transfer.drop()
        if not transfer.complete:
            self._streaming = transfer

    def stream(self, run: DataRun, out: list[Effect]) -> None:
        """Send a run of the message that is on its way."""
        out.append(Send(self._leg, self._fitted(run.view, run.largest_pdu)))

    def finish(self, out: list[Effect]) -> None:
        """Note that the message on its way has ended; what waited follows."""
        self._streaming = None
        while self._queue:
            out.append(Send(self._leg, self._queue.popleft()))
        self.queued_bytes = 0

    def _fitted(self, view: memoryview, largest_pdu: int) -> bytes | memoryview:
        return refragment(view, self._maximum_length) if largest_pdu > self._maximum_length else view


class Side:
    """What is under way from one leg: its requests, and the message that is being received from it."""

    __slots__ = ("held", "outlet", "outstanding", "pauses", "transfer", "window")

    def __init__(self, leg: Leg, maximum_length: int, window: int) -> None:
        self.outlet = Outlet(leg, maximum_length)
        self.window = window
        self.outstanding: dict[int, Exchange] = {}
        self.held: deque[Transfer] = deque()
        self.transfer: Transfer | None = None
        self.pauses: set[str] = set()
