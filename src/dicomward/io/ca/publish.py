"""Brings what was issued into force: snapshot file, running gateway, audit log; many enrolments with one write.

Where the gateway has another host or user, `follow` does that there, and `Publisher` waits until it has.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from dicomward.identity.registry import RegistryError
from dicomward.io.registry.change import NotInForceError, apply_change, put_in_force
from dicomward.io.registry.changed import ChangedRegistry
from dicomward.io.registry.store import RegistryStore, RegistryStoreError, snapshot_lock
from dicomward.settings import Settings

FOLLOW_SECONDS: Final = 1.0
# A device waits for its answer so long; then it gets its certificate all the same.
_PATIENCE_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.1


class Publisher:
    """For the threads of one process; other processes have the lock of the snapshot file."""

    def __init__(self, settings: Settings, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._settings = settings
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._published = -1
        self._store: RegistryStore | None = None
        self._reader: ChangedRegistry | None = None

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._store is not None:
                self._store.close()
            self._store = self._reader = None

    def publish(self, revision: int) -> str | None:
        """Return when that revision of the registry is in force; else what an operator has to repair.

        The certificate exists by then: whoever asked should get it. Whoever waited for another one finds it done.
        """
        if self._settings.enrolment.gateway_elsewhere:
            return self._wait_for(revision)
        with self._lock:
            if self._published >= revision:
                return None
            try:
                self._published = self._put_in_force()
            except (NotInForceError, RegistryError, RegistryStoreError, OSError) as error:
                return str(error)
            return None

    def _put_in_force(self) -> int:
        """Return the revision that is in force."""
        if self._store is None or self._reader is None:
            self._store = RegistryStore.open(self._settings.registry.url, keeps_connections=True)
            self._reader = ChangedRegistry(self._store)
        with snapshot_lock(self._settings.registry.snapshot):
            return put_in_force(self._settings, self._store, self._reader.read()).snapshot.revision

    def _wait_for(self, revision: int) -> str | None:
        deadline = time.monotonic() + self._patience_seconds
        try:
            with RegistryStore.open(self._settings.registry.url) as store:
                while not store.is_audited(revision):
                    if time.monotonic() >= deadline:
                        return (
                            f"revision {revision} of the registry is not in force at the gateway yet; does this run "
                            "there: dicomward device sync --follow"
                        )
                    time.sleep(_LOOK_SECONDS)
        except RegistryStoreError as error:
            return str(error)
        return None


def follow(settings: Settings, wait: Callable[[float], bool], report: Callable[[str], None]) -> None:
    """Bring into force what others store in the database, until `wait` (for so many seconds) says that it is over.

    What is wrong is reported once, and tried again.
    """
    last = ""
    while True:
        problem = bring_into_force(settings)
        if problem is not None and problem != last:
            report(problem)
        last = problem or ""
        if wait(FOLLOW_SECONDS):
            return


def bring_into_force(settings: Settings) -> str | None:
    """Do it once, if there is something; return what is wrong."""
    try:
        with RegistryStore.open(settings.registry.url) as store:
            if not store.unaudited_changes():
                return None
        apply_change(settings, lambda store: store.read())
    except (NotInForceError, RegistryError, RegistryStoreError, OSError) as error:
        return str(error)
    return None
