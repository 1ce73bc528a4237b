"""What the gateway opens towards a device comes here first: reports of Storage Commitment may be for the agent itself.

It listens within this machine, behind the relay of the reverse gate. An association that can only bring reports is
served here: the transaction UID says if the agent has asked, else the report goes on to the device. Everything else
goes to the device byte by byte.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from dicomward.dicom.codec import decode_pdu, encode_pdu
from dicomward.dicom.errors import RemoteProtocolError
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import AAssociateRq
from dicomward.edge.commitment import Report
from dicomward.edge.contexts import is_for_reports
from dicomward.io.edge.report_scp import ReportScp
from dicomward.io.gateway.server import open_listener
from dicomward.io.listening import OpenConnections, Reception, shut
from dicomward.relay.refusals import reject_for
from dicomward.settings import ListenAddress
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

MOST_ASSOCIATIONS: Final = 64
_LOOPBACK: Final = "127.0.0.1"
_CONNECT_SECONDS: Final = 10.0
_REQUEST_SECONDS: Final = 30.0
_HEADER_BYTES: Final = 6
_A_ASSOCIATE_RQ: Final = 1
_SPLICE_BYTES: Final = 256 * 1024


class ReportFront:
    """Between the reverse gate and one device. `take` says if a report is the agent's own."""

    def __init__(
        self, name: str, device: ListenAddress | None, take: Callable[[Report], bool], *, is_device_told: bool
    ) -> None:
        """`is_device_told`: the device may get reports of its own. Raises OSError."""
        self._name, self._device, self._take = name, device, take
        self._told = device if is_device_told else None
        listening = open_listener(_LOOPBACK, 0)
        listening.setblocking(True)
        self._places = threading.BoundedSemaphore(MOST_ASSOCIATIONS)
        self._open = OpenConnections()
        self._reception = Reception(
            listening,
            f"dicomward-edge-reports-{name}",
            enter=lambda _address: self._enter(),
            answer=lambda connection, _address: self._serve(connection),
            leave=lambda _address: self._places.release(),
        )
        self.address = ListenAddress(host=self._reception.host, port=self._reception.port)

    def start(self) -> None:
        """Begin."""
        self._reception.start()

    def stop(self) -> None:
        """End, with every association."""
        self._reception.stop()
        self._open.end()

    def _enter(self) -> bool:
        if self._places.acquire(blocking=False):
            return True
        _log.warning("%s: an association of the gateway is closed: there are too many", self._name)
        return False

    def _serve(self, connection: socket.socket) -> None:
        try:
            with self._noted(connection):
                connection.settimeout(_REQUEST_SECONDS)
                data = _read_request(connection)
                request = _decoded(data)
                if request is not None and is_for_reports(request):
                    ReportScp(self._name, connection, self._told, self._take).serve(data)
                else:
                    self._pass_on(connection, data)
        except OSError as error:
            _log.info("%s: an association of the gateway ended: %s", self._name, error)
        except Exception:  # noqa: BLE001  it ends this association and nobody else's
            _log.exception("%s: an association of the gateway ended by an internal error", self._name)

    @contextmanager
    def _noted(self, connection: socket.socket) -> Iterator[socket.socket]:
        """Let `stop` end a connection, and close it at the end."""
        self._open.add(connection)
        try:
            yield connection
        finally:
            self._open.discard(connection)
            connection.close()

    def _pass_on(self, connection: socket.socket, data: bytes) -> None:
        """Give the device everything, as it comes. Raises OSError."""
        if self._device is None:
            _log.warning("%s: an association of the gateway is rejected: the device has no address here", self._name)
            connection.sendall(encode_pdu(reject_for(ReasonCode.UPSTREAM_UNREACHABLE)))
            return
        where = (self._device.host, self._device.port)
        with self._noted(socket.create_connection(where, _CONNECT_SECONDS)) as device:
            device.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for each in (device, connection):
                each.settimeout(None)
            device.sendall(data)
            back = threading.Thread(target=_copy, args=(device, connection), daemon=True)
            back.start()
            _copy(connection, device)
            back.join()


def _read_request(connection: socket.socket) -> bytes:
    """Return the first PDU as far as it is a request: all of it. Raises OSError."""
    data = _read(connection, _HEADER_BYTES)
    length = int.from_bytes(data[2:], "big")
    if data[0] != _A_ASSOCIATE_RQ or length > Limits().max_association_pdu_bytes:
        return data
    return data + _read(connection, length)


def _read(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionResetError("closed before the request was there")
        data += part
    return bytes(data)


def _decoded(data: bytes) -> AAssociateRq | None:
    try:
        request = decode_pdu(data[0], data[_HEADER_BYTES:], Limits())
    except RemoteProtocolError:
        # The device says what it thinks of it.
        return None
    return request if isinstance(request, AAssociateRq) else None


def _copy(source: socket.socket, sink: socket.socket) -> None:
    buffer = memoryview(bytearray(_SPLICE_BYTES))
    try:
        while count := source.recv_into(buffer):
            sink.sendall(buffer[:count])
    except OSError:
        # Whoever has gone, the other one hears it.
        pass
    for each in (source, sink):
        shut(each)
