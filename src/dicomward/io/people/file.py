"""Persons of the local passcode file."""

import logging
import os
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from dicomward.identity.passcodes import (
    SALT_BYTES,
    PasscodeRecord,
    Passcodes,
    PasscodesError,
    hash_passcode,
    is_passcode,
    parse_passcodes,
    render_passcodes,
)
from dicomward.identity.person import Person, PersonClaim, PersonRefused, PersonUnavailable, Verdict
from dicomward.io.private_file import replace_file
from dicomward.vocab.association import UserIdentityType
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

_MOST_BYTES: Final = 16 * 1024 * 1024


def read_passcodes(path: Path) -> Passcodes:
    """Return the persons of a file; none where there is no file. Raises PasscodesError."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise PasscodesError(f"{path} is larger than {_MOST_BYTES} bytes")
        return parse_passcodes(path.read_text(encoding="utf-8"), source=str(path))
    except FileNotFoundError:
        return Passcodes()
    except (OSError, UnicodeDecodeError) as error:
        raise PasscodesError(f"{path} can't be read: {error}") from error


def write_passcodes(path: Path, passcodes: Passcodes) -> None:
    """Replace the file. Raises OSError."""
    replace_file(path, render_passcodes(passcodes))


class PasscodeFile:
    """The local file as a source; a changed file counts from the next claim on."""

    type = UserIdentityType.USERNAME_AND_PASSCODE

    def __init__(self, path: Path, verdict: timedelta) -> None:
        self._path = path
        self._verdict = verdict
        self._lock = threading.Lock()
        self._read: tuple[object, Passcodes] | None = None
        # Somebody who isn't in the file takes as long as a wrong passcode, so that names can't be told by time.
        self._nobody = PasscodeRecord(name="nobody", hash=hash_passcode(os.urandom(SALT_BYTES), os.urandom(SALT_BYTES)))

    def is_configured(self) -> bool:
        """Say if there is somebody in the file, or a file that can't be read."""
        try:
            return bool(self._passcodes().entries)
        except PasscodesError:
            return self._path.exists()

    def verify(self, claim: PersonClaim, now: datetime) -> Verdict | None:
        """Judge a claim; None for somebody who isn't in the file."""
        try:
            passcodes = self._passcodes()
            record = passcodes.named(claim.name)
            is_right = is_passcode((record or self._nobody).hash, claim.secret)
        except PasscodesError as error:
            _log.error("%s", error)
            return PersonUnavailable(str(error))
        if record is None:
            return None
        if not is_right:
            return PersonRefused(ReasonCode.USER_IDENTITY_REFUSED, "wrong name or passcode")
        return Person(name=record.name, groups=frozenset(record.groups), until=now + self._verdict)

    def _passcodes(self) -> Passcodes:
        try:
            found = self._path.stat()
        except OSError:
            return read_passcodes(self._path)
        standing = (found.st_mtime_ns, found.st_size, found.st_ino)
        with self._lock:
            if self._read is None or self._read[0] != standing:
                self._read = (standing, read_passcodes(self._path))
            return self._read[1]
