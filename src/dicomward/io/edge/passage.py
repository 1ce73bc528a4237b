"""What a storing device does besides storing: an association of its own through the agent's relay, for one of its own.

The agent is the requestor here, on a connection within this process whose other end the relay serves as if the device
had called: same address, same AE titles, same policy. Messages pass as they are; one thread brings back what comes.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from dicomward.dicom.association import Association
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.errors import LocalProtocolError
from dicomward.dicom.events import AssociationAccepted, CommandReceived, Event
from dicomward.dicom.framing import HEADROOM, DataRun, encode_p_data, refragment
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import AAssociateAc, AAssociateRq, AReleaseRq, PresentationContextAc
from dicomward.relay.negotiation import clamp_maximum_length
from dicomward.vocab.association import AbortReason, AbortSource, PresentationResult
from dicomward.vocab.dimse import is_pending

_READ_BYTES: Final = 64 * 1024
_LOOPBACK: Final = "127.0.0.1"
_RELEASE_SECONDS: Final = 5.0


class PassageClosed(Exception):
    """The archive can't be reached, or has ended the association."""


class DeviceSide(Protocol):
    """The association with the device."""

    writing: threading.RLock

    def send(self, data: bytes) -> None:
        """Send PDUs. Raises OSError."""

    def passage_lost(self) -> None:
        """End the association: an answer that the device waits for will not come."""


def connected_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a TCP connection within this process. Raises OSError."""
    with socket.create_server((_LOOPBACK, 0), backlog=1) as listener:
        near = socket.create_connection(listener.getsockname()[:2])
        while True:
            far, peer = listener.accept()
            if peer == near.getsockname():
                return near, far
            # Somebody else on this machine was faster.
            far.close()


class Passage:
    """The other services of one device's association."""

    def __init__(
        self,
        admit: Callable[[socket.socket], None],
        request: AAssociateRq,
        device: DeviceSide,
        *,
        seconds: float,
    ) -> None:
        """`admit` gives the relay its end of a connection. Ask with `open`."""
        self._admit = admit
        self._request = request
        self._device = device
        self._seconds = seconds
        self._towards_device = clamp_maximum_length(request.user_information.maximum_length, Limits().max_pdu_bytes)
        self._accepted: dict[int, str] = {}
        self._inner: _Inner | None = None

    def open(self) -> AAssociateAc:
        """Ask the archive; return what it has accepted. Raises PassageClosed."""
        try:
            near, far = connected_pair()
        except OSError as error:
            raise PassageClosed(str(error)) from error
        self._admit(far)
        inner = _Inner(near, self._device, self._towards_device)
        try:
            accept = inner.associate(self._request, self._seconds)
        except (OSError, PassageClosed) as error:
            near.close()
            raise PassageClosed(str(error)) from error
        self._accepted = _syntaxes(accept.presentation_contexts)
        self._inner = inner
        inner.start()
        return accept

    def command(self, context_id: int, command: CommandSet) -> None:
        """Pass a command of the device; on a new association if the old one has ended. Raises PassageClosed."""
        if (self._inner is None or self._inner.is_over) and command.is_request:
            before = self._accepted
            self.open()
            if any(self._accepted.get(each) != syntax for each, syntax in before.items()):
                raise PassageClosed("the archive no longer accepts what it has accepted")
        self._open_inner().command(context_id, command)

    def data(self, run: DataRun) -> None:
        """Pass a part of the data set that belongs to the last command. Raises PassageClosed."""
        self._open_inner().data(run)

    def _open_inner(self) -> "_Inner":
        if self._inner is None:
            raise PassageClosed("it was never open")
        return self._inner

    def release(self) -> None:
        """End it in order, as the device has done."""
        if self._inner is not None:
            self._inner.release()

    def abort(self) -> None:
        """End it, as the device has done."""
        if self._inner is not None:
            self._inner.abort()


def _syntaxes(contexts: tuple[PresentationContextAc, ...]) -> dict[int, str]:
    return {each.context_id: each.transfer_syntax for each in contexts if each.result == PresentationResult.ACCEPTANCE}


class _Inner:
    """One association through the relay."""

    def __init__(self, connection: socket.socket, device: DeviceSide, towards_device: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._device = device
        self._towards_device = towards_device
        self._association = Association(is_requestor=True, limits=Limits())
        self._buffer = memoryview(bytearray(HEADROOM + _READ_BYTES))
        self._maximum = 0
        self._lock = threading.Lock()
        self._pending: set[int] = set()
        self._is_released = False
        self.is_over = False
        self._thread = threading.Thread(target=self._run, name="dicomward-edge-passage", daemon=True)

    def associate(self, request: AAssociateRq, seconds: float) -> AAssociateAc:
        """Raise OSError, PassageClosed."""
        deadline = time.monotonic() + seconds
        self._connection.settimeout(seconds)
        self._connection.sendall(self._association.send(request))
        while True:
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            for event in self._events():
                if isinstance(event, AssociationAccepted):
                    self._maximum = clamp_maximum_length(
                        event.accept.user_information.maximum_length, Limits().max_pdu_bytes
                    )
                    self._association.announce_maximum_length(request.user_information.maximum_length)
                    self._connection.settimeout(None)
                    return event.accept
                raise PassageClosed(f"not accepted: {type(event).__name__}")

    def start(self) -> None:
        """Begin to bring back what comes."""
        self._thread.start()

    def command(self, context_id: int, command: CommandSet) -> None:
        """Raise PassageClosed."""
        if command.is_request and command.message_id is not None:
            with self._lock:
                self._pending.add(command.message_id)
        self._send(encode_p_data(context_id, encode_command_set(command), self._maximum, command=True))

    def data(self, run: DataRun) -> None:
        """Raise PassageClosed."""
        self._send(refragment(run.view, self._maximum))

    def _send(self, data: bytes) -> None:
        if self.is_over:
            raise PassageClosed("the association through the relay has ended")
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise PassageClosed(str(error)) from error

    def release(self) -> None:
        """Release, and wait for the end."""
        with self._lock:
            self._is_released = True
            self._pending.clear()
        try:
            self._connection.sendall(self._association.send(AReleaseRq()))
        except (OSError, LocalProtocolError):
            # It has ended by itself.
            self._shut()
        self._thread.join(_RELEASE_SECONDS)
        self._shut()

    def abort(self) -> None:
        """Abort."""
        with self._lock:
            self._is_released = True
            self._pending.clear()
        try:
            self._connection.sendall(self._association.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED))
        except OSError:
            # Nobody is there any more.
            pass
        self._shut()

    def _shut(self) -> None:
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _run(self) -> None:
        try:
            self._bring_back()
        except (OSError, PassageClosed):
            # What the device waits for is told below.
            pass
        finally:
            with self._lock:
                self.is_over = True
                is_missed = bool(self._pending) and not self._is_released
            self._connection.close()
        if is_missed:
            self._device.passage_lost()

    def _events(self) -> Iterator[Event]:
        """Yield what comes with the next read. Raises OSError, PassageClosed."""
        count = self._connection.recv_into(self._buffer[HEADROOM:])
        if not count:
            raise PassageClosed("the connection was closed")
        yield from self._association.receive(self._buffer, HEADROOM, HEADROOM + count)

    def _bring_back(self) -> None:
        """Raise OSError, PassageClosed."""
        is_writing = False
        try:
            while True:
                for event in self._events():
                    match event:
                        case CommandReceived(context_id=context_id, command=command):
                            # A message with its data set goes as a whole, whatever else the device is told meanwhile.
                            if command.has_data_set:
                                self._device.writing.acquire()
                                is_writing = True
                            self._note(command)
                            message = encode_command_set(command)
                            self._device.send(encode_p_data(context_id, message, self._towards_device, command=True))
                        case DataRun():
                            self._device.send(refragment(event.view, self._towards_device))
                            if event.last and is_writing:
                                self._device.writing.release()
                                is_writing = False
                        case _:
                            raise PassageClosed(type(event).__name__)
        finally:
            if is_writing:
                self._device.writing.release()

    def _note(self, command: CommandSet) -> None:
        if command.is_response and not is_pending(command.status or 0):
            with self._lock:
                self._pending.discard(command.message_id_being_responded_to or 0)
