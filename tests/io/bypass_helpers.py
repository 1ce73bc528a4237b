"""What the tests of the emergency bypass share: clocks that stand still, and a log in memory."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicomward.audit.event import AuditEvent, SecurityAlert
from dicomward.io.protection.bypass_keeper import BypassKeeper
from dicomward.io.protection.bypass_store import Clocks
from dicomward.policy.bypass import NO_BYPASS, BypassTable, Moment

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


class FakeClocks(Clocks):
    """Time passes only when a test says so."""

    def __init__(self) -> None:
        self.wall = NOON
        self.boot = "boot-1"
        self.boot_seconds = 5000.0

    def pass_by(self, **time: float) -> None:
        step = timedelta(**time)
        self.wall += step
        self.boot_seconds += step.total_seconds()

    def moment(self) -> Moment:
        return Moment(wall=self.wall, boot=self.boot, boot_seconds=self.boot_seconds)

    def monotonic(self) -> float:
        return self.boot_seconds


class Ward:
    """A state directory with a keeper on it, as a gateway has it."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "run"
        self.audit = directory / "audit"
        self.state.mkdir()
        self.audit.mkdir()
        self.clocks = FakeClocks()
        self.events: list[AuditEvent] = []
        self.log_works = True
        self.table: BypassTable = NO_BYPASS
        self.keeper = self.again()

    def again(self) -> BypassKeeper:
        """Return a keeper as a restarted gateway has it, loaded."""
        self.keeper = BypassKeeper(self.state, self.audit, self.record, self.use, clocks=self.clocks)
        self.keeper.load()
        return self.keeper

    def record(self, event: AuditEvent) -> bool:
        if self.log_works:
            self.events.append(event)
        return self.log_works

    def use(self, table: BypassTable) -> None:
        self.table = table

    def open(self, device: str | None = "ct1", site: str | None = None, minutes: int = 60) -> str:
        changed = self.keeper.open(device=device, site=site, minutes=minutes, reason="night", operator="anna")
        return changed.bypass.bypass_id

    def is_lifted(self, device: str = "ct1", site: str = "") -> bool:
        return self.table.find(device, site, self.clocks.monotonic()) is not None

    @property
    def alarms(self) -> list[str]:
        return [str(event.reason) for event in self.events if isinstance(event, SecurityAlert)]
