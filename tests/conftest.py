"""For all tests: pynetdicom, which plays peers in several rooms, is quiet and leaves nothing open."""

import contextlib
import logging
import socket
import sys
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def _quiet_pynetdicom() -> None:
    """Peers that are refused or aborted on purpose are no news."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


@pytest.fixture(scope="session", autouse=True)
def _pynetdicom_closes_its_sockets() -> None:
    """pynetdicom 3.0.4 forgets to close a socket whose shutdown fails, because its peer was the first to close.

    Python warns of it when the socket is collected, so in whatever test the process happens to be by then.
    """
    transport = sys.modules.get("pynetdicom.transport")
    if transport is None:
        # No test of this run plays a peer with it.
        return

    def shut_down(own: Any) -> None:
        # Another thread may take it away meanwhile.
        if (connected := own.socket) is not None:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
            connected.close()

    transport.AssociationSocket._shutdown_socket = shut_down
