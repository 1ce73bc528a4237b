"""Asks the archive to commit to what it has taken, and deletes nothing from the spool before it has.

One thread for each device. Which objects wait is in the files; which transactions are open is remembered only until the
agent ends: then it asks anew.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomward.edge.commitment import (
    MOST_REFERENCES,
    RANDOM_BYTES,
    Commitment,
    Report,
    is_not_offered,
    is_own_transaction,
    judge_failure,
    make_transaction_uid,
)
from dicomward.edge.outcome import retry_seconds
from dicomward.edge.queue import Waiting
from dicomward.io.ca.local import write_new_file
from dicomward.io.edge.commit_link import UNKNOWN_TRANSACTION, Asked, CommitLink, Reported
from dicomward.io.edge.link import LinkDown
from dicomward.io.edge.spool import Spool
from dicomward.io.edge.spool_keys import KeyUnavailable
from dicomward.io.edge.spool_seal import SealError
from dicomward.io.system import calls
from dicomward.settings.edge import REQUIRED

_log = logging.getLogger(__name__)

_KEY_NAME: Final = "transactions.key"
_KEY_BYTES: Final = 32

Titles = tuple[str, str]

# Objects of an examination come one after the other; they are asked for together.
_GATHER_SECONDS: Final = 1.0
# How long an association is kept open for the reports of what was asked on it, and on those before.
_REPORT_SECONDS: Final = 30.0
# An archive that has said nothing for so long is asked again.
_ASK_AGAIN_SECONDS: Final = 300.0
# Reports that come late are known for so many requests.
_MOST_TRANSACTIONS: Final = 1000
# Where it isn't offered, it is asked for so seldom.
_NOT_OFFERED_SECONDS: Final = 600.0


def transaction_key(directory: Path) -> bytes:
    """Return the key of a device's state directory, made when it is first needed. Raises OSError."""
    path = directory / _KEY_NAME
    if not path.exists() or path.stat().st_size != _KEY_BYTES:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        calls.unlink(new)
        write_new_file(new, os.urandom(_KEY_BYTES), 0o600)
        calls.replace(new, path)
    return path.read_bytes()


@dataclass(slots=True)
class _Entry:
    waiting: Waiting
    sop_class_uid: str
    sop_instance_uid: str
    asked_at: float | None = None


@dataclass(slots=True)
class _Group:
    """What waits between two AE titles, by SOP instance; a re-sent one stands for the one before."""

    entries: dict[str, list[_Entry]] = field(default_factory=dict)
    not_offered_until: float = 0.0

    def unasked(self, now: float) -> list[tuple[str, list[_Entry]]]:
        """Return what was never asked for, or so long ago that it is asked for again."""
        return [
            (uid, entries)
            for uid, entries in self.entries.items()
            if any(each.asked_at is None or each.asked_at <= now - _ASK_AGAIN_SECONDS for each in entries)
        ]

    def take_asked(self, uid: str) -> list[_Entry]:
        """Remove and return what a report is about; what came again since then is another matter."""
        entries = self.entries.pop(uid, [])
        later = [each for each in entries if each.asked_at is None]
        if later:
            self.entries[uid] = later
        return [each for each in entries if each.asked_at is not None]


class Committer:
    """All that one device has stored and the archive has not committed to.

    `key` marks the agent's own transaction UIDs, for as long as there is the agent's state.
    """

    def __init__(
        self,
        *,
        name: str,
        spool: Spool,
        connect: Callable[..., CommitLink],
        prepare: Callable[[], None],
        mode: str,
        key: bytes,
        send_again: Callable[[Waiting], None],
        report_seconds: float = _REPORT_SECONDS,
        gather_seconds: float = _GATHER_SECONDS,
    ) -> None:
        self.name = name
        self.committed = 0
        self.problem = ""
        self._spool = spool
        self._connect = connect
        self._prepare = prepare
        self._mode = mode
        self._key = key
        self._send_again = send_again
        self._report_seconds = report_seconds
        self._gather_seconds = gather_seconds
        self._changed = threading.Condition()
        self._new: list[Waiting] = []
        self._received: dict[str, float] = {}
        self._reports: list[Report] = []
        self._groups: dict[Titles, _Group] = {}
        self._transactions: dict[str, Titles] = {}
        self._failures = 0
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"dicomward-edge-commit-{name}", daemon=True)

    def start(self, found: Iterable[Waiting]) -> None:
        """Begin, with what lay there already."""
        for waiting in found:
            self.add(waiting)
        self._thread.start()

    def add(self, waiting: Waiting) -> None:
        """Ask for this one too."""
        with self._changed:
            self._new.append(waiting)
            self._received[waiting.name] = waiting.received
            self._changed.notify()

    def take(self, report: Report) -> bool:
        """Take a report that came on an association of its own; False if the request was not ours. Thread-safe."""
        with self._changed:
            if report.transaction_uid not in self._transactions:
                # Ours, from before the start: it is asked for anew.
                return is_own_transaction(self._key, report.transaction_uid)
            self._reports.append(report)
            self._changed.notify_all()
            return True

    def stop(self, seconds: float) -> None:
        """Stop; what isn't committed stays in the spool."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join(seconds)

    @property
    def waiting(self) -> int:
        """How many wait."""
        with self._changed:
            return len(self._received)

    def oldest(self) -> float | None:
        """Return when the oldest of them was received."""
        with self._changed:
            return min(self._received.values(), default=None)

    def _pause(self, seconds: float) -> bool:
        """Wait, but not while there is a report; False if the agent ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._reports, seconds)
            return not self._is_stopping

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_stopping or self._received)
            if not self._pause(self._gather_seconds):
                return
            try:
                self._prepare()
            except KeyUnavailable as error:
                self._note(str(error))
                if not self._pause(retry_seconds(self._failures)):
                    return
                self._failures += 1
                continue
            self._sort_new()
            self._settle_reports()
            is_settled = True
            for titles in list(self._groups):
                try:
                    is_settled &= self._settle(titles)
                except LinkDown as error:
                    is_settled = False
                    self._note(str(error))
                except Exception:  # noqa: BLE001  a defect must not end the commitments of everything else
                    is_settled = False
                    _log.exception("%s: asking for a commitment failed; it is tried again", self.name)
            if is_settled:
                self._failures, self.problem = 0, ""
            elif not self._pause(retry_seconds(self._failures)):
                return
            else:
                self._failures += 1

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("%s: commitment: %s; what it is about stays in the spool", self.name, problem)
        self.problem = problem

    def _sort_new(self) -> None:
        with self._changed:
            new, self._new = self._new, []
        for waiting in new:
            try:
                description = self._spool.describe_stored(waiting)
            except (SealError, OSError) as error:
                if self._spool.is_uncommitted(waiting):
                    # The archive has it and has said so; that nobody can ask for it any more is all that is lost.
                    _log.error("ALARM %s: %s can't be asked for: %s", self.name, waiting.name, error)
                self._forget(waiting)
                continue
            titles = (description.calling_ae_title, description.called_ae_title)
            entry = _Entry(waiting, description.sop_class_uid, description.sop_instance_uid)
            self._groups.setdefault(titles, _Group()).entries.setdefault(entry.sop_instance_uid, []).append(entry)

    def _forget(self, waiting: Waiting) -> None:
        with self._changed:
            self._received.pop(waiting.name, None)

    def _settle(self, titles: Titles) -> bool:
        """Ask and listen until everything between two titles is settled; False if some of it is not.

        Raises LinkDown.
        """
        group = self._groups[titles]
        self._drop_deleted(group)
        if not group.entries:
            return True
        if self._mode != REQUIRED and time.monotonic() < group.not_offered_until:
            self._give_up(group)
            return True
        link = self._connect(calling_ae_title=titles[0], called_ae_title=titles[1])
        try:
            if link.is_offered:
                self._converse(link, titles, group)
            else:
                self._not_offered(group)
            link.release()
        finally:
            link.close()
        if group.entries and not self.problem:
            self._note("the archive has not reported yet, or on an association that can't reach the agent")
        return not group.entries

    def _drop_deleted(self, group: _Group) -> None:
        """Forget what had to give way to new objects."""
        for uid, entries in list(group.entries.items()):
            for entry in entries:
                if not self._spool.is_uncommitted(entry.waiting):
                    self._forget(entry.waiting)
            left = [each for each in entries if self._spool.is_uncommitted(each.waiting)]
            if left:
                group.entries[uid] = left
            else:
                del group.entries[uid]

    def _not_offered(self, group: _Group) -> None:
        group.not_offered_until = time.monotonic() + _NOT_OFFERED_SECONDS
        if self._mode == REQUIRED:
            self._note("the archive doesn't offer it, and it is required")
        else:
            self._give_up(group)

    def _give_up(self, group: _Group) -> None:
        """Take the archive's answer to the C-STORE for its word: there is no other."""
        for entries in list(group.entries.values()):
            self._delete(entries)
        group.entries.clear()

    def _delete(self, entries: Iterable[_Entry]) -> None:
        for entry in entries:
            self._spool.committed(entry.waiting)
            self._forget(entry.waiting)

    def _converse(self, link: CommitLink, titles: Titles, group: _Group) -> None:
        """Ask for what there is and for what still comes, as long as the archive reports. Raises LinkDown."""
        deadline = time.monotonic() + self._report_seconds
        while group.entries and not self._is_stopping and (left := deadline - time.monotonic()) > 0:
            self._sort_new()
            self._settle_reports()
            self._ask(link, titles, group)
            said = link.listen(min(left, self._gather_seconds))
            if isinstance(said, Reported):
                self._take(link, said)
                deadline = time.monotonic() + self._report_seconds

    def _ask(self, link: CommitLink, titles: Titles, group: _Group) -> None:
        """Raise LinkDown."""
        waiting = group.unasked(time.monotonic())
        while waiting:
            batch, waiting = waiting[:MOST_REFERENCES], waiting[MOST_REFERENCES:]
            transaction = make_transaction_uid(self._key, os.urandom(RANDOM_BYTES))
            with self._changed:
                self._transactions[transaction] = titles
                if len(self._transactions) > _MOST_TRANSACTIONS:
                    del self._transactions[next(iter(self._transactions))]
            message_id = link.ask(transaction, [(each[0].sop_class_uid, uid) for uid, each in batch])
            # A report may overtake the answer to the request.
            asked = [entry for _uid, entries in batch for entry in entries]
            for entry in asked:
                entry.asked_at = time.monotonic()
            status = self._answer_to(link, message_id)
            if status != 0:
                for entry in asked:
                    entry.asked_at = None
            if is_not_offered(status):
                self._not_offered(group)
                return
            if status != 0:
                raise LinkDown(f"the archive has answered {status:04X}H")

    def _answer_to(self, link: CommitLink, message_id: int) -> int:
        """Raise LinkDown."""
        while (said := link.listen(self._report_seconds)) is not None:
            if isinstance(said, Asked) and said.message_id == message_id:
                return said.status
            if isinstance(said, Reported):
                self._take(link, said)
        raise LinkDown("the archive doesn't answer")

    def _take(self, link: CommitLink, said: Reported) -> None:
        report = said.report
        titles = self._transactions.get(report.transaction_uid) if report is not None else None
        if report is None or titles is None:
            is_ours = report is not None and is_own_transaction(self._key, report.transaction_uid)
            link.answer(said, 0 if is_ours else UNKNOWN_TRANSACTION)
            return
        self._settle_report(report, self._groups[titles])
        link.answer(said, 0)

    def _settle_reports(self) -> None:
        """Do what reports say that came on associations of their own."""
        with self._changed:
            reports, self._reports = self._reports, []
            of_titles = [(report, self._transactions.get(report.transaction_uid)) for report in reports]
        for report, titles in of_titles:
            if titles is not None:
                self._settle_report(report, self._groups[titles])

    def _settle_report(self, report: Report, group: _Group) -> None:
        """Do what a report says."""
        for uid in report.committed:
            entries = group.take_asked(uid)
            self._delete(entries)
            self.committed += len(entries)
        for uid, reason in report.failed.items():
            entries = group.take_asked(uid)
            if judge_failure(reason) is Commitment.NOT_OFFERED and self._mode != REQUIRED:
                self._delete(entries)
                continue
            for entry in entries:
                _log.warning("%s: no commitment for %s (%04XH)", self.name, entry.waiting.name, reason)
                self._forget(entry.waiting)
                self._send_again(entry.waiting)
