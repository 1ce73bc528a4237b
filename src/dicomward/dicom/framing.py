"""Bytes of one direction → PDU frames: PS3.8 §9.3.1 (header), §9.3.5 (P-DATA-TF), Annex E.2 (message control header).

Rules of this room: the only file that may need more bytes; every length is judged at its header, before anything is
kept for it. Control PDUs and command sets are collected, under limits. Fragments of a data set are never collected:
they come out as *runs*, a view of the caller's buffer that already has the form of whole, well-formed P-DATA-TF PDUs,
so that a run can be written to the other leg as it stands.

A PDU that is cut by the end of the buffer is made whole in place: its header gets the length of what is there, and
the rest gets a new header in the free bytes (`HEADROOM`) before the next buffer's data. Nothing is copied, but one
byte: a fragment is only ever cut into even ones, since real archives end at an odd one (DCMTK: "Odd Fragment Length").
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from dicomward.dicom.errors import LimitExceeded, RemoteProtocolError
from dicomward.dicom.limits import Limits
from dicomward.vocab.association import AbortReason

HEADROOM = 32
"""Bytes before the data of a buffer that `Framer.feed` may write."""

P_DATA_TF = 4
_COMMAND = 1
_LAST = 2
_P_DATA_PLAIN = 0x0400
_PDU = Struct(">BBI")
_PDV = Struct(">IBB")
_BOTH = Struct(">HIIBB")
_ASSOCIATION_PDUS = (1, 2)
_FIXED_PDUS = (3, 5, 6, 7)
_FIXED_LENGTH = 4
_EVEN = ~1


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """A whole PDU that isn't P-DATA-TF; or P-DATA-TF (without its body) before data transfer is allowed."""

    pdu_type: int
    body: bytes


@dataclass(frozen=True, slots=True)
class CommandFrame:
    """A whole command set, reassembled."""

    context_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class DataRun:
    """Fragments of one data set, as whole P-DATA-TF PDUs in `view`, valid until the next `feed`.

    `payload_bytes` counts the fragments without headers; `largest_pdu` is the longest variable field in the run
    (bytes, what item 51 limits); `last` says that the data set ends with this run.
    """

    context_id: int
    view: memoryview
    payload_bytes: int
    largest_pdu: int
    last: bool


Frame = ControlFrame | CommandFrame | DataRun


class Framer:
    """Frames of one direction of one connection.

    After a CommandFrame whose command announces a data set, the caller calls `expect_data_set` before it takes the
    next frame. `data_transfer` stays False until the association is accepted.
    """

    __slots__ = (
        "_body",
        "_body_left",
        "_body_type",
        "_command",
        "_command_context",
        "_data_context",
        "_flags",
        "_limits",
        "_max_pdu",
        "_pdu_left",
        "_pdv_context",
        "_pdv_left",
        "_pending",
        "data_transfer",
        "oversize_pdus",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_pdu = limits.max_pdu_bytes
        self._pending = b""
        self._body = bytearray()
        self._body_type = 0
        self._body_left = 0
        self._pdu_left = 0
        self._pdv_left = 0
        self._pdv_context = 0
        self._flags = 0
        self._command = bytearray()
        self._command_context = 0
        self._data_context = 0
        self.data_transfer = False
        self.oversize_pdus = 0

    @property
    def in_message(self) -> bool:
        """Say if a command set or data set has begun and not ended."""
        return bool(self._data_context or self._command_context)

    def announce_maximum_length(self, max_pdu_bytes: int) -> None:
        """Set the maximum length (item 51) that the peer was told."""
        self._max_pdu = max_pdu_bytes

    def expect_data_set(self, context_id: int) -> None:
        """Say that a data set follows on this presentation context."""
        self._data_context = context_id

    # One loop over what may come next; taking it apart would cost a call for each PDU.
    def feed(self, buffer: memoryview, start: int, end: int) -> Iterator[Frame]:  # noqa: C901, PLR0912
        """Yield the frames in `buffer[start:end]`; at least HEADROOM bytes before `start` are ours to write.

        Raises RemoteProtocolError or LimitExceeded; after that the framer must not be fed again.
        """
        if self._pending:
            start -= len(self._pending)
            buffer[start : start + len(self._pending)] = self._pending
            self._pending = b""
        pos = start
        while pos < end:
            if self._body_left:
                pos = self._collect_body(buffer, pos, end)
                if not self._body_left:
                    yield self._control_frame()
            elif self._pdv_left:
                if self._flags & _COMMAND:
                    pos = self._collect_command(buffer, pos, end)
                    if not self._pdv_left and self._flags & _LAST:
                        yield self._command_frame()
                elif end - pos == 1 < self._pdv_left:
                    break
                else:
                    at_start = pos == start
                    run, pos = self._continue_fragment(buffer, pos, end, at_start=at_start)
                    if at_start and pos < end and self._data_context and not self._pdu_left:
                        # What follows stands right behind it, so both are one run.
                        more, pos = self._walk(buffer, pos, end)
                        if more is not None:
                            run = _joined(run, more, buffer[start - _BOTH.size : pos])
                    yield run
            elif self._pdu_left:
                if end - pos < _PDV.size:
                    break
                pos = self._begin_pdv(buffer, pos)
                if not self._pdv_left:
                    frame = self._empty_pdv()
                    if frame is not None:
                        yield frame
            else:
                if self._data_context:
                    run_or_none, pos = self._walk(buffer, pos, end)
                    if run_or_none is not None:
                        yield run_or_none
                        continue
                if end - pos < _PDU.size:
                    break
                pos = self._begin_pdu(buffer, pos)
                if self._body_type and not self._body_left:
                    yield self._control_frame()
        if pos < end:
            self._pending = bytes(buffer[pos:end])

    # -- the hot path: whole, single-PDV, data-set PDUs -------------------------------------------------------------

    def _walk(self, buffer: memoryview, pos: int, end: int) -> tuple[DataRun | None, int]:
        """Walk over PDUs that can pass as they stand; return one run of them, or None at the first that can't."""
        unpack = _BOTH.unpack_from
        context = self._data_context
        maximum = self._max_pdu
        begin = pos
        payload = largest = 0
        last = False
        while end - pos >= _BOTH.size:
            kind, pdu_length, pdv_length, context_id, flags = unpack(buffer, pos)
            if (
                kind != _P_DATA_PLAIN
                or pdv_length + 4 != pdu_length
                or context_id != context
                or flags & ~_LAST
                or pdu_length > maximum
                or pdv_length < 3
            ):
                break
            stop = pos + 6 + pdu_length
            if stop > end:
                available = end - pos - _BOTH.size & _EVEN
                if not available:
                    break
                _BOTH.pack_into(buffer, pos, _P_DATA_PLAIN, available + 6, available + 2, context, 0)
                pos += _BOTH.size + available
                self._pdv_left = self._pdu_left = stop - pos
                self._pdv_context, self._flags = context, flags
                payload += available
                largest = max(largest, available + 6)
                break
            pos = stop
            payload += pdv_length - 2
            largest = max(largest, pdu_length)
            if flags:
                last = True
                self._data_context = 0
                break
        if pos == begin:
            return None, pos
        return DataRun(context, buffer[begin:pos], payload, largest, last), pos

    def _continue_fragment(self, buffer: memoryview, pos: int, end: int, *, at_start: bool) -> tuple[DataRun, int]:
        """Give the rest of a fragment a header of its own."""
        size = self._pdv_left if self._pdv_left <= end - pos else end - pos & _EVEN
        self._pdv_left -= size
        self._pdu_left -= size
        last = not self._pdv_left and bool(self._flags & _LAST)
        header = (_P_DATA_PLAIN, size + 6, size + 2, self._pdv_context, _LAST if last else 0)
        if last:
            self._data_context = 0
        if at_start:
            _BOTH.pack_into(buffer, pos - _BOTH.size, *header)
            view = buffer[pos - _BOTH.size : pos + size]
        else:
            # The bytes before belong to an earlier fragment of the same PDU, so this one is copied.
            view = memoryview(_BOTH.pack(*header) + bytes(buffer[pos : pos + size]))
        return DataRun(self._pdv_context, view, size, size + 6, last), pos + size

    # -- headers ----------------------------------------------------------------------------------------------------

    def _begin_pdu(self, buffer: memoryview, pos: int) -> int:
        pdu_type, _reserved, length = _PDU.unpack_from(buffer, pos)
        if pdu_type == P_DATA_TF and self.data_transfer:
            self._judge_data_length(length)
            self._pdu_left = length
            return pos + _PDU.size
        if pdu_type in _ASSOCIATION_PDUS:
            if length > self._limits.max_association_pdu_bytes:
                raise LimitExceeded(
                    AbortReason.INVALID_PARAMETER_VALUE,
                    "PS3.8 §9.3.2",
                    f"association PDU of {length} bytes, at most {self._limits.max_association_pdu_bytes} are read",
                )
        elif pdu_type in _FIXED_PDUS:
            if length != _FIXED_LENGTH:
                raise RemoteProtocolError(
                    AbortReason.INVALID_PARAMETER_VALUE,
                    "PS3.8 §9.3",
                    f"PDU type {pdu_type} with length {length}, not 4",
                )
        elif pdu_type == P_DATA_TF:
            raise RemoteProtocolError(AbortReason.UNEXPECTED_PDU, "PS3.8 §9.2", "P-DATA-TF outside data transfer")
        else:
            raise RemoteProtocolError(
                AbortReason.UNRECOGNISED_PDU, "PS3.8 §9.3.1", f"PDU type {pdu_type:02X}H is not a DICOM PDU"
            )
        if self.in_message and pdu_type != 7:
            raise RemoteProtocolError(
                AbortReason.UNEXPECTED_PDU, "PS3.7 §6.3", f"PDU type {pdu_type} in the middle of a message"
            )
        self._body_type, self._body_left = pdu_type, length
        return pos + _PDU.size

    def _judge_data_length(self, length: int) -> None:
        if length < _PDV.size:
            raise RemoteProtocolError(
                AbortReason.INVALID_PARAMETER_VALUE,
                "PS3.8 §9.3.5",
                f"P-DATA-TF of {length} bytes has no room for a PDV",
            )
        if length > self._max_pdu:
            if length > self._max_pdu + self._limits.max_pdu_tolerance_bytes:
                raise LimitExceeded(
                    AbortReason.INVALID_PARAMETER_VALUE,
                    "PS3.8 §D.1",
                    f"P-DATA-TF of {length} bytes, the maximum length announced was {self._max_pdu}",
                )
            self.oversize_pdus += 1

    def _begin_pdv(self, buffer: memoryview, pos: int) -> int:
        length, context_id, flags = _PDV.unpack_from(buffer, pos)
        if length < 2 or length + 4 > self._pdu_left:
            raise RemoteProtocolError(
                AbortReason.INVALID_PARAMETER_VALUE,
                "PS3.8 §9.3.5.1",
                f"PDV of {length} bytes in {self._pdu_left} bytes that are left of its PDU",
            )
        self._pdu_left -= _PDV.size
        if 0 < self._pdu_left - (length - 2) < _PDV.size:
            raise RemoteProtocolError(
                AbortReason.INVALID_PARAMETER_VALUE, "PS3.8 §9.3.5", "bytes after the last PDV of a P-DATA-TF"
            )
        self._pdv_left = length - 2
        self._pdv_context = context_id
        # PS3.8 §E.2: bits 2 to 7 are not tested.
        self._flags = flags & (_COMMAND | _LAST)
        if self._flags & _COMMAND:
            self._judge_command_fragment(context_id)
        elif context_id != self._data_context:
            raise RemoteProtocolError(
                AbortReason.UNEXPECTED_PDU,
                "PS3.7 §6.3.1",
                f"fragment of a data set on context {context_id}, expected "
                + (f"one on {self._data_context}" if self._data_context else "a command"),
            )
        return pos + _PDV.size

    def _judge_command_fragment(self, context_id: int) -> None:
        if self._data_context or self._command_context not in (0, context_id):
            raise RemoteProtocolError(
                AbortReason.UNEXPECTED_PDU, "PS3.7 §6.3.1", f"command on context {context_id} inside another message"
            )
        if len(self._command) + self._pdv_left > self._limits.max_command_set_bytes:
            raise LimitExceeded(
                AbortReason.INVALID_PARAMETER_VALUE,
                "PS3.7 §6.3.1",
                f"command set of more than {self._limits.max_command_set_bytes} bytes",
            )
        self._command_context = context_id

    def _empty_pdv(self) -> Frame | None:
        """Answer for a PDV without a fragment: it matters only where it is the last."""
        if not self._flags & _LAST:
            return None
        if self._flags & _COMMAND:
            return self._command_frame()
        context, self._data_context = self._data_context, 0
        return DataRun(context, memoryview(_BOTH.pack(_P_DATA_PLAIN, 6, 2, context, _LAST)), 0, 6, last=True)

    # -- collected parts --------------------------------------------------------------------------------------------

    def _collect_body(self, buffer: memoryview, pos: int, end: int) -> int:
        size = min(self._body_left, end - pos)
        self._body += buffer[pos : pos + size]
        self._body_left -= size
        return pos + size

    def _control_frame(self) -> ControlFrame:
        frame = ControlFrame(self._body_type, bytes(self._body))
        self._body = bytearray()
        self._body_type = 0
        return frame

    def _collect_command(self, buffer: memoryview, pos: int, end: int) -> int:
        size = min(self._pdv_left, end - pos)
        self._command += buffer[pos : pos + size]
        self._pdv_left -= size
        self._pdu_left -= size
        return pos + size

    def _command_frame(self) -> CommandFrame:
        frame = CommandFrame(self._command_context, bytes(self._command))
        self._command = bytearray()
        self._command_context = 0
        return frame


def _joined(run: DataRun, more: DataRun, view: memoryview) -> DataRun:
    """Return two runs that are neighbours in a buffer as one."""
    return DataRun(
        run.context_id,
        view,
        run.payload_bytes + more.payload_bytes,
        max(run.largest_pdu, more.largest_pdu),
        more.last,
    )


def encode_p_data(context_id: int, data: bytes | memoryview, max_pdu_bytes: int, *, command: bool) -> bytes:
    """Return P-DATA-TF PDUs that carry `data` as one whole command set or data set.

    `max_pdu_bytes` is the receiver's maximum length (item 51), at least 7.
    """
    size = (max_pdu_bytes - _PDV.size & _EVEN) or 1
    kind = _COMMAND if command else 0
    out = bytearray()
    for at in range(0, max(len(data), 1), size):
        part = data[at : at + size]
        last = _LAST if at + size >= len(data) else 0
        out += _BOTH.pack(_P_DATA_PLAIN, len(part) + 6, len(part) + 2, context_id, kind | last)
        out += part
    return bytes(out)


def fragments_of(run: memoryview) -> Iterator[tuple[memoryview, bool]]:
    """Yield each fragment of a run (see DataRun) with its last-fragment flag."""
    pos = 0
    while pos < len(run):
        _kind, pdu_length, _pdv_length, _context_id, flags = _BOTH.unpack_from(run, pos)
        for_next = pos + 6 + pdu_length
        yield run[pos + _BOTH.size : for_next], bool(flags & _LAST)
        pos = for_next


def refragment(run: memoryview, max_pdu_bytes: int) -> bytes:
    """Return the fragments of a run in PDUs of at most `max_pdu_bytes` (variable field, at least 7)."""
    size = (max_pdu_bytes - _PDV.size & _EVEN) or 1
    context_id = run[10]
    out = bytearray()
    for fragment, last in fragments_of(run):
        for at in range(0, max(len(fragment), 1), size):
            part = fragment[at : at + size]
            flag = _LAST if last and at + size >= len(fragment) else 0
            out += _BOTH.pack(_P_DATA_PLAIN, len(part) + 6, len(part) + 2, context_id, flag)
            out += part
    return bytes(out)
