"""Rejects whoever calls while its device has no certificate yet: nothing would reach the archive.

The spool's key may come with the certificate as well, so nothing is stored either.
"""

import logging
import selectors
import socket
import threading
from typing import Final

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.limits import Limits
from dicomward.identity.zone import LegacyZone
from dicomward.relay.refusals import reject_for
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

_REQUEST_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.5
_MOST_AT_ONCE: Final = 8


class WaitingRoom:
    """Answers on a listening socket, which stays open when it stops."""

    def __init__(self, zone: LegacyZone, listening: socket.socket) -> None:
        self._zone, self._listening = zone, listening
        self._stopping = threading.Event()
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)
        self._thread = threading.Thread(target=self._run, name=f"dicomward-edge-waits-{zone.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Leave the socket to somebody else."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            while not self._stopping.is_set():
                if selector.select(_LOOK_SECONDS):
                    self._accept()

    def _accept(self) -> None:
        try:
            connection, peer = self._listening.accept()
        except OSError as error:
            _log.info("%s: a connection can't be accepted: %s", self._zone.name, error)
            return
        if not self._zone.allows(str(peer[0])) or not self._places.acquire(blocking=False):
            connection.close()
            return
        threading.Thread(target=self._reject, args=(connection, str(peer[0])), daemon=True).start()

    def _reject(self, connection: socket.socket, address: str) -> None:
        _log.warning("%s: association from %s rejected: there is no certificate yet", self._zone.name, address)
        try:
            with connection:
                connection.settimeout(_REQUEST_SECONDS)
                # Closed with the request unread, the connection would be reset, and the answer lost.
                connection.recv(Limits().max_association_pdu_bytes)
                connection.sendall(encode_pdu(reject_for(ReasonCode.UPSTREAM_UNREACHABLE)))
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)
        except OSError as error:
            _log.info("%s: connection of %s ended: %s", self._zone.name, address, error)
        finally:
            self._places.release()
