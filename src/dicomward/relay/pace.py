"""When a leg isn't read: for the byte rate or a budget, for what is held, for answers of ours that wait."""

from collections.abc import Mapping

from dicomward.relay.effects import Effect, Pause, Resume, StartTimer
from dicomward.relay.inputs import Instant, Leg, Timer
from dicomward.relay.messages import Side, Transfer
from dicomward.relay.rights import Rights
from dicomward.relay.world import World
from dicomward.vocab.reason import ReasonCode

_BYTE_TIMERS = {Leg.REQUESTOR: Timer.BYTES_FROM_REQUESTOR, Leg.ACCEPTOR: Timer.BYTES_FROM_ACCEPTOR}
_BUDGET_TIMERS = {Leg.REQUESTOR: Timer.BUDGET_FROM_REQUESTOR, Leg.ACCEPTOR: Timer.BUDGET_FROM_ACCEPTOR}
# Peers that hear nothing for longer give up.
MOST_DELAY_SECONDS = 10.0


class Pace:
    """Pauses the legs of one association; a leg is read again when no reason to pause is left."""

    def __init__(self, world: World, rights: Rights, sides: Mapping[Leg, Side], *, network: str) -> None:
        self._world = world
        self._rights = rights
        self._sides = sides
        self._device = rights.principal.device
        self._network = network
        self._uncounted_until = 0.0
        self._delays: dict[Leg, float] = {}

    def spend(self, leg: Leg, transfer: Transfer, count: int, now: Instant, out: list[Effect]) -> None:
        """Count bytes that a leg has sent; above the rate it isn't read for a while."""
        if self._world.bypasses and self._rights.lift(ReasonCode.BYTE_RATE, now) is not None:
            # Not counted either: the debt would hold the device up for hours once the bypass has ended.
            return
        if now.monotonic < self._uncounted_until:
            return
        exchange = transfer.exchange
        # What a device sends in is the floor's; what an archive gives out, in answers or sub-operations, is not.
        floor = not exchange.suboperation_of and leg is exchange.invoker
        wait = self._world.limits.take_bytes(
            device=self._device, network=self._network, count=count, now=now.monotonic, floor=floor
        )
        if wait > 0.0 and (lift := self._rights.lift(ReasonCode.BYTE_RATE, now)) is not None:
            # Of an observed device no more than this is counted, for the same reason.
            self._uncounted_until = now.monotonic + wait
            exchange.add_lift(lift)
        elif wait > 0.0:
            self.pause(leg, "bytes", out)
            out.append(StartTimer(_BYTE_TIMERS[leg], wait))

    def delay(self, leg: Leg, seconds: float, out: list[Effect]) -> None:
        """Don't read a leg for a while, because a budget has ended; what several matches cost adds up."""
        owed = self._delays[leg] = min(self._delays.get(leg, 0.0) + seconds, MOST_DELAY_SECONDS)
        self.pause(leg, "budget", out)
        out.append(StartTimer(_BUDGET_TIMERS[leg], owed))

    def timer_fired(self, timer: Timer, out: list[Effect]) -> None:
        """Read again after a pause that this timer has measured."""
        for why, timers in (("bytes", _BYTE_TIMERS), ("budget", _BUDGET_TIMERS)):
            for leg, own in timers.items():
                if own is timer:
                    if why == "budget":
                        self._delays.pop(leg, None)
                    self.resume(leg, why, out)

    def pause(self, leg: Leg, why: str, out: list[Effect]) -> None:
        """Don't read a leg."""
        pauses = self._sides[leg].pauses
        if not pauses:
            out.append(Pause(leg))
        pauses.add(why)

    def resume(self, leg: Leg, why: str, out: list[Effect]) -> None:
        """Forget one reason."""
        pauses = self._sides[leg].pauses
        if why in pauses:
            pauses.remove(why)
            if not pauses:
                out.append(Resume(leg))
