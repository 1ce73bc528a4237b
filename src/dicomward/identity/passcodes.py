"""The local file of persons and the hashes of their passcodes (scrypt, RFC 7914). docs/people.md.

Salts come in as arguments. A passcode itself is never kept, written or shown.
"""

import hashlib
import hmac
import tomllib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass, field, replace
from typing import Final

from dicomward.identity.person import MOST_GROUPS, is_person_name

PASSCODES_VERSION: Final = 1
SALT_BYTES: Final = 16
LEAST_PASSCODE_CHARACTERS: Final = 8
_MOST_PASSCODE_BYTES: Final = 1024
_HASH_BYTES: Final = 32
# 32 MiB and about 0.1 s: a stolen file is expensive to guess, and a department's mornings aren't slow.
_COST, _BLOCK, _PARALLEL = 2**15, 8, 1
_MOST_MEMORY_BYTES: Final = 64 * 1024 * 1024


class PasscodesError(ValueError):
    """The file, or a person in it, can't be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PasscodeRecord:
    """One person of the file. Raises PasscodesError."""

    name: str
    hash: str = field(repr=False)
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_person_name(self.name) or set(self.name) & set("\"'\\"):
            raise PasscodesError(
                f"{self.name!r} can't be a person's name: write 1 to 64 printable characters, no quotes or "
                "backslashes, no spaces around it"
            )
        for group in self.groups:
            if not is_person_name(group) or set(group) & set("\"'\\"):
                raise PasscodesError(f"{group!r} can't be a group's name")
        if len(self.groups) > MOST_GROUPS:
            raise PasscodesError(f"{self.name!r} has more than {MOST_GROUPS} groups")


@dataclass(frozen=True, slots=True)
class Passcodes:
    """All persons of the file. Raises PasscodesError for two with one name."""

    entries: tuple[PasscodeRecord, ...] = ()

    def __post_init__(self) -> None:
        names = [each.name for each in self.entries]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise PasscodesError(f"{double!r} is there twice; each name is one person")

    def named(self, name: str) -> PasscodeRecord | None:
        """Return a person."""
        return next((each for each in self.entries if each.name == name), None)

    def with_person(self, record: PasscodeRecord) -> "Passcodes":
        """Return them with one more. Raises PasscodesError."""
        return Passcodes((*self.entries, record))

    def with_hash(self, name: str, passcode_hash: str) -> "Passcodes":
        """Return them with another passcode for one."""
        return Passcodes(
            tuple(replace(each, hash=passcode_hash) if each.name == name else each for each in self.entries)
        )

    def without(self, name: str) -> "Passcodes":
        """Return them without one."""
        return Passcodes(tuple(each for each in self.entries if each.name != name))


def verify_new_passcode(passcode: bytes) -> None:
    """Raise PasscodesError if a passcode is too short or too long to be set."""
    if len(passcode.decode("utf-8", "replace")) < LEAST_PASSCODE_CHARACTERS:
        raise PasscodesError(f"a passcode has at least {LEAST_PASSCODE_CHARACTERS} characters")
    if len(passcode) > _MOST_PASSCODE_BYTES:
        raise PasscodesError(f"a passcode has at most {_MOST_PASSCODE_BYTES} bytes")
    if passcode != passcode.strip(b" \0"):
        raise PasscodesError("a passcode has no spaces around it: DICOM may pad it with them")


def hash_passcode(passcode: bytes, salt: bytes) -> str:
    """Return the text that stands for a passcode in the file."""
    digest = _scrypt(passcode, salt, _COST, _BLOCK, _PARALLEL)
    salt_text, digest_text = (b64encode(each).decode("ascii") for each in (salt, digest))
    return f"scrypt${_COST}${_BLOCK}${_PARALLEL}${salt_text}${digest_text}"


def is_passcode(text: str, passcode: bytes) -> bool:
    """Say if this is the passcode that the hash was made of. Raises PasscodesError for a text that is no hash."""
    cost, block, parallel, salt, digest = _parse_hash(text)
    # PS3.5 §6.2: what a peer has padded to an even length is the same text.
    padded = passcode[:_MOST_PASSCODE_BYTES].strip(b" \0")
    return hmac.compare_digest(_scrypt(padded, salt, cost, block, parallel), digest)


def _scrypt(passcode: bytes, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    return hashlib.scrypt(
        passcode, salt=salt, n=cost, r=block, p=parallel, maxmem=_MOST_MEMORY_BYTES, dklen=_HASH_BYTES
    )


def _parse_hash(text: str) -> tuple[int, int, int, bytes, bytes]:
    match text.split("$"):
        case ["scrypt", cost, block, parallel, salt, digest]:
            try:
                numbers = int(cost), int(block), int(parallel)
                parts = b64decode(salt, validate=True), b64decode(digest, validate=True)
            except (ValueError, Base64Error):
                pass
            else:
                if _is_bearable(*numbers) and len(parts[0]) >= SALT_BYTES and len(parts[1]) == _HASH_BYTES:
                    return *numbers, *parts
    raise PasscodesError("this is no hash of a passcode; make one with: dicomward user passcode NAME")


def _is_bearable(cost: int, block: int, parallel: int) -> bool:
    """Say if scrypt takes these numbers, within our memory; what is cheaper than ours is no protection."""
    is_power = cost & (cost - 1) == 0
    return is_power and cost >= _COST and block == _BLOCK and parallel == _PARALLEL and cost * block * 128 <= 2**25


def parse_passcodes(text: str, *, source: str) -> Passcodes:
    """Read the file; `source` names it in messages. Raises PasscodesError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PasscodesError(f"{source} is not TOML: {error}") from error
    if set(document) - {"version", "person"} or document.get("version") != PASSCODES_VERSION:
        raise PasscodesError(f"{source} needs version = {PASSCODES_VERSION}, and knows [[person]] tables besides")
    tables = document.get("person", [])
    if not isinstance(tables, list):
        raise PasscodesError(f"{source}: persons are tables; start each with [[person]]")
    try:
        return Passcodes(tuple(_parse_person(table) for table in tables))
    except PasscodesError as error:
        raise PasscodesError(f"{source}: {error}") from error


def _parse_person(table: object) -> PasscodeRecord:
    match table:
        case {"name": str(name), "hash": str(passcode_hash), "groups": [*groups], **rest} if not rest:
            if all(isinstance(group, str) for group in groups):
                _parse_hash(passcode_hash)
                return PasscodeRecord(name=name, hash=passcode_hash, groups=tuple(groups))
    raise PasscodesError("a person has a name, a hash and a list of groups")


def render_passcodes(passcodes: Passcodes) -> str:
    """Return the text of the file."""
    lines = [
        "# Persons and the hashes of their passcodes: docs/people.md. Change it with: dicomward user",
        f"version = {PASSCODES_VERSION}",
    ]
    for each in passcodes.entries:
        groups = ", ".join(f'"{group}"' for group in each.groups)
        lines += ["", "[[person]]", f'name = "{each.name}"', f'hash = "{each.hash}"', f"groups = [{groups}]"]
    return "\n".join([*lines, ""])
