"""The three files that a device gets: key.pem, cert.pem, ca.pem."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dicomward.io.ca.local import Issued, write_new_file

NAMES: Final = ("key.pem", "cert.pem", "ca.pem")


class CredentialFilesError(Exception):
    """The files can't be written; the message says why and what to do."""


@contextmanager
def credential_files(directory: Path, issued: Issued, ca_pem: bytes, *, keep_on: type[BaseException]) -> Iterator[None]:
    """Write the files; if what follows fails, remove them again, except for failures of the kind `keep_on`.

    The directory is made if it is missing. Nothing is overwritten. Raises CredentialFilesError.
    """
    taken = [name for name in NAMES if (directory / name).exists() or (directory / name).is_symlink()]
    if taken:
        raise CredentialFilesError(
            f"{directory} has {', '.join(taken)} already, and nothing is overwritten; choose another"
        )
    made = None if directory.exists() else directory
    written: list[Path] = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        contents = (issued.key_pem, 0o600), (issued.certificate_pem, 0o644), (ca_pem, 0o644)
        for name, (data, mode) in zip(NAMES, contents, strict=True):
            write_new_file(directory / name, data, mode)
            written.append(directory / name)
    except OSError as error:
        _remove(written, made)
        raise CredentialFilesError(
            f"the device's files can't be written to {directory} ({error.strerror}); check its rights and its disk"
        ) from error
    try:
        yield
    except keep_on:
        raise
    except BaseException:
        # Also when the person interrupts us: a key that nobody registered must not lie around.
        _remove(written, made)
        raise


def _remove(files: list[Path], directory: Path | None) -> None:
    for path in files:
        path.unlink(missing_ok=True)
    if directory is not None and directory.is_dir():
        directory.rmdir()
