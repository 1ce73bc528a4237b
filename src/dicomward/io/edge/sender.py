"""Sends what waits in the spool upstream: several associations for each device, several operations in flight."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from dicomward.edge.bandwidth import Pace, Window, rate_at
from dicomward.edge.contexts import propose
from dicomward.edge.outcome import Outcome, judge_status, retry_seconds
from dicomward.edge.queue import SendQueue, Waiting
from dicomward.io.edge.committer import Committer
from dicomward.io.edge.learned import Learned
from dicomward.io.edge.link import Link, LinkDown
from dicomward.io.edge.spool import Found, Spool
from dicomward.io.edge.spool_keys import KeyUnavailable
from dicomward.io.edge.spool_seal import Description, SealError, Unsealer

_log = logging.getLogger(__name__)

# An association that has nothing to do is released after so long.
_IDLE_SECONDS: Final = 2.0


class Line:
    """The bandwidth that all senders share."""

    def __init__(self, windows: tuple[Window, ...]) -> None:
        self._windows = windows
        self._pace = Pace()
        self._lock = threading.Lock()

    def wait(self, count: int) -> None:
        """Wait until so many bytes may be sent."""
        if not self._windows:
            return
        local = datetime.now().astimezone()  # noqa: TID251  the site's own time
        with self._lock:
            rate = rate_at(self._windows, local.hour * 60 + local.minute)
            seconds = self._pace.wait_seconds(count, rate, time.monotonic())
        if seconds > 0:
            time.sleep(seconds)


class Senders:
    """All that is sent for one device."""

    def __init__(
        self,
        *,
        name: str,
        spool: Spool,
        learned: Learned,
        connect: Callable[..., Link],
        prepare: Callable[[], None],
        line: Line,
        associations: int,
        newest_first: bool,
    ) -> None:
        """Prepare; `prepare` makes sure that the spool can be read, for which it may need the network."""
        self.name = name
        self._spool = spool
        self._learned = learned
        self._connect = connect
        self._prepare = prepare
        self._line = line
        self._queue = SendQueue(newest_first=newest_first)
        lock = threading.RLock()
        self._wake = threading.Condition(lock)
        # Who waits for a delivery must not be woken in the place of a sender.
        self._delivery = threading.Condition(lock)
        self._is_stopping = False
        self._failures = 0
        self._attempts: dict[str, int] = {}
        self.delivered = 0
        self.delivered_bytes = 0
        self.set_aside = 0
        self.problem = ""
        self.retries = 0
        self._overdue: set[str] = set()
        # Where deletion follows Storage Commitment.
        self.committer: Committer | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"dicomward-edge-{name}-{number}", daemon=True)
            for number in range(associations)
        ]

    def start(self, found: Found) -> None:
        """Begin, with what was there already."""
        for waiting in found.ready:
            self._queue.add(waiting)
        for waiting in found.overdue:
            self._queue.add(waiting, is_overdue=True)
        self._overdue = {each.name for each in found.overdue}
        if self.committer is not None:
            self.committer.start(found.stored)
        else:
            for waiting in found.stored:
                self._spool.committed(waiting)
        for thread in self._threads:
            thread.start()

    def add(self, waiting: Waiting) -> None:
        """Send this one too."""
        with self._wake:
            self._queue.add(waiting)
            self._wake.notify()

    def send_again(self, waiting: Waiting) -> None:
        """Send once more what the archive has taken and not committed to."""
        try:
            self._spool.send_again(waiting)
        except OSError as error:
            _log.error("ALARM %s: %s can't be sent again: %s", self.name, waiting.name, error)
            return
        with self._wake:
            self._queue.add(waiting, due=self._next_attempt(waiting))
            self._wake.notify()

    def retry(self, taken_back: list[Waiting]) -> None:
        """Send what was refused, and what waits for its time, now."""
        with self._wake:
            # What an association was refused at its beginning may be accepted by now.
            self.retries += 1
            self._attempts.clear()
            for waiting in taken_back:
                self._queue.add(waiting)
            self._queue.recall()
            self._wake.notify_all()

    def mark_overdue(self, before: float) -> int:
        """Put into the quarantine what was accepted before then and isn't delivered; it is still being sent.

        Returns how many lie there for that reason. Raises OSError.
        """
        with self._wake:
            overdue = self._queue.take_overdue(before)
        if overdue:
            self._spool.mark_overdue(overdue)
        with self._wake:
            self._overdue.update(each.name for each in overdue if self._queue.has(each))
            return len(self._overdue)

    def stop(self, seconds: float) -> None:
        """Stop; what isn't delivered stays in the spool."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify_all()
            self._delivery.notify_all()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        if self.committer is not None:
            self.committer.stop(max(deadline - time.monotonic(), 0.1))

    @property
    def waiting(self) -> int:
        """How many are not delivered."""
        with self._wake:
            return len(self._queue)

    def oldest(self) -> float | None:
        """Return when the oldest that isn't delivered was accepted."""
        with self._wake:
            return self._queue.oldest()

    def wait_until_delivered(self, seconds: float) -> bool:
        """Wait until everything that was accepted before now is delivered; False if some of it is not by then."""
        before = time.time()
        deadline = time.monotonic() + seconds
        with self._delivery:
            while (oldest := self.oldest()) is not None and oldest <= before:
                left = deadline - time.monotonic()
                if left <= 0 or self._is_stopping:
                    return False
                self._delivery.wait(left)
        return True

    def _take(self, seconds: float) -> Waiting | None:
        deadline = time.monotonic() + seconds
        with self._wake:
            while not self._is_stopping:
                now = time.monotonic()
                waiting = self._queue.take(now)
                if waiting is not None or now >= deadline:
                    return waiting
                due = self._queue.next_due()
                self._wake.wait(min(deadline, due or deadline) - now)
        return None

    def _run(self) -> None:
        while not self._is_stopping:
            worker = _Worker(self)
            try:
                worker.run()
            except LinkDown as error:
                self._down(str(error), worker)
            except Exception:  # noqa: BLE001  a defect must not end the sending of everything else
                _log.exception("%s: a sender failed; it begins anew", self.name)
                self._down("internal error", worker)

    def _down(self, detail: str, worker: "_Worker") -> None:
        worker.give_back()
        with self._wake:
            if not self.problem:
                _log.warning("%s: upstream: %s; what was accepted waits", self.name, detail)
            self.problem = detail
            self._failures += 1
            if not self._is_stopping:
                self._wake.wait(retry_seconds(self._failures // len(self._threads)))

    def up(self) -> None:
        """Note that upstream has answered."""
        with self._wake:
            if self.problem:
                _log.info("%s: upstream answers again", self.name)
            self.problem, self._failures = "", 0

    def finish(self, waiting: Waiting, status: int) -> None:
        """Do what an answer means."""
        match judge_status(status):
            case Outcome.DELIVERED:
                self._has_arrived(waiting)
            case Outcome.RETRY:
                with self._wake:
                    self._queue.give_back(waiting, due=self._next_attempt(waiting))
                _log.warning("%s: status %04XH for %s; it is tried again", self.name, status, waiting.name)
            case Outcome.REFUSED:
                self.refuse(waiting, f"status {status:04X}H")

    def _next_attempt(self, waiting: Waiting) -> float:
        attempts = self._attempts[waiting.name] = self._attempts.get(waiting.name, 0) + 1
        return time.monotonic() + retry_seconds(attempts)

    def _has_arrived(self, waiting: Waiting) -> None:
        committer = self.committer
        if committer is None:
            self._spool.delivered(waiting)
        else:
            self._spool.store(waiting)
        with self._wake:
            self._forget(waiting)
            if committer is None:
                self._attempts.pop(waiting.name, None)
            elif not len(self._queue) and not committer.waiting:
                self._attempts.clear()
            self.delivered += 1
            self.delivered_bytes += waiting.size
            self._delivery.notify_all()
        if committer is not None:
            committer.add(waiting)

    def _forget(self, waiting: Waiting) -> None:
        self._queue.done(waiting)
        self._overdue.discard(waiting.name)

    def refuse(self, waiting: Waiting, reason: str) -> None:
        """Keep it in the quarantine."""
        try:
            self._spool.set_aside(waiting, reason)
        except FileNotFoundError:
            _log.error("ALARM %s: %s is gone: somebody has removed its file", self.name, waiting.name)
            with self._wake:
                self._forget(waiting)
            return
        except OSError as error:
            _log.error("ALARM %s: %s can't be put into quarantine: %s", self.name, waiting.name, error)
            with self._wake:
                self._queue.give_back(waiting, due=self._next_attempt(waiting))
            return
        with self._wake:
            self._forget(waiting)
            self.set_aside += 1
        _log.error("ALARM %s: %s was refused for good (%s); it is in quarantine", self.name, waiting.name, reason)

    def give_back(self, waiting: Waiting) -> None:
        """Nothing is known of it: it is sent again."""
        with self._wake:
            self._queue.give_back(waiting)
            self._wake.notify()


class _Worker:
    """One association at a time, in one thread."""

    def __init__(self, senders: Senders) -> None:
        self._senders = senders
        self._link: Link | None = None
        self._flying: dict[int, Waiting] = {}
        self._current: Waiting | None = None
        self._retries = senders.retries

    def give_back(self) -> None:
        """Give back everything whose answer will not come."""
        for waiting in (*self._flying.values(), *((self._current,) if self._current else ())):
            self._senders.give_back(waiting)
        self._flying.clear()
        if self._link is not None:
            self._link.close()

    def run(self) -> None:
        """Send until there has been nothing to send for a while. Raises LinkDown."""
        senders = self._senders
        while True:
            self._current = senders._take(0.0 if self._flying else _IDLE_SECONDS)
            if self._current is None:
                if not self._flying:
                    break
                self._collect(wait=True)
                continue
            self._send(self._current)
            self._current = None
            if self._link is not None:
                self._collect(wait=not self._link.has_room)
        self._release()

    def _send(self, waiting: Waiting) -> None:
        try:
            self._senders._prepare()
        except KeyUnavailable as error:
            raise LinkDown(str(error)) from error
        try:
            unsealer = self._senders._spool.read(waiting)
        except (SealError, OSError) as error:
            self._senders.refuse(waiting, f"unreadable: {error}")
            return
        try:
            description = unsealer.description
            link = self._link_for(description)
            if (description.sop_class_uid, description.transfer_syntax_uid) not in link.contexts:
                self._senders.refuse(waiting, "the archive no longer accepts its SOP class or transfer syntax")
                return
            self._flying[link.store(description, self._paced(unsealer))] = waiting
        except SealError as error:
            # Half of it is on its way: only the end of the association takes that back.
            self._senders.refuse(waiting, f"unreadable: {error}")
            self._current = None
            raise LinkDown(f"{waiting.name} is damaged") from error
        finally:
            unsealer.close()

    def _paced(self, unsealer: Unsealer) -> Iterator[tuple[bytes, bool]]:
        for piece, last in unsealer.pieces():
            self._senders._line.wait(len(piece))
            yield piece, last

    def _link_for(self, description: Description) -> Link:
        """Return an association that can carry it; a new one if need be."""
        titles = (description.calling_ae_title, description.called_ae_title)
        pair = (description.sop_class_uid, description.transfer_syntax_uid)
        link = self._link
        is_stale = self._retries != self._senders.retries
        if link is not None and (is_stale or link.titles != titles or pair not in {*link.contexts, *link.refused}):
            while self._flying:
                self._collect(wait=True)
            self._release()
        if self._link is None:
            senders = self._senders
            self._retries = senders.retries
            others = [each for each, accepted in senders._learned.known(titles).items() if accepted]
            self._link = senders._connect(
                calling_ae_title=titles[0], called_ae_title=titles[1], proposed=propose([pair, *others])
            )
            senders._learned.note(titles, self._link)
            senders.up()
        return self._link

    def _collect(self, *, wait: bool) -> None:
        if self._link is None:
            return
        for response in self._link.responses(wait=wait and bool(self._flying)):
            waiting = self._flying.pop(response.message_id, None)
            if waiting is not None:
                self._senders.finish(waiting, response.status)

    def _release(self) -> None:
        if self._link is not None:
            self._link.release()
            self._link = None
