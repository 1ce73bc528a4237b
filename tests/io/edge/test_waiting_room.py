"""Before there is a certificate everybody is rejected for now, and strangers aren't answered."""

import socket
from datetime import date

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAssociateRj
from dicomward.identity.zone import LegacyZone
from dicomward.io.edge.waiting_room import WaitingRoom
from dicomward.io.gateway.server import open_listener
from tests.io.world import Peer
from tests.relay.wire import VERIFICATION, a_associate_rq


def test_device_is_rejected_for_now_and_the_socket_goes_on() -> None:
    listening = open_listener("127.0.0.1", 0)
    zone = LegacyZone(name="ct1", networks=("127.0.0.1/32",), end_date=date.max)
    room = WaitingRoom(zone, listening)
    room.start()
    for _ in range(2):
        with Peer(socket.create_connection(listening.getsockname()[:2])) as peer:
            peer.send(encode_pdu(a_associate_rq({1: VERIFICATION})))
            reject = peer.next()
            assert isinstance(reject, AAssociateRj)
            # Transient, temporary congestion.
            assert (reject.result, reject.source, reject.reason) == (2, 3, 1)
    room.stop()
    # Whoever calls now waits for who serves next.
    with socket.create_connection(listening.getsockname()[:2]):
        accepted, _address = listening.accept()
        accepted.close()
    listening.close()


def test_stranger_is_not_answered() -> None:
    listening = open_listener("127.0.0.1", 0)
    room = WaitingRoom(LegacyZone(name="ct1", networks=("192.0.2.7/32",), end_date=date.max), listening)
    room.start()
    with Peer(socket.create_connection(listening.getsockname()[:2])) as peer:
        assert peer.is_gone()
    room.stop()
    listening.close()
