"""How much each device has taken out of the archives: exact sliding windows over patients, studies, matches and bytes.

Rules of this file: `now` is wall time in seconds (budgets outlive a restart); a patient or study is a number that
somebody else made with a keyed hash; what is refused counts nowhere; memory is bounded by the budgets themselves.

A window moves in steps of a minute, an hour or a day, and is never shorter than its name says: the step under way comes
on top of 60 minutes, 24 hours or 30 days.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from dicomward.limits.budget_settings import AtEnd, BudgetSettings, DeviceBudgets
from dicomward.vocab.reason import ReasonCode

# What a device over its budget waits for, where its role is slowed down and not refused.
OVER_ITEM_SECONDS: Final = 0.5
OVER_MATCH_SECONDS: Final = 0.02
OVER_BYTES_PER_SECOND: Final = 25_000_000

LEASE_BYTES: Final = 16 * 1024 * 1024
"""Bytes are counted so far ahead, so that what a crash forgets has been counted and not the other way round."""

# Less is leased near the end, so that one association does not use up the rest in advance.
_LEASE_SHARE: Final = 8
_OVER_LEASE_BYTES: Final = 1024 * 1024
_MINUTE: Final = 60


class Measure(StrEnum):
    """What is counted."""

    PATIENTS = "patients"
    STUDIES = "studies"
    MATCHES = "matches"
    BYTES = "bytes"

    @property
    def reason(self) -> ReasonCode:
        """The reason that a refusal has."""
        return _REASONS[self]


_REASONS: Final = {
    Measure.PATIENTS: ReasonCode.PATIENT_BUDGET,
    Measure.STUDIES: ReasonCode.STUDY_BUDGET,
    Measure.MATCHES: ReasonCode.MATCH_BUDGET,
    Measure.BYTES: ReasonCode.BYTE_BUDGET,
}
_MEASURES: Final = tuple(Measure)
DISTINCT: Final = (Measure.PATIENTS, Measure.STUDIES)


class Span(IntEnum):
    """The three windows."""

    HOUR = 0
    DAY = 1
    DAYS_30 = 2

    @property
    def label(self) -> str:
        """As settings and records call it."""
        return ("hour", "day", "30_days")[self]


# Minutes of a step, and whole steps of a window.
STEP_MINUTES: Final = {Span.HOUR: 1, Span.DAY: 60, Span.DAYS_30: 1440}
STEPS: Final = {Span.HOUR: 60, Span.DAY: 24, Span.DAYS_30: 30}


class Holder(NamedTuple):
    """Whose budget is used: a device or an archive, with its role."""

    device: str
    role: str


@dataclass(frozen=True, slots=True)
class Charge:
    """What goes out: patients and studies as keyed hashes, rows of a query, bytes."""

    patients: tuple[int, ...] = ()
    studies: tuple[int, ...] = ()
    matches: int = 0
    bytes: int = 0

    def measures(self) -> list[Measure]:
        """Return the measures that it uses."""
        return [measure for measure in _MEASURES if getattr(self, measure)]

    def items(self, measure: Measure) -> tuple[int, ...]:
        """Return the hashes of a measure that counts each only once."""
        return self.patients if measure is Measure.PATIENTS else self.studies


class Level(IntEnum):
    """How far a budget is used."""

    FREE = 0
    WARNED = 1
    ENDED = 2


class Notice(NamedTuple):
    """A budget has come to a level for the first time since it was below the warning."""

    holder: Holder
    measure: Measure
    span: Span
    level: Level
    used: int
    budget: int
    at_end: AtEnd


class Outcome(NamedTuple):
    """What a charge brought: the reason for a refusal, or the seconds to wait, and what somebody should hear of.

    `over` names the budget that makes it wait; `granted_bytes` were counted in `minute`.
    """

    refused: ReasonCode | None = None
    over: ReasonCode | None = None
    delay_seconds: float = 0.0
    notices: tuple[Notice, ...] = ()
    granted_bytes: int = 0
    minute: int = 0


class Usage(NamedTuple):
    """One line of what an operator sees."""

    measure: Measure
    span: Span
    used: int
    budget: int
    level: Level


class ItemRow(NamedTuple):
    """A patient or study that a device has seen, as it is kept on disk; `minute` is that of the last time."""

    device: str
    measure: Measure
    item: int
    minute: int


class SumRow(NamedTuple):
    """Matches or bytes of one step of one window, as they are kept on disk."""

    device: str
    measure: Measure
    span: Span
    step: int
    amount: int


class _Window:
    """Amounts by step; the total of those that lie in the window."""

    __slots__ = ("amounts", "now", "steps", "total")

    def __init__(self, span: Span) -> None:
        self.steps = STEPS[span]
        self.amounts: dict[int, int] = {}
        self.total = 0
        self.now = 0

    def move(self, step: int) -> None:
        """Let go of what lies before the window that ends with `step`."""
        if step <= self.now:
            return
        self.now = step
        for old in [each for each in self.amounts if each < step - self.steps]:
            self.total -= self.amounts.pop(old)

    def holds(self, step: int) -> bool:
        """Say if a step lies in the window."""
        return step >= self.now - self.steps

    def add(self, step: int, amount: int) -> int:
        """Add to a step; return what it holds now."""
        if not self.holds(step):
            return 0
        amount_now = self.amounts.get(step, 0) + amount
        # A refund may come after what it was for has left the window.
        amount_now = max(amount_now, 0)
        self.total += amount_now - self.amounts.get(step, 0)
        if amount_now:
            self.amounts[step] = amount_now
        else:
            self.amounts.pop(step, None)
        return amount_now


class _Tally:
    """One measure of one device in all windows; `seen` holds the minute in which each item was last seen."""

    __slots__ = ("levels", "minute", "seen", "windows")

    def __init__(self) -> None:
        self.windows = tuple(_Window(span) for span in Span)
        self.levels = [Level.FREE] * len(Span)
        self.seen: dict[int, int] = {}
        self.minute = 0

    def move(self, minute: int) -> None:
        """Let go of what no window holds any more."""
        if minute == self.minute:
            return
        self.minute = minute
        days = self.windows[Span.DAYS_30].now
        for span, window in zip(Span, self.windows, strict=True):
            window.move(minute // STEP_MINUTES[span])
        if self.seen and self.windows[Span.DAYS_30].now > days:
            oldest = (self.windows[Span.DAYS_30].now - STEPS[Span.DAYS_30]) * STEP_MINUTES[Span.DAYS_30]
            self.seen = {item: at for item, at in self.seen.items() if at >= oldest}

    def fresh(self, items: Collection[int], span: Span) -> int:
        """Return how many of the items the window doesn't hold yet."""
        window, step = self.windows[span], STEP_MINUTES[span]
        return sum(1 for item in items if (at := self.seen.get(item)) is None or not window.holds(at // step))

    def see(self, item: int, minute: int) -> bool:
        """Note an item; say if anything has changed."""
        before = self.seen.get(item)
        if before is not None and before >= minute:
            return False
        self.seen[item] = minute
        for span, window in zip(Span, self.windows, strict=True):
            step = STEP_MINUTES[span]
            if before is not None and window.holds(before // step):
                window.add(before // step, -1)
            window.add(minute // step, 1)
        return True


class _Budgets(NamedTuple):
    """The budgets of a holder, as they are looked up for each match: numbers by measure, then by span."""

    at_end: AtEnd
    warn_percent: int
    numbers: dict[Measure, tuple[int, ...]]


def _budgets_of(settings: DeviceBudgets) -> _Budgets:
    numbers = {measure: tuple(getattr(settings, f"{measure}_per_{span.label}") for span in Span) for measure in Measure}
    return _Budgets(settings.at_end, settings.warn_percent, numbers)


class BudgetBook:
    """The budgets of all devices. Not thread-safe: io holds one lock around each call."""

    def __init__(self, settings: BudgetSettings) -> None:
        self._settings = settings
        self._tallies: dict[str, dict[Measure, _Tally]] = {}
        self._budgets: dict[Holder, _Budgets] = {}
        self._minute = 0
        self._changes: dict[tuple[object, ...], ItemRow | SumRow] = {}

    def use_settings(self, settings: BudgetSettings) -> None:
        """Go on under other budgets; what was used stays used."""
        self._settings = settings
        self._budgets.clear()

    # -- taking out -------------------------------------------------------------------------------------------------

    def check(self, holders: Sequence[Holder], charge: Charge, now: float) -> ReasonCode | None:
        """Return why a charge would be refused; nothing is counted. Bytes are refused once none are left."""
        self._move(now)
        for holder in holders:
            if self._budget(holder).at_end is AtEnd.REFUSE and (over := self._over(holder, charge)):
                return over[0][0].reason
        return None

    def charge(self, holders: Sequence[Holder], charge: Charge, now: float, *, forced: bool = False) -> Outcome:
        """Count for every holder, or refuse and count for none; `forced` never refuses.

        Only whole things are refused: bytes end a budget when none are left, not in the middle.
        """
        self._move(now)
        over = {holder: self._over(holder, charge) for holder in holders}
        for holder, ended in over.items():
            if ended and not forced and self._budget(holder).at_end is AtEnd.REFUSE:
                notices = [notice for each in ended if (notice := self._raise(holder, *each, Level.ENDED))]
                return Outcome(refused=ended[0][0].reason, notices=tuple(notices))
        delay, noticed = 0.0, []
        for holder, ended in over.items():
            self._apply(holder, charge)
            noticed += self._levels(holder, charge, ended)
            delay = max(delay, _delay(charge, {measure for measure, _ in ended}))
        reasons = [ended[0][0].reason for ended in over.values() if ended]
        return Outcome(
            over=reasons[0] if reasons else None,
            delay_seconds=delay,
            notices=tuple(noticed),
            granted_bytes=charge.bytes,
            minute=self._minute,
        )

    def lease(self, holders: Sequence[Holder], needed: int, now: float) -> Outcome:
        """Count bytes ahead of a data set that is under way, at least `needed`; never refuses: data sets go whole."""
        self._move(now)
        left = min(
            self._budget_of(holder, Measure.BYTES, span) - self._used(holder, Measure.BYTES, span)
            for holder in holders
            for span in Span
        )
        ahead = min(LEASE_BYTES, left // _LEASE_SHARE) if left > 0 else _OVER_LEASE_BYTES
        charge = Charge(bytes=max(needed, ahead))
        delay, noticed = 0.0, []
        for holder in holders:
            ended = self._over(holder, charge)
            self._apply(holder, charge)
            noticed += self._levels(holder, charge, ended)
            if ended:
                delay = max(delay, _delay(charge, {Measure.BYTES}))
        return Outcome(
            over=ReasonCode.BYTE_BUDGET if delay else None,
            delay_seconds=delay,
            notices=tuple(noticed),
            granted_bytes=charge.bytes,
            minute=self._minute,
        )

    def refund(self, holders: Sequence[Holder], count: int, minute: int, now: float) -> None:
        """Give back leased bytes that nobody has used, where they were counted."""
        self._move(now)
        for holder in holders:
            self._add(holder.device, Measure.BYTES, -count, min(minute, self._minute))

    # -- looking and resetting --------------------------------------------------------------------------------------

    def devices(self) -> list[str]:
        """Return who has used anything."""
        return sorted(self._tallies)

    def usage(self, holder: Holder, now: float) -> tuple[Usage, ...]:
        """Return what a holder has used of each budget."""
        self._move(now)
        return tuple(
            Usage(
                measure,
                span,
                used := self._used(holder, measure, span),
                budget := self._budget_of(holder, measure, span),
                self._level_of(holder, used, budget),
            )
            for measure in Measure
            for span in Span
        )

    def reset(self, device: str) -> bool:
        """Forget what a device has used; False if it had used nothing."""
        self._changes = {key: row for key, row in self._changes.items() if row.device != device}
        return self._tallies.pop(device, None) is not None

    # -- keeping ----------------------------------------------------------------------------------------------------

    def take_changes(self) -> list[ItemRow | SumRow]:
        """Return what has to be written since the last call, each row once."""
        changes, self._changes = list(self._changes.values()), {}
        return changes

    def has_changes(self) -> bool:
        """Say if anything has to be written."""
        return bool(self._changes)

    def rows(self) -> Iterator[ItemRow | SumRow]:
        """Yield everything that is known, as it is kept on disk."""
        for device, tallies in self._tallies.items():
            for measure, tally in tallies.items():
                if measure in DISTINCT:
                    for item, minute in tally.seen.items():
                        yield ItemRow(device, measure, item, minute)
                    continue
                for span, window in zip(Span, tally.windows, strict=True):
                    for step, amount in window.amounts.items():
                        yield SumRow(device, measure, span, step, amount)

    def load(self, rows: Iterable[ItemRow | SumRow], now: float) -> None:
        """Take in what was kept. What lies in the future (the clock was wrong) counts as of now."""
        self._move(now)
        for row in rows:
            tally = self._tally(row.device, row.measure)
            if isinstance(row, ItemRow):
                minute = min(row.minute, self._minute)
                if tally.windows[Span.DAYS_30].holds(minute // STEP_MINUTES[Span.DAYS_30]):
                    tally.see(row.item, minute)
            else:
                tally.windows[row.span].add(min(row.step, self._minute // STEP_MINUTES[row.span]), row.amount)

    # -- small things -----------------------------------------------------------------------------------------------

    def _move(self, now: float) -> None:
        """Time goes forward only: a clock that was set back must not make windows longer or open them again."""
        self._minute = max(self._minute, int(now // _MINUTE))

    def _tally(self, device: str, measure: Measure) -> _Tally:
        tallies = self._tallies.get(device)
        if tallies is None:
            tallies = self._tallies[device] = {each: _Tally() for each in Measure}
        tally = tallies[measure]
        tally.move(self._minute)
        return tally

    def _budget(self, holder: Holder) -> _Budgets:
        budget = self._budgets.get(holder)
        if budget is None:
            budget = self._budgets[holder] = _budgets_of(self._settings.for_device(*holder))
        return budget

    def _budget_of(self, holder: Holder, measure: Measure, span: Span) -> int:
        return self._budget(holder).numbers[measure][span]

    def _used(self, holder: Holder, measure: Measure, span: Span) -> int:
        if holder.device not in self._tallies:
            return 0
        return self._tally(holder.device, measure).windows[span].total

    def _over(self, holder: Holder, charge: Charge) -> list[tuple[Measure, Span]]:
        """Return the budgets that the charge would go beyond."""
        over = []
        numbers = self._budget(holder).numbers
        for measure in charge.measures():
            items = charge.items(measure) if measure in DISTINCT else ()
            # Only whole things are refused: of bytes, one that is left will do.
            more = charge.matches if measure is Measure.MATCHES else 1
            tally = self._tally(holder.device, measure)
            for span, window, number in zip(Span, tally.windows, numbers[measure], strict=True):
                if items:
                    more = tally.fresh(items, span)
                if more and window.total + more > number:
                    over.append((measure, span))
        return over

    def _apply(self, holder: Holder, charge: Charge) -> None:
        for measure in DISTINCT:
            tally = self._tally(holder.device, measure)
            # Beyond twice the longest budget nothing new is remembered: memory is bounded for who is only slowed, too.
            most = 2 * self._budget_of(holder, measure, Span.DAYS_30)
            for item in charge.items(measure):
                if (item in tally.seen or len(tally.seen) < most) and tally.see(item, self._minute):
                    row = ItemRow(holder.device, measure, item, self._minute)
                    self._changes[row[:3]] = row
        if charge.matches:
            self._add(holder.device, Measure.MATCHES, charge.matches, self._minute)
        if charge.bytes:
            self._add(holder.device, Measure.BYTES, charge.bytes, self._minute)

    def _add(self, device: str, measure: Measure, amount: int, minute: int) -> None:
        tally = self._tally(device, measure)
        for span, window in zip(Span, tally.windows, strict=True):
            step = minute // STEP_MINUTES[span]
            if window.holds(step):
                row = SumRow(device, measure, span, step, window.add(step, amount))
                self._changes[row[:4]] = row

    def _levels(self, holder: Holder, charge: Charge, ended: Collection[tuple[Measure, Span]]) -> list[Notice]:
        """Return what has come to a level by this charge."""
        notices = []
        numbers = self._budget(holder).numbers
        for measure in charge.measures():
            tally = self._tally(holder.device, measure)
            for span, window, number in zip(Span, tally.windows, numbers[measure], strict=True):
                level = Level.ENDED if (measure, span) in ended else self._level_of(holder, window.total, number)
                if level is not tally.levels[span] and (notice := self._raise(holder, measure, span, level)):
                    notices.append(notice)
        return notices

    def _level_of(self, holder: Holder, used: int, budget: int) -> Level:
        if used > budget:
            return Level.ENDED
        return Level.WARNED if used * 100 >= budget * self._budget(holder).warn_percent else Level.FREE

    def _raise(self, holder: Holder, measure: Measure, span: Span, level: Level) -> Notice | None:
        """Note a level; return a notice if it is a higher one than since the budget was free."""
        levels = self._tally(holder.device, measure).levels
        known = levels[span]
        if level is Level.FREE or level > known:
            levels[span] = level
        if level <= known:
            return None
        used, budget = self._used(holder, measure, span), self._budget_of(holder, measure, span)
        return Notice(holder, measure, span, level, used, budget, self._budget(holder).at_end)


def _delay(charge: Charge, ended: Collection[Measure]) -> float:
    """Return how long a device over its budget waits."""
    seconds = 0.0
    if Measure.PATIENTS in ended or Measure.STUDIES in ended:
        seconds = OVER_ITEM_SECONDS
    if Measure.MATCHES in ended:
        seconds = max(seconds, OVER_MATCH_SECONDS * charge.matches)
    if Measure.BYTES in ended:
        seconds = max(seconds, charge.bytes / OVER_BYTES_PER_SECOND)
    return seconds
