"""The emergency bypass: what it lifts and for whom, when it ends, who may review it, and what its records prove.

Rules of this file: a bypass lifts what policy, limits and budgets would refuse, never what says who somebody is or
whether a message is sound; it never lasts longer than either clock says; nothing that is unknown lengthens it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from dicomward.vocab.reason import ReasonCode

DEFAULT_MINUTES: Final = 60
MOST_MINUTES: Final = 480
"""A night shift: who needs longer opens another one, on record again."""
ALARM_SECONDS: Final = 900.0
REVIEW_ALARM_SECONDS: Final = 86_400.0
LEASE_SECONDS: Final = 60.0
"""Time is noted as used in advance, so that a new boot with a clock that went back can't give any of it back."""
MOST_TEXT: Final = 500

# What policy, limits and budgets say. Everything else (identity, routes, validation, our own faults) stays refused.
LIFTED: Final = frozenset(
    {
        ReasonCode.DENIED_BY_RULE,
        ReasonCode.NO_MATCHING_RULE,
        ReasonCode.RULE_ERROR,
        ReasonCode.NO_PERMITTED_CONTEXT,
        ReasonCode.CLINICAL_FLOOR_ONLY,
        ReasonCode.MOVE_DESTINATION_NOT_ALLOWED,
        ReasonCode.QUERY_LEVEL_NOT_ALLOWED,
        ReasonCode.REQUIRED_KEYS_MISSING,
        ReasonCode.OUTSIDE_PERMITTED_TIMES,
        ReasonCode.ASSURANCE_TOO_LOW,
        ReasonCode.DEVICE_ASSOCIATIONS,
        ReasonCode.NETWORK_ASSOCIATIONS,
        ReasonCode.ARCHIVE_ASSOCIATIONS,
        ReasonCode.ASSOCIATION_RATE,
        ReasonCode.OPERATION_RATE,
        ReasonCode.QUERY_RATE,
        ReasonCode.MATCHES_PER_QUERY,
        ReasonCode.BYTE_RATE,
        ReasonCode.PATIENT_BUDGET,
        ReasonCode.STUDY_BUDGET,
        ReasonCode.MATCH_BUDGET,
        ReasonCode.BYTE_BUDGET,
        ReasonCode.BUDGETS_UNAVAILABLE,
        ReasonCode.STRIPPED_KEY,
    }
)
# Why a caller may be narrowed to the clinical floor though it is known who it is; an expired certificate is not among
# them, since it is about who it is.
LIFTED_FLOORS: Final = frozenset(
    {ReasonCode.AUDIT_UNAVAILABLE, ReasonCode.CERTIFICATE_BACK_OFF, ReasonCode.BUDGETS_UNAVAILABLE}
)


def is_lifted(reason: ReasonCode, floor_only: str | None = None) -> bool:
    """Say if a bypass lifts a refusal; `floor_only` is what has narrowed the caller to the clinical floor, if any."""
    if reason is ReasonCode.CLINICAL_FLOOR_ONLY:
        return floor_only is None or floor_only in LIFTED_FLOORS
    return reason in LIFTED


class Ending(StrEnum):
    """How a bypass ended."""

    CLOSED = "closed"
    TIME = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One reading of the clocks: wall time (aware), and seconds since the boot that `boot` names."""

    wall: datetime
    boot: str
    boot_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bypass:
    """One bypass, from its opening to its review: for one device or for one site.

    `boot_seconds` is when it was opened, on the clock that began with `boot`; `leased_seconds` what counts as used up
    should there be another boot; `alarmed_at` the last alarm. These four are no part of what the audit log proves.
    """

    bypass_id: str
    device: str | None
    site: str | None
    reason: str
    operator: str
    minutes: int
    opened_at: datetime
    boot: str
    boot_seconds: float
    leased_seconds: float = LEASE_SECONDS
    alarmed_at: datetime | None = None
    ended_at: datetime | None = None
    ending: Ending | None = None
    ended_by: str | None = None
    reviewed_at: datetime | None = None
    reviewed_by: str | None = None
    note: str | None = None

    @property
    def is_open(self) -> bool:
        """Say if it has not ended; whether its time is over is `seconds_left`."""
        return self.ended_at is None

    @property
    def is_reviewed(self) -> bool:
        """Say if somebody has looked at what was done."""
        return self.reviewed_at is not None

    @property
    def ends_at(self) -> datetime:
        """When it ends by itself, if the clock is right."""
        return self.opened_at + timedelta(minutes=self.minutes)

    @property
    def target(self) -> str:
        """For whom it is: `device ct1`, `site north`."""
        return f"device {self.device}" if self.device is not None else f"site {self.site}"

    @property
    def rule_id(self) -> str:
        """What stands among the rules of a record that only passed because of it."""
        return f"bypass:{self.bypass_id}"

    def used_at(self, now: Moment) -> float:
        """Return how much of its time is used up, by whichever clock says the most."""
        used = now.boot_seconds - self.boot_seconds if now.boot == self.boot else self.leased_seconds
        return max(0.0, used, (now.wall - self.opened_at).total_seconds())

    def seconds_left(self, now: Moment) -> float:
        """Return how long it goes on; 0.0 if it has ended or its time is over."""
        return max(0.0, self.minutes * 60 - self.used_at(now)) if self.is_open else 0.0

    def leased(self, now: Moment) -> "Bypass":
        """Return it with its clock carried over to this boot, and enough time leased; itself if nothing changes."""
        used = self.used_at(now)
        if now.boot == self.boot and used + LEASE_SECONDS / 2 <= self.leased_seconds:
            return self
        return replace(self, boot=now.boot, boot_seconds=now.boot_seconds - used, leased_seconds=used + LEASE_SECONDS)


class Due(StrEnum):
    """What is to be done about a bypass now."""

    END = "end"
    ALARM_OPEN = "alarm-open"
    ALARM_UNREVIEWED = "alarm-unreviewed"


def judge_due(bypass: Bypass, now: Moment) -> Due | None:
    """Return what is to be done about a bypass at this moment, or None."""
    if bypass.is_reviewed:
        return None
    if bypass.is_open and not bypass.seconds_left(now):
        return Due.END
    if bypass.alarmed_at is not None:
        elapsed = (now.wall - bypass.alarmed_at).total_seconds()
        # A clock that was set back must not silence the alarms.
        if 0.0 <= elapsed < (ALARM_SECONDS if bypass.is_open else REVIEW_ALARM_SECONDS):
            return None
    return Due.ALARM_OPEN if bypass.is_open else Due.ALARM_UNREVIEWED


class ReviewRefused(Exception):
    """A bypass can't be reviewed like this; the message says why and what to do."""


def verify_review(bypass: Bypass, reviewer: str, *, is_only_operator: bool) -> None:
    """Check that somebody may review a bypass. Raises ReviewRefused."""
    if bypass.is_open:
        raise ReviewRefused(f"bypass {bypass.bypass_id} is still open: close it first (dicomward bypass close)")
    if bypass.is_reviewed:
        raise ReviewRefused(f"bypass {bypass.bypass_id} was reviewed by {bypass.reviewed_by} already")
    if reviewer.casefold() == bypass.operator.casefold() and not is_only_operator:
        raise ReviewRefused(
            f"{bypass.operator} opened bypass {bypass.bypass_id}, so somebody else must review it: "
            "another operator runs this command, or is named with --operator"
        )


# -- for the relay ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenBypass:
    """What the relay needs to know of an open bypass; `until` is monotonic seconds."""

    rule_id: str
    until: float


@dataclass(frozen=True, slots=True)
class BypassTable:
    """The bypasses that are open now: an immutable snapshot, swapped as a whole."""

    devices: Mapping[str, OpenBypass] = field(default_factory=dict)
    sites: Mapping[str, OpenBypass] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.devices or self.sites)

    def find(self, device: str, site: str, monotonic: float) -> OpenBypass | None:
        """Return the bypass that is open for a device of a site; its own comes before that of the site."""
        for found in (self.devices.get(device), self.sites.get(site)):
            if found is not None and monotonic < found.until:
                return found
        return None


NO_BYPASS: Final = BypassTable()


def compile_table(bypasses: Iterable[Bypass], now: Moment, monotonic: float) -> BypassTable:
    """Return what is open now; of several for the same device or site the one that lasts longest."""
    devices: dict[str, OpenBypass] = {}
    sites: dict[str, OpenBypass] = {}
    for bypass in sorted(bypasses, key=lambda each: each.seconds_left(now)):
        left = bypass.seconds_left(now)
        if left:
            table, name = (devices, bypass.device) if bypass.device is not None else (sites, bypass.site)
            table[name or ""] = OpenBypass(bypass.rule_id, monotonic + left)
    return BypassTable(devices, sites) if devices or sites else NO_BYPASS


# -- evidence ---------------------------------------------------------------------------------------------------------


def judge_evidence(digests: Mapping[str, str], recorded: Mapping[str, str], reviewed: frozenset[str]) -> list[str]:
    """Compare the files of bypasses with what the audit log has last said of each; return what does not fit.

    `digests` and `recorded` hold the SHA-256 of each bypass's state, in its file and in its last audit record;
    `reviewed` names those whose review is on record: their files may be gone.
    """
    found = []
    for bypass_id in sorted(digests.keys() | recorded.keys()):
        if bypass_id not in digests:
            if bypass_id not in reviewed:
                found.append(f"bypass {bypass_id} is in the audit log, but its file is gone")
        elif bypass_id not in recorded:
            found.append(f"bypass {bypass_id} has a file, but no record in the audit log")
        elif digests[bypass_id] != recorded[bypass_id]:
            found.append(f"the file of bypass {bypass_id} is not as the audit log has it")
    return found
