"""The enrolment key: 32 random bytes in a file, under which codes are hashed and CMP secrets encrypted at rest.

Whoever invites and every enrolment server need the same file. It signs nothing: with it alone nobody gets anywhere.
"""

import base64
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dicomward.io.ca.local import write_new_file

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class EnrolmentKeyError(Exception):
    """The key can't be made, read or used; the message says why and what to do."""


def load_enrolment_key(path: Path, *, create: bool = False) -> bytes:
    """Read the key; with `create` a missing one is made. Raises EnrolmentKeyError."""
    if create and not path.exists():
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_new_file(path, base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n", 0o600)
        except FileExistsError:
            pass  # another command was quicker: that key counts
        except OSError as error:
            raise EnrolmentKeyError(
                f"the enrolment key {path} can't be written ({error.strerror}); check the directory and its disk"
            ) from error
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(1024)
    except OSError as error:
        raise EnrolmentKeyError(
            f"the enrolment key {path} can't be read ({error.strerror}); run as its owner, or copy it from where "
            "devices are invited"
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise EnrolmentKeyError(f"others than its owner may read the enrolment key {path}; chmod 600 it")
    try:
        key = base64.b64decode(data.strip(), validate=True)
    except ValueError as error:
        raise EnrolmentKeyError(f"{path} holds no enrolment key; bring it back from a backup") from error
    if len(key) != _KEY_BYTES:
        raise EnrolmentKeyError(f"{path} holds no enrolment key; bring it back from a backup")
    return key


def seal_secret(secret: str, key: bytes, invitation: str) -> str:
    """Encrypt a CMP secret for one invitation; base64."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = AESGCM(_derived(key)).encrypt(nonce, secret.encode("ascii"), invitation.encode("ascii"))
    return base64.b64encode(nonce + sealed).decode("ascii")


def open_secret(sealed: str, key: bytes, invitation: str) -> str:
    """Decrypt a CMP secret. Raises EnrolmentKeyError if the key isn't the one it was sealed with."""
    data = base64.b64decode(sealed)
    try:
        return (
            AESGCM(_derived(key))
            .decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], invitation.encode("ascii"))
            .decode("ascii")
        )
    except (InvalidTag, ValueError) as error:
        raise EnrolmentKeyError(
            f"the CMP secret of invitation {invitation} was sealed with another enrolment key; "
            "use the key of the host where it was invited"
        ) from error


def _derived(key: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"dicomward cmp secrets").derive(key)
