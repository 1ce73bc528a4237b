"""LDIF, as directories of DICOM devices export it (RFC 2849): entries in, entries out. Folding, base64, comments."""

import re
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_LINE_CHARACTERS: Final = 76
_SAFE: Final = re.compile(r"(?![ :<])[\x01-\x09\x0b\x0c\x0e-\x7f]*(?<! )\Z")
_ESCAPED_IN_DN: Final = re.compile(r"([,+\"\\<>;=])")


class LdifError(ValueError):
    """It is no LDIF that can be read; the message says in which line, and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: names of attributes are in lower case without options, values as they came."""

    dn: tuple[str, ...]
    attributes: Mapping[str, tuple[bytes, ...]]
    line: int

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the values of an attribute as text; what is not UTF-8 is shown with its replacement."""
        return tuple(value.decode("utf-8", "replace") for value in self.attributes.get(name.lower(), ()))

    def text(self, name: str) -> str:
        """Return the first value of an attribute, or ""."""
        return next(iter(self.texts(name)), "")

    def is_a(self, object_class: str) -> bool:
        """Say if it has an object class."""
        return object_class.lower() in {each.lower() for each in self.texts("objectClass")}


@dataclass(frozen=True, slots=True)
class Ldif:
    """The entries of a file, and what in it is no entry."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]


def parse_ldif(text: str, name: str) -> Ldif:
    """Read the entries of a file; changes other than additions become notes. Raises LdifError."""
    entries: list[Entry] = []
    notes: list[str] = []
    for block in _blocks(text):
        number = block[0][0]
        attributes: dict[str, list[bytes]] = {}
        for line, content in block:
            key, value = _attribute(content, f"{name}, line {line}", notes)
            attributes.setdefault(key, []).append(value)
        attributes.pop("version", None)
        if not attributes:
            continue
        dn = attributes.pop("dn", [])
        if len(dn) != 1:
            raise LdifError(f"{name}, line {number}: an entry begins with its dn")
        shown = dn[0].decode("utf-8", "replace")
        change = attributes.pop("changetype", [b"add"])[0].strip().lower()
        if change != b"add":
            notes.append(f"{name}, line {number}: {change.decode('ascii', 'replace')} of {shown} is left out")
            continue
        values = {key: tuple(found) for key, found in attributes.items()}
        entries.append(Entry(normalise_dn(shown), values, number))
    return Ldif(tuple(entries), tuple(notes))


def _blocks(text: str) -> Iterable[list[tuple[int, str]]]:
    """Yield the lines of each entry, unfolded and without comments, with their numbers."""
    block: list[tuple[int, str]] = []
    is_comment = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(" "):
            if not is_comment and block:
                start, content = block[-1]
                block[-1] = (start, content + line[1:])
            continue
        is_comment = line.startswith("#")
        if is_comment:
            continue
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _attribute(content: str, where: str, notes: list[str]) -> tuple[str, bytes]:
    name, colon, value = content.partition(":")
    if not colon or not name.strip():
        raise LdifError(f"{where}: {content[:40]!r} is no attribute; write NAME: VALUE")
    key = name.strip().partition(";")[0].lower()
    if value.startswith(":"):
        try:
            return key, b64decode("".join(value[1:].split()), validate=True)
        except (Error, ValueError) as error:
            raise LdifError(f"{where}: the value of {name} is not base64") from error
    if value.startswith("<"):
        notes.append(f"{where}: {name} refers to {value[1:].strip()}, which is not read")
        return key, b""
    return key, value.strip(" ").encode()


def normalise_dn(dn: str) -> tuple[str, ...]:
    """Return the parts of a DN, innermost first, so that equal ones compare equal."""
    parts: list[str] = []
    current = ""
    at = 0
    while at < len(dn):
        if dn[at] == "\\":
            current += dn[at : at + 2]
            at += 2
        elif dn[at] in ",;":
            parts.append(current)
            current = ""
            at += 1
        else:
            current += dn[at]
            at += 1
    parts.append(current)
    return tuple("=".join(side.strip() for side in part.strip().split("=", 1)).lower() for part in parts)


def escape_dn_value(text: str) -> str:
    """Return a value as it stands in a DN (RFC 4514)."""
    escaped = _ESCAPED_IN_DN.sub(r"\\\1", text)
    return f"\\{escaped}" if escaped.startswith(("#", " ")) else escaped


def render_entry(dn: str, attributes: Iterable[tuple[str, str]]) -> str:
    """Return an entry as LDIF, folded, with an empty line behind it."""
    lines = [_line("dn", dn), *(_line(key, value) for key, value in attributes)]
    return "\n".join(lines) + "\n\n"


def _line(key: str, value: str) -> str:
    line = f"{key}: {value}" if _SAFE.match(value) else f"{key}:: {b64encode(value.encode()).decode('ascii')}"
    pieces = [line[:_LINE_CHARACTERS]]
    at = _LINE_CHARACTERS
    while at < len(line):
        pieces.append(" " + line[at : at + _LINE_CHARACTERS - 1])
        at += _LINE_CHARACTERS - 1
    return "\n".join(pieces)
