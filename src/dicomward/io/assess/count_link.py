"""One association at a time with a server that is counted: its queries, bounded in time, answers and memory.

Rules of this file: what came in goes to a MatchReader and nowhere else; errors are told in words of ours.
"""

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from dicomward.assess.count_limits import CountLimits
from dicomward.assess.count_query import STORAGE_CONTEXTS, Caller, accepted_contexts, association_request, cancel, query
from dicomward.assess.count_stream import MatchReader, StreamBroken
from dicomward.assess.count_tally import Tally
from dicomward.dicom.association import Association
from dicomward.dicom.events import AssociationAccepted, AssociationRejected, PeerAborted
from dicomward.dicom.framing import HEADROOM
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import AReleaseRq
from dicomward.relay.negotiation import clamp_maximum_length
from dicomward.vocab.association import AbortReason, AbortSource

_READ_BYTES: Final = 512 * 1024
DRAIN_SECONDS: Final = 5.0
# How long a wait for an answer may keep us from seeing that we are to stop.
LOOK_SECONDS: Final = 1.0


class LinkGone(Exception):
    """The association is over; the text is ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTarget:
    """Whom to count."""

    address: str
    port: int
    caller: Caller
    context: ssl.SSLContext | None = None


@dataclass(slots=True)
class Answer:
    """How a query ended: `status` is None if it did not."""

    matches: int
    status: int | None
    over: bool = False
    problem: str = ""


class Link(Protocol):
    """A door of a server through which studies can be counted.

    `contexts`: the presentation contexts that it accepted; `can_store`: if images may be stored, None if not known.
    """

    connected: bool
    rejected: tuple[int, int, int] | None
    contexts: frozenset[int]
    can_store: bool | None
    slowest: float

    def open(self) -> None:
        """Be ready for a query. Raises LinkGone."""

    def ask(self, dates: str, tally: Tally, most: int, deadline: float) -> Answer:
        """Send one query and count its answers, at most about `most` and until `deadline`. Raises LinkGone."""

    def release(self) -> None:
        """End it as one should."""

    def close(self) -> None:
        """Hang up."""


class DimseLink:
    """One association at a time, opened when it is needed."""

    def __init__(self, target: CountTarget, limits: CountLimits, is_stopped: Callable[[], bool]) -> None:
        self._target = target
        self._limits = limits
        self._is_stopped = is_stopped
        self._look_at = 0.0
        self._connection: socket.socket | None = None
        self._association: Association | None = None
        self._message_id = 0
        self._max_pdu = 0
        self.wire = Limits()
        self.contexts: frozenset[int] = frozenset()
        self.can_store: bool | None = False
        self.rejected: tuple[int, int, int] | None = None
        self.connected = False
        self.slowest = 0.0

    def open(self) -> None:
        """Connect and associate. Raises LinkGone."""
        if self._connection is not None:
            return
        target = self._target
        try:
            connection = socket.create_connection((target.address, target.port), self._limits.connect_seconds)
            self.connected = True
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.context is not None:
                connection = target.context.wrap_socket(connection, server_hostname=target.address)
            self._connection = connection
            self._associate(connection)
        except TimeoutError:
            self.close()
            raise LinkGone("no answer in time") from None
        except OSError as error:
            self.close()
            raise LinkGone(f"the connection failed: {error.strerror or type(error).__name__}") from None
        except LinkGone:
            self.close()
            raise

    def _associate(self, connection: socket.socket) -> None:
        association = Association(is_requestor=True, limits=self.wire)
        association.announce_maximum_length(self.wire.max_pdu_bytes)
        connection.sendall(association.send(association_request(self._target.caller, self.wire)))
        buffer = memoryview(bytearray(HEADROOM + self.wire.max_association_pdu_bytes))
        deadline = time.monotonic() + self._limits.idle_seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LinkGone("no answer in time")
            connection.settimeout(left)
            count = connection.recv_into(buffer[HEADROOM:])
            if not count:
                raise LinkGone("it closed the connection instead of an answer")
            for event in association.receive(buffer, HEADROOM, HEADROOM + count):
                match event:
                    case AssociationAccepted(accept=accept):
                        self.contexts = accepted_contexts(accept)
                        self.can_store = bool(self.contexts & STORAGE_CONTEXTS.keys())
                        self._association = association
                        self._max_pdu = clamp_maximum_length(
                            accept.user_information.maximum_length, self.wire.max_pdu_bytes
                        )
                        return
                    case AssociationRejected(reject=reject):
                        self.rejected = (reject.result, reject.source, reject.reason)
                        raise LinkGone("the association was rejected")
                    case PeerAborted():
                        raise LinkGone("it aborted the association")
                    case _:
                        raise LinkGone("what it sent is not DICOM")

    def ask(self, dates: str, tally: Tally, most: int, deadline: float) -> Answer:
        """Send one query and count its answers, at most about `most` and until `deadline`. Raises LinkGone."""
        self.open()
        connection = self._connection
        if connection is None:
            raise LinkGone("the association is over")
        self._message_id = self._message_id % 0xFFFF + 1
        reader = MatchReader(self._message_id, tally, self.wire)
        began = heard = time.monotonic()
        try:
            connection.settimeout(self._limits.idle_seconds)
            connection.sendall(query(self._message_id, dates, self._max_pdu))
            while not reader.is_over:
                is_enough = reader.matches > most
                if is_enough or (why := self._why_end(deadline)):
                    return self._cancel(connection, reader, "" if is_enough else why)
                data = next_bytes(connection, deadline)
                now = time.monotonic()
                if data is None:
                    if now - heard >= self._limits.idle_seconds:
                        raise TimeoutError
                    continue
                if heard == began:
                    self.slowest = max(self.slowest, now - began)
                heard = now
                if not data:
                    raise LinkGone("it closed the connection")
                reader.feed(data)
        except TimeoutError:
            self.close()
            return Answer(reader.matches, None, problem="it fell silent")
        except StreamBroken as broken:
            self.close()
            return Answer(reader.matches, None, problem=str(broken))
        except (OSError, LinkGone):
            self.close()
            return Answer(reader.matches, None, problem="it closed the connection")
        if reader.ended:
            self.close()
            return Answer(reader.matches, None, problem="it ended the association")
        return Answer(reader.matches, reader.final_status)

    def _why_end(self, deadline: float) -> str:
        """Return why a query has to end, "" if it has not; whether we are to stop is asked once a second."""
        now = time.monotonic()
        if now >= deadline:
            return "it took too long"
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if self._is_stopped():
                return "it was stopped"
        return ""

    def _cancel(self, connection: socket.socket, reader: MatchReader, problem: str) -> Answer:
        """Cancel a query; a server that doesn't stop loses its association."""
        matches = reader.matches
        deadline = time.monotonic() + DRAIN_SECONDS
        try:
            connection.sendall(cancel(self._message_id, self._max_pdu))
            while not reader.is_over:
                left = deadline - time.monotonic()
                if left <= 0 or reader.matches > matches + self._limits.unsliced_matches:
                    self.close()
                    break
                connection.settimeout(left)
                data = connection.recv(_READ_BYTES)
                if not data:
                    self.close()
                    break
                reader.feed(data)
        except (OSError, StreamBroken):
            self.close()
        return Answer(reader.matches, None, over=not problem, problem=problem)

    def close(self) -> None:
        """Release if it is time for it, else abort; and hang up."""
        connection, self._connection = self._connection, None
        association, self._association = self._association, None
        if connection is None:
            return
        try:
            if association is not None and association.is_established:
                connection.settimeout(1)
                connection.sendall(association.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED))
        except OSError:
            pass
        finally:
            connection.close()

    def release(self) -> None:
        """End the association as one should: release, and a moment for the answer."""
        connection, self._connection = self._connection, None
        association, self._association = self._association, None
        if connection is None or association is None:
            return
        try:
            connection.settimeout(2)
            connection.sendall(association.send(AReleaseRq()))
            connection.recv(64)
        except OSError:
            pass
        finally:
            connection.close()


def next_bytes(connection: socket.socket, deadline: float) -> bytes | None:
    """Return what comes next, None if nothing comes for a moment. Raises OSError."""
    connection.settimeout(max(min(LOOK_SECONDS, deadline - time.monotonic()), 0.001))
    try:
        return connection.recv(_READ_BYTES)
    except TimeoutError:
        return None
