"""Many small transactions with one commit: on a disk that takes 20 ms to be sure, 100 of them a second still fit.

Each piece of work runs in a savepoint of its own, so a refusal takes back nothing of the others. Whoever comes first
works for all who wait; nobody is answered before the commit has succeeded.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from dicomward.io.registry.store import RegistryStore, RegistryStoreError

_Result = TypeVar("_Result")
# So long a transaction holds up whoever else changes the registry.
MOST_TOGETHER: Final = 32


@dataclass
class _Piece(Generic[_Result]):
    """One piece of work and what became of it."""

    work: Callable[[Connection], _Result]
    results: list[_Result] = field(default_factory=list)
    error: BaseException | None = None
    over: threading.Event = field(default_factory=threading.Event)


class GroupCommit:
    """For the threads of one process."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store
        self._turn = threading.Lock()
        self._waiting: deque[_Piece[object]] = deque()

    def run(self, work: Callable[[Connection], _Result]) -> _Result:
        """Do the work, and return what it returns once it is committed. Raises what it raises, RegistryStoreError."""
        piece: _Piece[_Result] = _Piece(work)
        self._waiting.append(piece)  # type: ignore[arg-type]
        with self._turn:
            while not piece.over.is_set():
                self._work_for_some()
        if piece.error is not None:
            raise piece.error
        return piece.results[0]

    def _work_for_some(self) -> None:
        """Take who has waited longest."""
        pieces = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
        try:
            with self._store.writing() as connection:
                for piece in pieces:
                    _do(connection, piece)
        except BaseException as error:  # noqa: BLE001  each of them hears of it
            # Nothing of it is stored, whatever each piece thinks.
            for piece in pieces:
                piece.results.clear()
                piece.error = piece.error or error
        finally:
            for piece in pieces:
                piece.over.set()


def _do(connection: Connection, piece: _Piece[object]) -> None:
    try:
        with connection.begin_nested():
            piece.results.append(piece.work(connection))
    except IntegrityError as error:
        piece.error = RegistryStoreError(f"the registry database refused it: {error.orig}; repeat it")
    except DBAPIError as error:
        # A full disk, a server that is gone: nobody's work can be stored.
        raise _first_of(error) from None
    except Exception as error:  # noqa: BLE001  it is raised where the work came from
        piece.error = error


def _first_of(error: DBAPIError) -> DBAPIError:
    """Return what went wrong first: on a full disk SQLite ends the transaction, and the savepoint isn't found then."""
    first, each = error, error.__context__
    while each is not None:
        if isinstance(each, DBAPIError):
            first = each
        each = each.__context__
    return first
