"""Audit records as canonical JSON: what is written for an event, and the strict way back.

Canonical here: members sorted by name, no blanks, ASCII only (everything else escaped as JSON does), integers only. One
record has exactly one encoding, so that the SHA-256 of the chain is over bytes that anybody can make again.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Final, TypeAlias

from dicomward.audit.event import EVENT_CLASS_BY_CODE, AuditEvent, field_names
from dicomward.audit.fields import Classification, FieldRule, Kind, field_rule
from dicomward.vocab.reason import ReasonCode

# What a JSON member of a record can be.
MemberValue: TypeAlias = str | int | list[str] | list[list[str | int]]

MAX_ITEMS: Final = 32  # of a list in a record; what is cut is shown by the mark
CUT_MARK: Final = "..."
MASK: Final = "(masked)"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


class RecordError(ValueError):
    """The bytes aren't a record, or the members aren't an event; the message says why."""


def encode_canonical(members: Mapping[str, MemberValue]) -> bytes:
    """Return the one canonical JSON encoding of the members."""
    return _ENCODER.encode(members).encode("ascii")


def decode_canonical(data: bytes) -> dict[str, MemberValue]:
    """Read a flat JSON object whose encoding is the canonical one. Raises RecordError."""
    try:
        value = _DECODER.decode(data.decode("ascii"))
        if not isinstance(value, dict) or not all(_is_member_value(each) for each in value.values()):
            raise RecordError("a record is one JSON object of texts, whole numbers and lists of them")
        members: dict[str, MemberValue] = value
        if encode_canonical(members) != data:
            raise RecordError("the JSON isn't in its canonical form")
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {error}") from error
    return members


def _is_member_value(value: object) -> bool:
    """Say if a decoded JSON value is one that records hold."""
    if not isinstance(value, list):
        return _is_scalar(value)
    return all(isinstance(each, str) or (isinstance(each, list) and all(map(_is_scalar, each))) for each in value)


def _is_scalar(value: object) -> bool:
    """Say if it is a text or a whole number; JSON's true is neither, though Python's True is an int."""
    return isinstance(value, str) or _is_whole(value)


def _refuse(text: str) -> MemberValue:
    """Refuse numbers that aren't whole."""
    raise RecordError(f"{text} isn't a whole number")


_DECODER: Final = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse)


def format_time(time_ns: int) -> str:
    """Write a time (nanoseconds since 1970, UTC) as ISO 8601 with microseconds and Z."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{_format_second(seconds)}.{rest // 1000:06d}Z"


@lru_cache(maxsize=16)
def _format_second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds")[:19]


def escape_text(text: str, max_characters: int) -> str:
    """Return the text on one line: controls, separators and what turns the direction of writing as visible escapes.

    A text longer than the maximum is cut and ends in three dots.
    """
    if not text.isprintable():
        cut = text[: max_characters + 1]
        text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in cut)
    if len(text) > max_characters:
        return text[: max_characters - len(CUT_MARK)] + CUT_MARK
    return text


def event_members(event: AuditEvent) -> dict[str, MemberValue]:
    """Return what a record holds of an event: its code, and every field that isn't None, escaped and bounded.

    A secret field shows only that it had a value. Raises RecordError where a field isn't of its kind.
    """
    members: dict[str, MemberValue] = {"code": event.code}
    for name, encode in _plan(type(event)):
        value = getattr(event, name)
        if value is not None:
            try:
                members[name] = encode(value)
            except (TypeError, AttributeError, ValueError) as error:
                raise RecordError(f"{name} of {event.code} has a value of the wrong kind") from error
    return members


_Plan: TypeAlias = tuple[tuple[str, Callable[[object], MemberValue]], ...]
_PLANS: Final[dict[type[AuditEvent], _Plan]] = {}


def _plan(event_class: type[AuditEvent]) -> _Plan:
    """Return the name and the encoder of each field; made once for each class."""
    plan = _PLANS.get(event_class)
    if plan is None:
        plan = tuple((name, _encoder(field_rule(name))) for name in field_names(event_class))
        _PLANS[event_class] = plan
    return plan


def _encoder(rule: FieldRule) -> Callable[[object], MemberValue]:
    """Return the function that makes the JSON value of a field."""
    if rule.classification is Classification.SECRET:
        return _mask
    if rule.kind is Kind.NUMBER:
        return _number
    by_kind: dict[Kind, Callable[[int, object], MemberValue]] = {
        Kind.TEXT: _text,
        Kind.TEXTS: _texts,
        Kind.COUNTS: _counts,
    }
    return partial(by_kind[rule.kind], rule.max_characters)


def _mask(_value: object) -> str:
    return MASK


def _text(limit: int, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    # The quick way out: nearly every text is short and printable.
    return value if len(value) <= limit and value.isprintable() else escape_text(value, limit)


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(value)
    return int(value)


def _texts(limit: int, value: object) -> list[str]:
    items = [_text(limit, each) for each in _items(value)]
    return items if len(items) <= MAX_ITEMS else [*items[: MAX_ITEMS - 1], CUT_MARK]


def _counts(limit: int, value: object) -> list[list[str | int]]:
    pairs = [_items(each) for each in _items(value)]
    return [[_text(limit, name), _number(count)] for name, count in pairs[:MAX_ITEMS]]


def _items(value: object) -> tuple[object, ...]:
    """Return the items of a tuple; nothing else is one, so that a text can't pass as the list of its letters."""
    if not isinstance(value, tuple):
        raise TypeError(value)
    return value


def decode_event(members: Mapping[str, MemberValue]) -> AuditEvent:
    """Make the event again from its members (`code` and the fields). Raises RecordError.

    What was escaped, cut or masked stays so.
    """
    code = members.get("code")
    event_class = EVENT_CLASS_BY_CODE.get(code) if isinstance(code, str) else None
    if event_class is None:
        raise RecordError(f"unknown event code {code!r}")
    known = field_names(event_class)
    values: dict[str, object] = {}
    for name, value in members.items():
        if name == "code":
            continue
        if name not in known:
            raise RecordError(f"{code} has no field {name!r}")
        values[name] = _decode_value(name, value)
    try:
        return event_class(**values)  # type: ignore[arg-type]  # each value was checked against the rule of its field
    except TypeError as error:
        raise RecordError(f"{code} lacks a field: {error}") from error


def _decode_value(name: str, value: MemberValue) -> object:
    """Check a value against the rule of its field, and give it its Python type."""
    kind = field_rule(name).kind
    if name == "reason" and isinstance(value, str):
        try:
            return ReasonCode(value)
        except ValueError as error:
            raise RecordError(f"unknown reason code {value!r}") from error
    if kind is Kind.TEXT and isinstance(value, str):
        return value
    if kind is Kind.NUMBER and _is_whole(value):
        return value
    if isinstance(value, list):
        if kind is Kind.TEXTS and all(isinstance(each, str) for each in value):
            return tuple(value)
        if kind is Kind.COUNTS and all(_is_count(each) for each in value):
            return tuple((each[0], each[1]) for each in value)
    raise RecordError(f"{name} must be a {kind}")


def _is_whole(value: object) -> bool:
    """Say if it is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    """Say if a JSON value is a pair of a text and a number."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _is_whole(value[1])
