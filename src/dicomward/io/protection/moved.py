"""Which devices of legacy zones have been seen with TLS: a small file in the state directory. Thread-safe.

Without it their plaintext would come back with every restart. If it can't be written, memory has it until the next
restart, and the log says so.
"""

import json
import logging
import threading
from pathlib import Path
from typing import Final

from dicomward.identity.registry import Device
from dicomward.io.private_file import replace_file

_log = logging.getLogger(__name__)

MOVED_NAME: Final = "moved.json"


class MovedDevices:
    """Device names, each with the certificate that it was first seen with."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the file, if there is one; without a path memory is all."""
        self._path = path
        self._lock = threading.Lock()
        self._certificates: dict[str, str] = _read(path) if path is not None else {}

    def has_moved(self, device: Device) -> bool:
        """Say if the device was seen with a certificate of its own: a rollback takes the certificate away."""
        return device.certificate(self._certificates.get(device.name, "")) is not None

    def note(self, device: str, certificate_sha256: str) -> None:
        """Remember that the device was seen with the certificate."""
        if self._certificates.get(device) == certificate_sha256:
            return
        with self._lock:
            self._certificates = {**self._certificates, device: certificate_sha256}
            if self._path is None:
                return
            try:
                replace_file(self._path, json.dumps(self._certificates, indent=1) + "\n")
            except OSError as error:
                _log.error(
                    "%s can't be written (%s): after a restart the plaintext of %s would be accepted again",
                    self._path,
                    error.strerror or error,
                    device,
                )


def _read(path: Path) -> dict[str, str]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _log.error("%s can't be read (%s): until their next association over TLS, plaintext passes", path, error)
        return {}
    if not isinstance(value, dict):
        return {}
    return {name: sha256 for name, sha256 in value.items() if isinstance(sha256, str)}
