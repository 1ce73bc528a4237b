"""Counting one server through one of its doors: blocking, bounded in time, answers and memory.

What ends early gives a lower bound with its reason.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, Protocol

from dicomward.assess.count_limits import CountLimits
from dicomward.assess.count_query import STORAGE_CONTEXTS, STUDY_ROOT_CONTEXT
from dicomward.assess.count_result import Shortfall, counts_of
from dicomward.assess.count_slices import Slice, looks_capped, plan_slices
from dicomward.assess.count_tally import Patients, SliceNumbers, Tally
from dicomward.assess.observation import Counts
from dicomward.assess.plan import Tempo
from dicomward.io.assess.count_link import Answer, CountTarget, DimseLink, Link, LinkGone
from dicomward.io.assess.count_web import WebLink, WebTarget
from dicomward.vocab.dimse import Status

# Queries in a row that failed and gave nothing: a year is cut to single days in nine steps.
_MOST_FAILURES: Final = 12
_IMPOSSIBLE: Final = Slice(date(1850, 1, 1), date(1850, 1, 1))


class Keeper(Protocol):
    """Where the numbers of finished slices are kept; AssessStore is one."""

    def slices(self, address: str, port: int) -> list[tuple[str, str, dict[str, Any]]]:
        """Return name, state and numbers of each known slice."""

    def finish_slice(self, address: str, port: int, name: str, value: dict[str, Any], *, state: str = "done") -> None:
        """Keep the numbers of a slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCount:
    """What counting has shown of one server.

    `connected`: the port was open; `rejected`: (result, source, reason) of A-ASSOCIATE-RJ. `counts` is None where no
    query was possible; `refused_status` the status of a query that was refused at once.
    """

    connected: bool = False
    rejected: tuple[int, int, int] | None = None
    contexts: frozenset[int] = frozenset()
    counts: Counts | None = None
    refused_status: int | None = None
    queries: int = 0
    slowest_ms: int = 0
    problem: str = ""

    @property
    def storage_contexts(self) -> int:
        """Count the storage contexts that were accepted."""
        return len(self.contexts & STORAGE_CONTEXTS.keys())


def count_server(
    target: CountTarget | WebTarget,
    *,
    limits: CountLimits,
    today: date,
    key: bytes,
    country_of: Callable[[bytes], str],
    keeper: Keeper | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    tempo: Tempo | None = None,
    pause: float = 0.0,
) -> ServerCount:
    """Count the studies and patients that anyone can find. Raises nothing of the peer's making.

    Without a `tempo` the server is not left alone when it slows down; `pause` seconds are between two queries.
    """
    counter = _Counter(target, limits, today, Patients(key, country_of), keeper, is_stopped, tempo, pause)
    try:
        return counter.run()
    finally:
        counter.link.close()


def _link_to(target: CountTarget | WebTarget, limits: CountLimits, is_stopped: Callable[[], bool]) -> Link:
    if isinstance(target, WebTarget):
        return WebLink(target, limits, is_stopped)
    return DimseLink(target, limits, is_stopped)


@dataclass(slots=True)
class _Totals:
    """What has come together."""

    numbers: SliceNumbers = field(default_factory=SliceNumbers)
    shortfalls: set[Shortfall] = field(default_factory=set)
    single_days: list[int] = field(default_factory=list)
    cap: int | None = None
    queries: int = 0
    asked: int = 0
    problem: str = ""
    is_over: bool = False
    failures: int = 0
    failure: int | None = None


class _Counter:
    """The work on one server."""

    def __init__(
        self,
        target: CountTarget | WebTarget,
        limits: CountLimits,
        today: date,
        patients: Patients,
        keeper: Keeper | None,
        is_stopped: Callable[[], bool],
        tempo: Tempo | None,
        pause: float,
    ) -> None:
        self._target = target
        self._limits = limits
        self._tempo = tempo
        self._pause = pause
        self._gauge_at = 0.0
        self._today = today
        self._patients = patients
        self._tally = Tally(patients)
        self._keeper = keeper
        self._is_stopped = is_stopped
        self._deadline = time.monotonic() + limits.server_seconds
        self._kept: Mapping[str, SliceNumbers] = {}
        self._totals = _Totals()
        self.link = _link_to(target, limits, is_stopped)

    def run(self) -> ServerCount:
        try:
            self.link.open()
        except LinkGone as gone:
            return self._result(problem=str(gone))
        contexts = self._contexts()
        if STUDY_ROOT_CONTEXT not in contexts:
            self.link.release()
            return self._result(contexts=contexts)
        self._recall()
        refused = self._count()
        self.link.release()
        if refused is not None:
            return self._result(contexts=contexts, refused_status=refused)
        totals = self._totals
        if totals.numbers.unreadable:
            totals.shortfalls.add(Shortfall.UNREADABLE)
        counts = counts_of(
            totals.numbers,
            self._patients,
            frozenset(totals.shortfalls),
            open_to_tampering=self.link.can_store,
        )
        return self._result(contexts=contexts, counts=counts, problem=totals.problem)

    def _contexts(self) -> frozenset[int]:
        return self.link.contexts

    def _result(
        self,
        *,
        contexts: frozenset[int] = frozenset(),
        counts: Counts | None = None,
        refused_status: int | None = None,
        problem: str = "",
    ) -> ServerCount:
        link = self.link
        return ServerCount(
            connected=link.connected,
            rejected=link.rejected,
            contexts=contexts,
            counts=counts,
            refused_status=refused_status,
            queries=self._totals.queries,
            slowest_ms=round(link.slowest * 1000),
            problem=problem,
        )

    def _recall(self) -> None:
        """Take up the slices of an earlier run, if asking for them again would be too much."""
        if self._keeper is None:
            return
        rows = self._keeper.slices(self._target.address, self._target.port)
        kept = {name: SliceNumbers.from_json(value) for name, state, value in rows if state == "done"}
        if sum(each.studies for each in kept.values()) > self._limits.reread_matches:
            self._kept = kept
            self._totals.shortfalls.add(Shortfall.PATIENTS)

    def _count(self) -> int | None:
        """Fill the totals; return the status if queries give nothing and fail."""
        totals = self._totals
        whole = SliceNumbers()
        complete = False
        if not self._kept:
            answer = self._ask("", min(self._limits.unsliced_matches, self._limits.server_matches))
            whole = self._tally.take()
            complete = answer.status == Status.SUCCESS
            if complete and not looks_capped(answer.matches, None):
                totals.numbers = whole
                return None
            if answer.status not in (None, Status.SUCCESS) and not answer.matches and not _is_too_much(answer.status):
                return answer.status
            if not self._may_go_on():
                totals.numbers = whole
                return None
            if not self._honours_dates():
                totals.numbers = whole
                totals.shortfalls.add(Shortfall.DATES_IGNORED)
                return None
        for each in plan_slices(self._today):
            self._gauge()
            totals.numbers.add(self._slice(each))
            if totals.is_over:
                break
        return self._compare(whole, complete=complete)

    def _compare(self, whole: SliceNumbers, *, complete: bool) -> int | None:
        """Judge what the slices gave beside what one query for everything gave."""
        totals = self._totals
        if not whole.studies and not totals.numbers.studies and Shortfall.REFUSED in totals.shortfalls:
            return totals.failure
        if not complete or totals.numbers.studies > whole.studies:
            totals.shortfalls.add(Shortfall.DATED_ONLY)
        if complete and totals.numbers.studies > whole.studies:
            totals.cap = min(totals.cap or whole.studies, whole.studies)
        if whole.studies > totals.numbers.studies:
            totals.numbers = whole
        if totals.cap is not None and any(number >= totals.cap for number in totals.single_days):
            totals.shortfalls.add(Shortfall.CAPPED)
        return None

    def _honours_dates(self) -> bool:
        """Ask for a day before there were X-rays: who finds something doesn't look at dates."""
        return not self._ask_nothing()[0].matches

    def _ask_nothing(self) -> tuple[Answer, str]:
        """Ask for what nobody has, and take the time; return the answer, and why the server is to be left alone."""
        began = time.monotonic()
        answer = self._ask(_IMPOSSIBLE.name, 1)
        self._tally.take()
        now = time.monotonic()
        self._gauge_at = now + self._limits.gauge_seconds
        if self._tempo is None or answer.status is None:
            return answer, ""
        return answer, self._tempo.note("a query without matches", now - began)

    def _gauge(self) -> None:
        """See, not too often, whether the server slows down; one that has, and is as slow once more, is left alone."""
        if self._tempo is None or self._totals.is_over or time.monotonic() < self._gauge_at:
            return
        if self._ask_nothing()[1] and (why := self._ask_nothing()[1]):
            self._end(Shortfall.SLOWED, why)

    def _slice(self, part: Slice) -> SliceNumbers:
        """Count one slice, splitting it where its answers may be capped."""
        kept = self._kept.get(part.name)
        if kept is not None:
            if part.is_single_day:
                self._totals.single_days.append(kept.studies)
            return kept
        totals = self._totals
        if not self._may_go_on():
            return SliceNumbers()
        answer = self._ask(part.name, self._limits.slice_matches)
        numbers = self._tally.take()
        if answer.status is None and not answer.over and not totals.is_over:
            # A line may break once; who breaks off twice is left alone.
            if not self._may_go_on():
                return numbers
            answer = self._ask(part.name, self._limits.slice_matches)
            again = self._tally.take()
            numbers = again if again.studies >= numbers.studies else numbers
            if answer.status is None and not answer.over:
                self._end(Shortfall.BROKE_OFF, answer.problem)
                return numbers
        suspicious = answer.status != Status.SUCCESS or looks_capped(answer.matches, totals.cap)
        if suspicious and not part.is_single_day and (answer.matches or answer.status != Status.SUCCESS):
            return self._split(part, numbers, may_be_capped=not answer.over)
        if answer.over:
            totals.shortfalls.add(Shortfall.LIMIT)
        elif answer.status != Status.SUCCESS:
            totals.shortfalls.add(Shortfall.CAPPED if numbers.studies else Shortfall.REFUSED)
        elif suspicious:
            totals.single_days.append(answer.matches)
        self._keep(part.name, numbers)
        return numbers

    def _split(self, part: Slice, numbers: SliceNumbers, *, may_be_capped: bool) -> SliceNumbers:
        totals = self._totals
        both = SliceNumbers()
        for half in part.halves():
            self._gauge()
            both.add(self._slice(half))
        if both.studies > numbers.studies:
            if may_be_capped and numbers.studies:
                totals.cap = min(totals.cap or numbers.studies, numbers.studies)
            return both
        return numbers if numbers.studies > both.studies else both

    def _ask(self, dates: str, most: int) -> Answer:
        totals = self._totals
        if totals.queries and self._pause:
            time.sleep(self._pause)
        totals.queries += 1
        now = time.monotonic()
        try:
            answer = self.link.ask(dates, self._tally, most, min(self._deadline, now + self._limits.slice_seconds))
        except LinkGone as gone:
            answer = Answer(0, None, problem=str(gone))
        totals.asked += answer.matches
        if answer.problem:
            totals.problem = answer.problem
        if answer.matches or answer.status in (None, Status.SUCCESS):
            totals.failures = 0
        else:
            totals.failures += 1
            totals.failure = answer.status
            if totals.failures >= _MOST_FAILURES:
                self._end(Shortfall.REFUSED, "its queries fail")
        return answer

    def _may_go_on(self) -> bool:
        totals = self._totals
        if totals.is_over:
            return False
        if self._is_stopped():
            self._end(Shortfall.STOPPED, "it was stopped")
        elif totals.queries >= self._limits.slices:
            self._end(Shortfall.LIMIT, "too many slices")
        elif totals.asked >= self._limits.server_matches:
            self._end(Shortfall.LIMIT, "too many answers")
        elif time.monotonic() >= self._deadline:
            self._end(Shortfall.LIMIT, "it took too long")
        return not totals.is_over

    def _end(self, shortfall: Shortfall, problem: str) -> None:
        self._totals.is_over = True
        self._totals.shortfalls.add(shortfall)
        self._totals.problem = problem

    def _keep(self, name: str, numbers: SliceNumbers) -> None:
        if self._keeper is not None:
            self._keeper.finish_slice(self._target.address, self._target.port, name, numbers.to_json())


def _is_too_much(status: int | None) -> bool:
    """Say if a query failed because it found too much, or may have (PS3.4 §C.4.1.1.4)."""
    return status is not None and status & 0xFF00 in (0xA700, 0xC000)
