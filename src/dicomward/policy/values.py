"""Read single values of policy files and of their tests: one function for each kind of value.

Each takes what TOML gave, returns the value that rules and requests hold, or raises BadValueError with what to do.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from dicomward.policy.decision import Effect
from dicomward.policy.keys import KEY_TAGS, QueryKeyError, UnknownQueryKeyError, parse_query_key
from dicomward.policy.strip import STRIP_TAGS, StripError, UnknownAttributeError, parse_strip_attribute
from dicomward.vocab.ae_title import AeTitleError, parse_ae_title
from dicomward.vocab.principal import Assurance
from dicomward.vocab.services import SERVICE_OF_SOP_CLASS, SOP_CLASS_BY_KEYWORD
from dicomward.vocab.uid import UidError, has_leading_zero, parse_uid, uid_keyword

SELF: Final = "self"
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ASSURANCES: Final = {assurance.label: assurance for assurance in Assurance}
_OPEN_WORDS: Final = frozenset({"*", "any", "all"})
_CLOCK: Final = re.compile(r"([0-9]{2}):([0-9]{2})\Z")

_T = TypeVar("_T")


class BadValueError(Exception):
    """One value is wrong: what is, and what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def lines_of(pattern: re.Pattern[str], text: str) -> list[int]:
    """Return the numbers of the lines where the pattern is found, in one pass over the text."""
    lines: list[int] = []
    line, at = 1, 0
    for found in pattern.finditer(text):
        line += text.count("\n", at, found.start())
        at = found.start()
        lines.append(line)
    return lines


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a hint: the nearest known word, or all of them where they are few."""
    from difflib import get_close_matches

    known = {name.lower(): name for name in words}
    close = get_close_matches(word.lower(), known, n=1)
    if close:
        return f'did you mean "{known[close[0]]}"?'
    return f"known: {', '.join(known.values())}" if len(known) <= 24 else "see docs/policy.md"


def read_text(value: object) -> str:
    """Return a text. Raises BadValueError."""
    if not isinstance(value, str):
        raise BadValueError(f"{value!r} is not text", "write it in quotes")
    return value


def read_name(value: object) -> str:
    """Return the name of a device, role, site or archive. Raises BadValueError."""
    name = read_text(value)
    if name.lower() in _OPEN_WORDS or "*" in name:
        raise BadValueError(
            f'"{name}" is not a name, and names have no wildcards', "leave the field out to leave it open"
        )
    if not name or name != name.strip() or not name.isprintable():
        raise BadValueError(f"{name!r} is not a name", "a name has no spaces around it and no control characters")
    return name


def read_rule_id(value: object) -> str:
    """Return the id of a rule. Raises BadValueError."""
    rule_id = read_text(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", rule_id):
        raise BadValueError(
            f"{rule_id!r} is not an id", "an id has 1 to 64 letters, digits, dots, hyphens and underscores"
        )
    return rule_id


def read_effect(value: object) -> Effect:
    """Return allow or deny. Raises BadValueError."""
    return one_of("effect", {effect.value: effect for effect in Effect})(value)


def read_assurance(value: object) -> Assurance:
    """Return a level of assurance by its label. Raises BadValueError."""
    return one_of("assurance", ASSURANCES)(value)


def one_of(what: str, known: Mapping[str, _T]) -> Callable[[object], _T]:
    """Return a reader of words that stand for values; it raises BadValueError for every other word."""

    def parse(value: object) -> _T:
        word = read_text(value)
        if word in _OPEN_WORDS:
            raise BadValueError(f'"{word}" is not a known {what}', "leave the field out to leave it open")
        if word not in known:
            raise BadValueError(f'"{word}" is not a known {what}', nearest(word, known))
        return known[word]

    return parse


def read_sop_class(value: object) -> str:
    """Return the UID of a SOP class by UID or keyword of PS3.6. Raises BadValueError."""
    text = read_text(value)
    if not text[:1].isdigit():
        if text not in SOP_CLASS_BY_KEYWORD:
            raise BadValueError(f'PS3.6 has no SOP class with the keyword "{text}"', _nearest_keyword(text))
        return SOP_CLASS_BY_KEYWORD[text]
    try:
        uid = parse_uid(text)
    except UidError as error:
        raise BadValueError(f'"{text}": {error}', "write a SOP class UID or its keyword of PS3.6") from error
    if has_leading_zero(uid):
        raise BadValueError(f'"{uid}" has a component with a leading zero', "PS3.5 §9.1 forbids it; take the zero out")
    if uid not in SERVICE_OF_SOP_CLASS and uid_keyword(uid) != uid:
        raise BadValueError(f'"{uid}" is {uid_keyword(uid)}, a transfer syntax', "write a SOP class")
    return uid


def _nearest_keyword(text: str) -> str:
    from difflib import get_close_matches

    # Keywords are long and alike, so the part that people leave out must not hide the right one.
    close = get_close_matches(text, SOP_CLASS_BY_KEYWORD, n=1, cutoff=0.5)
    return f'did you mean "{close[0]}"?' if close else "see docs/policy.md"


def read_key(value: object) -> int:
    """Return the tag of a query key. Raises BadValueError."""
    text = read_text(value)
    try:
        return parse_query_key(text)
    except UnknownQueryKeyError as error:
        raise BadValueError(str(error), f"{nearest(text, KEY_TAGS)} A tag will do as well") from error
    except QueryKeyError as error:
        raise BadValueError(str(error), "name another key") from error


def read_strip(value: object) -> int:
    """Return the tag of an attribute that a rule strips. Raises BadValueError."""
    text = read_text(value)
    try:
        return parse_strip_attribute(text)
    except UnknownAttributeError as error:
        raise BadValueError(str(error), f"{nearest(text, STRIP_TAGS)} A tag will do as well") from error
    except StripError as error:
        raise BadValueError(str(error), "name another attribute") from error


def read_destination(value: object) -> str:
    """Return an AE title, or the word "self" as it is. Raises BadValueError."""
    text = read_text(value)
    if text in _OPEN_WORDS or "*" in text:
        raise BadValueError(f'"{text}" is not an AE title that a rule can name', "leave the field out to leave it open")
    try:
        return parse_ae_title(text)
    except AeTitleError as error:
        raise BadValueError(f'"{text}": {error}', f'write AE titles, or "{SELF}"') from error


def read_minute(value: object) -> int:
    """Return the minute of the day of `HH:MM`. Raises BadValueError."""
    text = read_text(value)
    match = _CLOCK.match(text)
    if not match or not (int(match[1]) < 24 or text == "24:00") or int(match[2]) > 59:
        raise BadValueError(f'"{text}" is not a time of day', "write HH:MM, from 00:00 to 24:00")
    return int(match[1]) * 60 + int(match[2])
