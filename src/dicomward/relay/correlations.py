"""What spans associations: pending C-MOVEs and their sub-operations, storage commitments and their reports.

The values, the port that the relay asks, and the arithmetic of matching (`MoveTable`), which never guesses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingMove:
    """A C-MOVE that was forwarded and has not ended; `bypasses` are the rule ids of those that let it pass."""

    move_id: str
    archive: str
    destination_ae_title: str
    originator_ae_title: str
    message_id: int
    device: str
    called_ae_title: str
    association: str
    bypasses: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What a sub-operation shows of its move."""
        return (self.archive, self.destination_ae_title, self.originator_ae_title, self.message_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingCommitment:
    """A storage commitment request that was forwarded and not reported on."""

    transaction_uid: str
    archive: str
    device: str
    device_ae_title: str
    called_ae_title: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """More than one pending move fits a sub-operation that names no originator."""


class Correlations(Protocol):
    """The port. Calls answer at once; what may take time is an effect (RegisterMove, RegisterCommitment)."""

    def moves_towards(self, archive: str, destination_ae_title: str) -> Sequence[PendingMove]:
        """Pending moves of an archive towards a destination."""

    def commitments_towards(self, archive: str, device_ae_title: str) -> Sequence[PendingCommitment]:
        """Pending commitments of an archive towards a device's title."""

    def match_move(
        self, archive: str, destination_ae_title: str, originator_ae_title: str | None, message_id: int | None
    ) -> PendingMove | Ambiguous | None:
        """Return the move that a C-STORE sub-operation belongs to."""

    def note_refused(self, move_id: str) -> None:
        """Note that the gateway refused a sub-operation of the move."""

    def finish_move(self, move_id: str) -> int:
        """Forget a move; return how many of its sub-operations the gateway refused."""

    def finish_commitment(self, transaction_uid: str, archive: str) -> None:
        """Forget a commitment that was reported on."""


@dataclass(slots=True)
class _Active:
    move: PendingMove
    refused: int = 0


@dataclass(slots=True)
class MoveTable:
    """Pending moves: admission by turns where a sub-operation could not be told from another's, and matching.

    An archive that has never named the originator (Move Originator AE Title and Message ID, PS3.7 §9.1.1.1) in a
    sub-operation gets one move at a time towards a destination. Once it has named it, moves run side by side, except
    two with the same originator and message ID. If it then leaves it out, it is held to turns from there on.
    """

    names_originator: dict[str, bool] = field(default_factory=dict)
    _active: dict[str, _Active] = field(default_factory=dict)
    _waiting: list[PendingMove] = field(default_factory=list)

    def request(self, move: PendingMove) -> bool:
        """Ask for a turn; True = it runs now, False = it waits until `finish` of others returns it."""
        if any(self._collides(move, other) for other in self._ahead_of(move)):
            self._waiting.append(move)
            return False
        self._active[move.move_id] = _Active(move)
        return True

    def finish(self, move_id: str) -> tuple[int, list[PendingMove]]:
        """Forget a move, running or waiting; return its refused sub-operations and the moves whose turn has come."""
        active = self._active.pop(move_id, None)
        self._waiting = [move for move in self._waiting if move.move_id != move_id]
        return active.refused if active else 0, self._admit()

    def note_refused(self, move_id: str) -> None:
        """Note that the gateway refused a sub-operation of the move."""
        if move_id in self._active:
            self._active[move_id].refused += 1

    def towards(self, archive: str, destination_ae_title: str) -> list[PendingMove]:
        """Return the running moves of an archive towards a destination."""
        return [
            active.move
            for active in self._active.values()
            if (active.move.archive, active.move.destination_ae_title) == (archive, destination_ae_title)
        ]

    def match(
        self, archive: str, destination_ae_title: str, originator_ae_title: str | None, message_id: int | None
    ) -> PendingMove | Ambiguous | None:
        """Return the move that a sub-operation belongs to; learn if the archive names originators."""
        moves = self.towards(archive, destination_ae_title)
        if originator_ae_title is not None and message_id is not None:
            key = (archive, destination_ae_title, originator_ae_title, message_id)
            named = [move for move in moves if move.key == key]
            if named:
                self.names_originator[archive] = True
                return named[0]
            return None
        self.names_originator[archive] = False
        if len(moves) > 1:
            return Ambiguous()
        return moves[0] if moves else None

    def _ahead_of(self, move: PendingMove) -> list[PendingMove]:
        waiting = []
        for other in self._waiting:
            if other is move:
                break
            waiting.append(other)
        return [active.move for active in self._active.values()] + waiting

    def _collides(self, move: PendingMove, other: PendingMove) -> bool:
        if (move.archive, move.destination_ae_title) != (other.archive, other.destination_ae_title):
            return False
        return move.key == other.key or not self.names_originator.get(move.archive, False)

    def _admit(self) -> list[PendingMove]:
        admitted = []
        for move in list(self._waiting):
            if not any(self._collides(move, other) for other in self._ahead_of(move)):
                self._waiting.remove(move)
                self._active[move.move_id] = _Active(move)
                admitted.append(move)
        return admitted
