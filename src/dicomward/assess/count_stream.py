"""The answers to one C-FIND, from the bytes of the connection to a tally, without an object for each of them.

Rules of this file: every length is judged at its header; what is kept between two reads is at most one PDU. A command
set is decoded once by dicom.dimse and known again by its bytes: pending responses of one query are all the same. What
breaks the protocol raises StreamBroken, which names a rule and carries no byte of what came.
"""

from struct import Struct
from typing import Final

from dicomward.assess.count_tally import Tally
from dicomward.dicom.dimse import decode_command_set
from dicomward.dicom.errors import RemoteProtocolError
from dicomward.dicom.limits import Limits
from dicomward.vocab.dimse import RESPONSE_BIT, Operation, is_pending

_PDU: Final = Struct(">BxI")
_PDV: Final = Struct(">IBB")
_P_DATA_TF: Final = 4
_RELEASE_RQ: Final = 5
_ABORT: Final = 7
_COMMAND: Final = 1
_LAST: Final = 2
_REMEMBERED_COMMANDS: Final = 64
_FIND_RESPONSE: Final = Operation.C_FIND | RESPONSE_BIT


class StreamBroken(Exception):
    """The peer broke the protocol, or sent more than fits; the text names the rule only."""


class MatchReader:
    """Reads the responses to the C-FIND with `message_id`; its answers go to `tally`.

    `final_status` is set when the last response has come; `ended` if the peer aborted or released instead.
    """

    __slots__ = (
        "_command",
        "_data",
        "_known",
        "_limits",
        "_message_id",
        "_rest",
        "_tally",
        "_wants_data",
        "ended",
        "final_status",
        "matches",
    )

    def __init__(self, message_id: int, tally: Tally, limits: Limits) -> None:
        self._message_id = message_id
        self._tally = tally
        self._limits = limits
        self._rest = b""
        self._command = b""
        self._data = b""
        # Of a pending command set: if a data set follows.
        self._known: dict[bytes, bool] = {}
        self._wants_data = False
        self.final_status: int | None = None
        self.ended = False
        self.matches = 0

    @property
    def is_over(self) -> bool:
        """Say if nothing more comes."""
        return self.ended or self.final_status is not None

    def feed(self, data: bytes) -> None:
        """Take what was read. Raises StreamBroken."""
        if self._rest:
            data = self._rest + data
        pos, end = 0, len(data)
        most = self._limits.max_pdu_bytes + self._limits.max_pdu_tolerance_bytes
        while end - pos >= 6 and not self.is_over:
            kind, length = _PDU.unpack_from(data, pos)
            if kind != _P_DATA_TF:
                if kind in (_RELEASE_RQ, _ABORT):
                    self.ended = True
                    return
                raise StreamBroken(f"PDU type {kind:02X}H in data transfer (PS3.8 §9.2)")
            if length > most:
                raise StreamBroken("a PDU is longer than the maximum length announced (PS3.8 §D.1)")
            stop = pos + 6 + length
            if stop > end:
                break
            self._p_data(data, pos + 6, stop)
            pos = stop
        self._rest = data[pos:]

    def _p_data(self, data: bytes, pos: int, stop: int) -> None:
        while pos < stop:
            if stop - pos < 6:
                raise StreamBroken("a PDU is too short for its PDV (PS3.8 §9.3.5)")
            length, _context, flags = _PDV.unpack_from(data, pos)
            after = pos + 4 + length
            if length < 2 or after > stop:
                raise StreamBroken("a PDV does not fit into its PDU (PS3.8 §9.3.5.1)")
            if flags & _COMMAND:
                self._take_command(data[pos + 6 : after], last=bool(flags & _LAST))
            elif not self._wants_data:
                raise StreamBroken("a data set without a command (PS3.7 §6.3.1)")
            elif flags & _LAST and not self._data:
                self._wants_data = False
                self.matches += 1
                self._tally.add(data, pos + 6, after)
            else:
                self._take_data(data[pos + 6 : after], last=bool(flags & _LAST))
            pos = after

    def _take_command(self, fragment: bytes, *, last: bool) -> None:
        if self._wants_data:
            raise StreamBroken("a command inside another message (PS3.7 §6.3.1)")
        command = self._command + fragment if self._command else fragment
        if len(command) > self._limits.max_command_set_bytes:
            raise StreamBroken("a command set is too long (limit max_command_set_bytes)")
        if not last:
            self._command = command
            return
        self._command = b""
        known = self._known.get(command)
        self._wants_data = self._decode(command) if known is None else known

    def _decode(self, command: bytes) -> bool:
        """Return if a data set follows a response, and remember it for pending ones."""
        try:
            response = decode_command_set(command, self._limits)
        except RemoteProtocolError as error:
            # Its detail may quote what came, so only the rule is passed on.
            raise StreamBroken(f"a command set can't be read ({error.clause})") from None
        if response.command_field != _FIND_RESPONSE or response.message_id_being_responded_to != self._message_id:
            raise StreamBroken("what came is no response to our query (PS3.7 §9.3.2.2)")
        if not is_pending(response.status or 0):
            self.final_status = response.status
        elif len(self._known) < _REMEMBERED_COMMANDS:
            self._known[command] = response.has_data_set
        return response.has_data_set

    def _take_data(self, fragment: bytes, *, last: bool) -> None:
        data = self._data + fragment
        if len(data) > self._limits.max_response_identifier_bytes:
            raise StreamBroken("an answer is too long (limit max_response_identifier_bytes)")
        if not last:
            self._data = data
            return
        self._data = b""
        self._wants_data = False
        self.matches += 1
        self._tally.add(data, 0, len(data))
