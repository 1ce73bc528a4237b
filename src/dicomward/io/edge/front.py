"""The listener of a device whose objects are spooled: who may store goes to the spool, everybody else to the relay.

The A-ASSOCIATE-RQ is looked at in the socket's own buffer and left there, so whoever serves the association reads it.
"""

import logging
import socket
import threading
import time
from typing import Final

from dicomward.dicom.codec import decode_pdu, encode_pdu
from dicomward.dicom.errors import RemoteProtocolError
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import AAssociateRq
from dicomward.edge.contexts import asks_for_commitment, is_for_spool
from dicomward.io.edge.scp import COMMITMENT_SECONDS, StoreScp
from dicomward.io.gateway.server import Acceptor
from dicomward.io.listening import OpenConnections, Reception
from dicomward.io.system import calls
from dicomward.relay.refusals import reject_for
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

MOST_ASSOCIATIONS: Final = 128
_HEADER_BYTES: Final = 6
_A_ASSOCIATE_RQ: Final = 1


class EdgeFront:
    """Accepts the connections of one device."""

    def __init__(
        self,
        listening: socket.socket,
        acceptor: Acceptor,
        scp: StoreScp,
        request_seconds: float,
    ) -> None:
        self._acceptor = acceptor
        self._scp = scp
        self._request_seconds = request_seconds
        self._places = threading.BoundedSemaphore(MOST_ASSOCIATIONS)
        self._open = OpenConnections()
        listening.setblocking(True)
        self._reception = Reception(
            listening,
            f"dicomward-edge-{scp.name}",
            enter=self._enter,
            answer=self._serve,
            leave=lambda _address: self._places.release(),
        )

    def start(self) -> None:
        """Begin to accept."""
        self._reception.start()

    def stop(self) -> None:
        """Accept nobody any more, and end the spool's associations: what was answered is durable."""
        self._reception.stop()
        self._open.end()

    def _enter(self, address: str) -> bool:
        if self._scp.zone.allows(address) and self._places.acquire(blocking=False):
            return True
        _log.warning("%s: connection of %s closed: a stranger, or too many", self._scp.name, address)
        return False

    def _serve(self, connection: socket.socket, address: str) -> None:
        self._open.add(connection)
        try:
            try:
                request = self._peek(connection)
            except OSError as error:
                _log.info("%s: connection of %s ended: %s", self._scp.name, address, error)
                connection.close()
                return
            if request is not None and is_for_spool(request):
                self._scp.serve(connection, address)
                return
            if request is not None and asks_for_commitment(request) and not self._scp.delivered(COMMITMENT_SECONDS):
                _log.warning("%s: a commitment request is rejected for now: objects still wait", self._scp.name)
                # Closed with the request unread, the connection would be reset, and the answer lost.
                connection.recv(_HEADER_BYTES + Limits().max_association_pdu_bytes)
                connection.sendall(encode_pdu(reject_for(ReasonCode.DRAINING)))
                connection.close()
                return
            self._open.discard(connection)
            self._acceptor.admit(connection, address)
        except Exception:  # noqa: BLE001  it ends this association and nobody else's
            _log.exception("%s: association of %s ended by an internal error", self._scp.name, address)
            connection.close()
        finally:
            self._open.discard(connection)

    def _peek(self, connection: socket.socket) -> AAssociateRq | None:
        """Return the request, which stays unread; None if it is none: the relay says so. Raises OSError."""
        deadline = time.monotonic() + self._request_seconds
        header = self._peek_bytes(connection, _HEADER_BYTES, deadline)
        length = int.from_bytes(header[2:], "big")
        if header[0] != _A_ASSOCIATE_RQ or length > Limits().max_association_pdu_bytes:
            return None
        data = self._peek_bytes(connection, _HEADER_BYTES + length, deadline)
        try:
            request = decode_pdu(_A_ASSOCIATE_RQ, data[_HEADER_BYTES:], Limits())
        except RemoteProtocolError:
            return None
        return request if isinstance(request, AAssociateRq) else None

    def _peek_bytes(self, connection: socket.socket, count: int, deadline: float) -> bytes:
        """Wait until so many bytes are there. Raises OSError."""
        try:
            data = calls.peek(connection, count, max(deadline - time.monotonic(), 0.0))
        except TimeoutError as error:
            raise TimeoutError("no whole A-ASSOCIATE-RQ in time") from error
        if len(data) < count:
            raise ConnectionError("closed in the middle of the A-ASSOCIATE-RQ")
        return data
