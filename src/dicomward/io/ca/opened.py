"""The issuing CA that issues now, with its key open: after a rollover the next one is opened, without a restart."""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from dicomward.io.ca.directory import STATE_NAME, CaDirectory
from dicomward.io.ca.sign import Authority, der_of, fingerprint_of
from dicomward.io.ca.terms import CaError

_log = logging.getLogger(__name__)

_Mark = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCa:
    """The CA as it is now: certificates are DER; `chain` is the issuing CA's own, `anchors` what devices trust."""

    directory: CaDirectory
    authority: Authority
    issuer_sha256: str
    chain: tuple[bytes, ...]
    anchors: tuple[bytes, ...]


class OpenedCa:
    """Safe to be used from many threads. A rollover replaces `ca.json` last, so that file tells of it."""

    def __init__(self, path: Path) -> None:
        """Open the key. Raises CaError."""
        self._path = path
        self._lock = threading.Lock()
        self._mark, self._current = _mark_of(path), _open(path)

    def current(self) -> OpenCa:
        """Return the CA that issues. Raises CaError if another one should, and its key can't be opened."""
        with self._lock:
            mark = _mark_of(self._path)
            if mark != self._mark:
                opened = _open(self._path)
                if opened.issuer_sha256 != self._current.issuer_sha256:
                    _log.warning("%s issues from now on", opened.directory.state.active.name)
                self._mark, self._current = mark, opened
            return self._current


def _mark_of(path: Path) -> _Mark:
    try:
        found = (path / STATE_NAME).stat()
    except OSError as error:
        raise CaError(
            f"{path / STATE_NAME} can't be read ({error.strerror}); bring it back, or make a CA: dicomward ca init"
        ) from error
    return found.st_ino, found.st_mtime_ns, found.st_size


def _open(path: Path) -> OpenCa:
    directory = CaDirectory(path)
    authority = directory.open()
    return OpenCa(
        directory=directory,
        authority=authority,
        issuer_sha256=fingerprint_of(authority.certificate),
        chain=(der_of(authority.certificate),),
        anchors=tuple(der_of(each) for each in directory.anchors()),
    )
