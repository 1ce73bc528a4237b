"""Brings what was issued into force: snapshot file, running gateway, audit log; many enrolments with one write."""

import threading

from dicomward.identity.registry import RegistryError
from dicomward.io.registry_change import NotInForceError, apply_change
from dicomward.io.registry_store import RegistryStoreError
from dicomward.settings import Settings


class Publisher:
    """For the threads of one process; other processes have the lock of the snapshot file."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._published = -1

    def publish(self, revision: int) -> str | None:
        """Return when that revision of the registry is in force; else what an operator has to repair.

        The certificate exists by then: whoever asked should get it. Whoever waited for another one finds it done.
        """
        with self._lock:
            if self._published >= revision:
                return None
            try:
                applied = apply_change(self._settings, lambda store: store.read())
            except (NotInForceError, RegistryError, RegistryStoreError, OSError) as error:
                return str(error)
            self._published = applied.snapshot.revision
            return None
