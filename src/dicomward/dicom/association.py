"""One end of one association, sans I/O: bytes in, events out, PDUs to send judged by PS3.8 Table 9-10.

Rules of this room: no socket, no clock, no policy. Timers (ARTIM) belong to the caller. Every input in every state has
an answer, which the state table gives.
"""

from collections.abc import Iterator
from typing import assert_never

from dicomward.dicom.codec import decode_pdu, encode_pdu
from dicomward.dicom.dimse import decode_command_set
from dicomward.dicom.errors import LocalProtocolError, RemoteProtocolError
from dicomward.dicom.events import (
    AssociationAccepted,
    AssociationRejected,
    AssociationRequested,
    CommandReceived,
    Event,
    PeerAborted,
    ProtocolBroken,
    ReleaseConfirmed,
    ReleaseRequested,
)
from dicomward.dicom.framing import CommandFrame, ControlFrame, DataRun, Framer
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import (
    AAbort,
    AAssociateAc,
    AAssociateRj,
    AAssociateRq,
    AReleaseRp,
    AReleaseRq,
    ControlPdu,
)
from dicomward.dicom.state_table import Action, Evt, Sta, transition
from dicomward.vocab.association import AbortReason, AbortSource

_RECEIVED = {
    AAssociateAc: Evt.EVT3,
    AAssociateRj: Evt.EVT4,
    AAssociateRq: Evt.EVT6,
    AReleaseRq: Evt.EVT12,
    AReleaseRp: Evt.EVT13,
    AAbort: Evt.EVT16,
}
_SENT = {
    AAssociateRq: Evt.EVT2,
    AAssociateAc: Evt.EVT7,
    AAssociateRj: Evt.EVT8,
    AReleaseRq: Evt.EVT11,
    AReleaseRp: Evt.EVT14,
    AAbort: Evt.EVT15,
}
_P_DATA_STATES = (Sta.STA6, Sta.STA7)
_OVER = (Sta.STA1, Sta.STA13)


class Association:
    """The requestor's or the acceptor's end of one association over one connection (PS3.8 §9.2)."""

    __slots__ = ("_framer", "_is_requestor", "_limits", "state")

    def __init__(self, *, is_requestor: bool, limits: Limits) -> None:
        self._is_requestor = is_requestor
        self._limits = limits
        self._framer = Framer(limits)
        self.state = Sta.STA4 if is_requestor else Sta.STA2

    @property
    def is_established(self) -> bool:
        """Say if data transfer is possible in both directions."""
        return self.state is Sta.STA6

    @property
    def is_over(self) -> bool:
        """Say if nothing more can be sent or understood."""
        return self.state in _OVER

    @property
    def oversize_pdus(self) -> int:
        """Count the PDUs that were longer than announced, within the tolerance."""
        return self._framer.oversize_pdus

    def announce_maximum_length(self, max_pdu_bytes: int) -> None:
        """Set the maximum length (item 51) that the peer was told."""
        self._framer.announce_maximum_length(max_pdu_bytes)

    def receive(self, buffer: memoryview, start: int, end: int) -> Iterator[Event]:
        """Yield what `buffer[start:end]` means (see Framer.feed for the bytes before `start`).

        The caller handles each event before it takes the next. Raises nothing of the peer's making: a peer that
        breaks the protocol gives one ProtocolBroken, and nothing after it.
        """
        if self.state in _OVER:
            return
        try:
            for frame in self._framer.feed(buffer, start, end):
                match frame:
                    case DataRun():
                        self._judge_p_data()
                        yield frame
                    case CommandFrame():
                        self._judge_p_data()
                        command = decode_command_set(frame.data, self._limits)
                        if command.has_data_set:
                            self._framer.expect_data_set(frame.context_id)
                        yield CommandReceived(frame.context_id, command)
                    case ControlFrame():
                        yield self._received(decode_pdu(frame.pdu_type, frame.body, self._limits))
                    case _:
                        assert_never(frame)
                if self.is_over:
                    return
        except RemoteProtocolError as error:
            yield self._broken(error)

    def send(self, pdu: ControlPdu) -> bytes:
        """Return the encoded PDU and change the state as Table 9-10 says.

        Raises LocalProtocolError where the table does not allow it now.
        """
        step = transition(_SENT[type(pdu)], self.state, is_requestor=self._is_requestor)
        if step is None:
            raise LocalProtocolError(f"{type(pdu).__name__} can't be sent in state {self.state.name}")
        self._enter(step[1])
        return encode_pdu(pdu)

    def abort(self, source: AbortSource, reason: AbortReason) -> bytes:
        """Return an A-ABORT PDU, or b"" where none may be sent any more."""
        if self.is_over:
            return b""
        self._enter(Sta.STA13)
        return encode_pdu(AAbort(source=source, reason=reason))

    def connection_closed(self) -> None:
        """Note that the transport connection is gone."""
        self._enter(Sta.STA1)

    def _enter(self, state: Sta) -> None:
        self.state = state
        self._framer.data_transfer = state in _P_DATA_STATES

    def _judge_p_data(self) -> None:
        # A command is judged when it is whole; by then the state may have left data transfer.
        if self.state not in _P_DATA_STATES:
            raise RemoteProtocolError(AbortReason.UNEXPECTED_PDU, "PS3.8 §9.2", f"P-DATA-TF in state {self.state.name}")

    def _received(self, pdu: ControlPdu) -> Event:
        action, state = self._step(_RECEIVED[type(pdu)])
        if action in (Action.AA_1, Action.AA_8):
            raise RemoteProtocolError(
                AbortReason.UNEXPECTED_PDU,
                "PS3.8 §9.2, Table 9-10",
                f"{type(pdu).__name__} in state {self.state.name}",
            )
        self._enter(state)
        match pdu:
            case AAssociateRq():
                return AssociationRequested(pdu)
            case AAssociateAc():
                return AssociationAccepted(pdu)
            case AAssociateRj():
                return AssociationRejected(pdu)
            case AReleaseRq():
                return ReleaseRequested()
            case AReleaseRp():
                return ReleaseConfirmed()
            case AAbort(source=source, reason=reason):
                return PeerAborted(source, reason)
            case _:
                assert_never(pdu)

    def _step(self, event: Evt) -> tuple[Action, Sta]:
        step = transition(event, self.state, is_requestor=self._is_requestor)
        # INVARIANT: the table answers every PDU in every state that has a connection; `receive` left the others.
        return step if step is not None else (Action.AA_8, Sta.STA13)

    def _broken(self, error: RemoteProtocolError) -> ProtocolBroken:
        """Answer an invalid PDU (Evt19): A-ABORT of the service provider, with the reason that the error names."""
        self._enter(Sta.STA13)
        return ProtocolBroken(error, encode_pdu(AAbort(source=AbortSource.SERVICE_PROVIDER, reason=error.abort_reason)))
