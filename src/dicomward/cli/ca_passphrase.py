"""The passphrase of the root's key: from a file, typed, or made."""

import getpass
import secrets
import sys
from pathlib import Path
from typing import Final

from dicomward.cli.common import UsageError

_SHORTEST: Final = 8
# 32 letters and digits that nobody mistakes for another: 5 bits each, 130 bits in all.
_ALPHABET: Final = "23456789abcdefghijkmnpqrstuvwxyz"
_GROUPS: Final = 5
_GROUP_CHARACTERS: Final = 6


def read_passphrase(file: Path | None, *, new: bool) -> tuple[bytes, bool]:
    """Return the passphrase, and if it was made just now, so that it has to be shown. Raises UsageError.

    Without a file it is typed; a `new` one twice, or made where nothing is typed, or nobody is there to type.
    """
    if file is not None:
        return _checked(_first_line(file), f"the passphrase in {file}"), False
    if not sys.stdin.isatty():
        if new:
            return _make(), True
        raise UsageError("the root's passphrase is needed: --passphrase-file FILE, or run this at a terminal")
    prompt = "passphrase of the root's key (nothing: one is made): " if new else "passphrase of the root's key: "
    typed = getpass.getpass(prompt)
    if not typed and new:
        return _make(), True
    if new and getpass.getpass("once more: ") != typed:
        raise UsageError("the two passphrases are not the same; nothing was made")
    return _checked(typed.encode(), "the passphrase") if new else typed.encode(), False


def _first_line(file: Path) -> bytes:
    try:
        return file.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
    except OSError as error:
        raise UsageError(f"{file} can't be read ({error.strerror}); name the file with the passphrase") from error


def _checked(passphrase: bytes, what: str) -> bytes:
    if len(passphrase) < _SHORTEST:
        raise UsageError(f"{what} has fewer than {_SHORTEST} characters; a root needs a longer one")
    return passphrase


def _make() -> bytes:
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_CHARACTERS)) for _ in range(_GROUPS))
    return "-".join(groups).encode()
