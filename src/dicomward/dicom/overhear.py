"""What an association says to somebody who only listens: who calls whom, for what. Data sets are never kept or read.

Rules of this file: whatever the peers send, `Overhearing` never raises; what it can't follow it gives up, and says why.
"""

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from dicomward.dicom.codec import decode_pdu
from dicomward.dicom.dimse import decode_command_set
from dicomward.dicom.errors import RemoteProtocolError
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import AAssociateAc, AAssociateRj, AAssociateRq, PduType
from dicomward.vocab.association import AbortReason, PresentationResult
from dicomward.vocab.dimse import Operation

_LIMITS: Final = Limits()
_HEADER_BYTES: Final = 6
_PDV_HEADER_BYTES: Final = 6
_COMMAND, _LAST = 0x01, 0x02
_PDU_TYPES: Final = frozenset(int(each) for each in PduType)
_TLS_HANDSHAKE: Final = b"\x16\x03"


@dataclass(frozen=True, slots=True)
class Deed:
    """One request: the operation, its SOP class, and the destination of a C-MOVE; `by_requestor`: who invoked it."""

    operation: Operation
    sop_class_uid: str
    move_destination: str = ""
    by_requestor: bool = True


@dataclass(slots=True, kw_only=True)
class Overheard:
    """What was heard of one connection; titles are None where no A-ASSOCIATE-RQ could be read."""

    calling_ae_title: str | None = None
    called_ae_title: str | None = None
    is_tls: bool = False
    is_accepted: bool = False
    is_rejected: bool = False
    user_identity: int | None = None
    deeds: Counter[Deed] = field(default_factory=Counter)
    contexts: dict[int, str] = field(default_factory=dict)
    transfer_syntaxes: set[str] = field(default_factory=set)
    problem: str = ""


class _Place(Enum):
    """What the next bytes of a direction are."""

    PDU_HEADER = auto()
    BODY = auto()
    PDV_HEADER = auto()
    COMMAND = auto()
    SKIPPED = auto()


class _Reader:
    """One direction: finds PDUs and command sets in a run of bytes, and skips the rest without keeping it."""

    def __init__(self, control: Callable[[int, bytes], None], command: Callable[[int, bytes], None]) -> None:
        self._control, self._command_read = control, command
        self._pending = bytearray()
        self._place = _Place.PDU_HEADER
        self._wanted = _HEADER_BYTES
        self._pdu_type = 0
        self._pdu_left = 0
        self._context_id = 0
        self._is_last = False
        self._command = bytearray()

    def feed(self, data: bytes) -> None:
        """Read the next bytes. Raises RemoteProtocolError for what can't be followed."""
        at = 0
        while at < len(data):
            if self._place is _Place.SKIPPED:
                step = min(self._wanted, len(data) - at)
                self._wanted -= step
                at += step
                if not self._wanted:
                    self._next_pdv()
                continue
            step = min(self._wanted - len(self._pending), len(data) - at)
            self._pending += data[at : at + step]
            at += step
            if len(self._pending) == self._wanted:
                taken, self._pending = bytes(self._pending), bytearray()
                self._took(taken)

    def skip(self, count: int) -> bool:
        """Note that bytes are missing; False if it can't go on behind them."""
        if self._place is not _Place.SKIPPED or count > self._wanted:
            return False
        self._wanted -= count
        if not self._wanted:
            self._next_pdv()
        return True

    def _took(self, taken: bytes) -> None:
        match self._place:
            case _Place.PDU_HEADER:
                self._begin_pdu(*struct.unpack(">BxI", taken))
            case _Place.BODY:
                self._expect(_Place.PDU_HEADER, _HEADER_BYTES)
                self._control(self._pdu_type, taken)
            case _Place.PDV_HEADER:
                self._begin_pdv(*struct.unpack(">IBB", taken))
            case _:
                self._command += taken
                if len(self._command) > _LIMITS.max_command_set_bytes:
                    raise _unreadable("a command set that is too long")
                if self._is_last:
                    command, self._command = bytes(self._command), bytearray()
                    self._command_read(self._context_id, command)
                self._next_pdv()

    def _expect(self, place: _Place, wanted: int) -> None:
        self._place, self._wanted = place, wanted

    def _begin_pdu(self, pdu_type: int, length: int) -> None:
        self._pdu_type = pdu_type
        if pdu_type == PduType.P_DATA_TF:
            self._pdu_left = length
            self._next_pdv()
        elif pdu_type not in _PDU_TYPES or not 0 < length <= _LIMITS.max_association_pdu_bytes:
            raise _unreadable(f"a PDU of type {pdu_type:02X}H and {length} bytes")
        else:
            self._expect(_Place.BODY, length)

    def _next_pdv(self) -> None:
        if not self._pdu_left:
            self._expect(_Place.PDU_HEADER, _HEADER_BYTES)
        elif self._pdu_left < _PDV_HEADER_BYTES:
            raise _unreadable("a P-DATA-TF that ends within a PDV")
        else:
            self._expect(_Place.PDV_HEADER, _PDV_HEADER_BYTES)

    def _begin_pdv(self, length: int, context_id: int, header: int) -> None:
        left = self._pdu_left - 4 - length
        if length < 2 or left < 0:
            raise _unreadable("a PDV that is longer than its P-DATA-TF")
        self._pdu_left, self._context_id, self._is_last = left, context_id, bool(header & _LAST)
        if length == 2:
            self._next_pdv()
        else:
            self._expect(_Place.COMMAND if header & _COMMAND else _Place.SKIPPED, length - 2)


def _unreadable(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(AbortReason.NOT_SPECIFIED, "PS3.8 §9.3", what)


class Overhearing:
    """Follows one connection; `heard` is what has come out so far."""

    def __init__(self) -> None:
        self.heard = Overheard()
        self._readers: dict[bool, _Reader | None] = {}
        self._proposed: dict[int, str] = {}
        self._first: dict[bool, bytes] = {}

    @property
    def is_dicom(self) -> bool:
        """Say if an association was heard, or TLS, in which there may be one."""
        return self.heard.is_tls or self.heard.calling_ae_title is not None

    def data(self, from_requestor: bool, payload: bytes) -> None:
        """Hear the next bytes of a direction; `from_requestor`: of who has opened the connection."""
        if from_requestor not in self._readers:
            payload = self._first.pop(from_requestor, b"") + payload
            if len(payload) < len(_TLS_HANDSHAKE):
                self._first[from_requestor] = payload
                return
            self._readers[from_requestor] = self._begin(from_requestor, payload)
        reader = self._readers[from_requestor]
        if reader is None:
            return
        try:
            reader.feed(payload)
        except RemoteProtocolError as error:
            # The clause alone: a detail may repeat what the peer has sent.
            self._give_up(from_requestor, f"breaks {error.clause}")

    def gap(self, from_requestor: bool, count: int) -> None:
        """Hear that bytes are missing: within a data set they are of no interest, elsewhere the direction is lost."""
        reader = self._readers.get(from_requestor)
        if reader is not None and not reader.skip(count):
            self._give_up(from_requestor, "bytes are missing")

    def _begin(self, from_requestor: bool, payload: bytes) -> _Reader | None:
        if payload.startswith(_TLS_HANDSHAKE):
            self.heard.is_tls = True
            return None
        expected = (PduType.A_ASSOCIATE_RQ,) if from_requestor else (PduType.A_ASSOCIATE_AC, PduType.A_ASSOCIATE_RJ)
        if self.heard.is_tls or payload[0] not in (*expected, PduType.A_ABORT) or payload[1]:
            return None
        return _Reader(
            lambda kind, body: self._control(from_requestor, kind, body),
            lambda context_id, command: self._command(from_requestor, context_id, command),
        )

    def _give_up(self, from_requestor: bool, problem: str) -> None:
        self._readers[from_requestor] = None
        self.heard.problem = self.heard.problem or problem

    def _control(self, from_requestor: bool, pdu_type: int, body: bytes) -> None:
        pdu = decode_pdu(pdu_type, body, _LIMITS)
        match pdu:
            case AAssociateRq() if from_requestor:
                self.heard.calling_ae_title, self.heard.called_ae_title = pdu.calling_ae_title, pdu.called_ae_title
                self._proposed = {each.context_id: each.abstract_syntax for each in pdu.presentation_contexts}
                identity = pdu.user_information.user_identity
                # Its kind alone: what it holds is a secret.
                self.heard.user_identity = identity.type if identity is not None else None
            case AAssociateAc() if not from_requestor:
                self.heard.is_accepted = True
                for each in pdu.presentation_contexts:
                    if each.result == PresentationResult.ACCEPTANCE and each.context_id in self._proposed:
                        self.heard.contexts[each.context_id] = self._proposed[each.context_id]
                        self.heard.transfer_syntaxes.add(each.transfer_syntax)
            case AAssociateRj() if not from_requestor:
                self.heard.is_rejected = True
            case _:
                pass

    def _command(self, from_requestor: bool, context_id: int, data: bytes) -> None:
        command = decode_command_set(data, _LIMITS)
        if command.is_request:
            self.heard.deeds[
                Deed(
                    command.operation,
                    command.sop_class_uid or self.heard.contexts.get(context_id, ""),
                    command.move_destination or "",
                    from_requestor,
                )
            ] += 1
