"""Counting through DICOMweb: QIDO-RS for studies, one connection and one page at a time, bounded in time and memory.

Rules of this file: as in count_link; no redirect is followed, and no body is kept after its page is counted.
"""

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dicomward.assess.count_limits import CountLimits
from dicomward.assess.count_query import STUDY_ROOT_CONTEXT
from dicomward.assess.count_tally import Tally
from dicomward.assess.count_web import read_page, studies_path
from dicomward.io.assess.count_link import Answer, LinkGone, next_bytes
from dicomward.io.assess.probe_http import HttpAnswer, is_whole, parse_answer, qido_path, read_answer, request_for
from dicomward.vocab.dimse import Status

_MOST_PAGE_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WebTarget:
    """Whom to count by DICOMweb; `roots` are tried until one answers. `contact` is who asks."""

    address: str
    port: int
    host: str
    roots: tuple[str, ...]
    contact: str
    context: ssl.SSLContext | None = None


class WebLink:
    """The studies of one root, page by page. Whether images can be stored there is not known."""

    def __init__(self, target: WebTarget, limits: CountLimits, is_stopped: Callable[[], bool]) -> None:
        self._target = target
        self._limits = limits
        self._is_stopped = is_stopped
        self._root = ""
        self.connected = False
        self.rejected: tuple[int, int, int] | None = None
        self.contexts: frozenset[int] = frozenset()
        self.can_store: bool | None = None
        self.slowest = 0.0

    def open(self) -> None:
        """Find the root that answers. Raises LinkGone."""
        if self._root:
            return
        deadline = time.monotonic() + self._limits.idle_seconds
        for root in self._target.roots:
            path = qido_path(root)
            if read_answer("dicomweb", path, self._get(path, deadline)).looks_right:
                self._root = root
                self.contexts = frozenset({STUDY_ROOT_CONTEXT})
                return
        raise LinkGone("no DICOMweb root answers")

    def ask(self, dates: str, tally: Tally, most: int, deadline: float) -> Answer:
        """Ask for the studies of `dates`, and count them. Raises LinkGone."""
        self.open()
        matches = 0
        before: list[str] = []
        while True:
            if matches > most:
                return Answer(matches, None, over=True)
            try:
                answer = self._get(studies_path(self._root, dates, matches), deadline)
                page = read_page(answer.body) if answer.status == 200 else []
            except LinkGone as gone:
                return Answer(matches, None, problem=str(gone))
            except ValueError as error:
                return Answer(matches, None, problem=str(error))
            if answer.status not in (200, 204):
                return Answer(matches, _status_of(answer.status), problem=f"status {answer.status} of HTTP")
            uids = [uid for uid, _ in page]
            if not page or uids == before:
                # An empty page is the end; the same page again comes from a server that knows no offset.
                return Answer(matches, Status.SUCCESS)
            before = uids
            for _, identifier in page:
                tally.add(identifier, 0, len(identifier))
            matches += len(page)

    def _get(self, path: str, deadline: float) -> HttpAnswer:
        target = self._target
        name = f"[{target.address}]" if ":" in target.address else target.address
        request = request_for(f"{target.host or name}:{target.port}", path, target.contact)
        began = heard = time.monotonic()
        data = bytearray()
        try:
            with self._connect() as connection:
                connection.sendall(request)
                while not is_whole(data):
                    now = time.monotonic()
                    if now >= deadline:
                        raise LinkGone("it took too long")
                    if self._is_stopped():
                        raise LinkGone("it was stopped")
                    more = next_bytes(connection, deadline)
                    if more is None:
                        if time.monotonic() - heard >= self._limits.idle_seconds:
                            raise LinkGone("it fell silent")
                        continue
                    heard = time.monotonic()
                    if not data:
                        self.slowest = max(self.slowest, heard - began)
                    if not more:
                        break
                    data += more
                    if len(data) > _MOST_PAGE_BYTES:
                        raise LinkGone("a page of answers is too long")
        except TimeoutError:
            raise LinkGone("no answer in time") from None
        except OSError as error:
            raise LinkGone(f"the connection failed: {error.strerror or type(error).__name__}") from None
        answer = parse_answer(bytes(data), "")
        if not answer.status:
            raise LinkGone("what it sent is no HTTP")
        return answer

    def _connect(self) -> socket.socket:
        target = self._target
        connection = socket.create_connection((target.address, target.port), self._limits.connect_seconds)
        self.connected = True
        if target.context is None:
            return connection
        return target.context.wrap_socket(connection, server_hostname=target.host or target.address)

    def release(self) -> None:
        """Nothing is open between two pages."""

    def close(self) -> None:
        """Nothing is open between two pages."""


def _status_of(status: int) -> int:
    """Return what a status of HTTP is in DIMSE: refused, too much, or not understood."""
    if status in (401, 403):
        return Status.REFUSED_NOT_AUTHORISED
    return Status.REFUSED_OUT_OF_RESOURCES if status == 413 else Status.CANNOT_UNDERSTAND
