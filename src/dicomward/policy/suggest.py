"""The least rules that a device needs, from what it has done; and the times at which nothing was seen of it.

Rules of this file: what was not seen is not suggested, but for what belongs to an exchange that has begun (the end of a
performed procedure step, the report on a storage commitment). No rule combines two things that were not seen together.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from dicomward.policy.keys import NAMING_KEYS, key_name
from dicomward.policy.levels import IDENTIFIER_OPERATIONS, RULE_LEVELS, level_of
from dicomward.vocab.dimse import Operation
from dicomward.vocab.services import Service, service_of
from dicomward.vocab.uid import has_leading_zero, uid_keyword

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_COMPLETED: Final = {
    (Service.MPPS, Operation.N_CREATE): (Operation.N_SET,),
    (Service.MPPS, Operation.N_SET): (Operation.N_CREATE,),
    (Service.STORAGE_COMMITMENT, Operation.N_ACTION): (Operation.N_EVENT_REPORT,),
}
_KEYED: Final = frozenset({Service.QUERY, Service.MOVE, Service.GET})
_MOST_NAME_CHARACTERS: Final = 40
_SELF: Final = "self"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One operation that a device has done: `archive` is the registered name of its target, `at` its local time.

    `keys` are the filled keys of its identifier; None where it has none on record.
    """

    operation: Operation
    sop_class_uid: str
    archive: str
    at: datetime
    query_level: str | None = None
    move_destination: str | None = None
    keys: frozenset[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestedRule:
    """One rule, as its fields in TOML; an empty field is left out."""

    id: str
    operations: tuple[str, ...]
    sop_classes: tuple[str, ...]
    archives: tuple[str, ...]
    query_levels: tuple[str, ...] = ()
    move_destinations: tuple[str, ...] = ()
    required_keys: tuple[str, ...] = ()
    required_any_key: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """The rules, and what the observation didn't cover: days of the week and hours of the day without any operation.

    `strange` names what no rule can be written for.
    """

    device: str
    rules: tuple[SuggestedRule, ...]
    operations: int
    days: int
    first: datetime | None = None
    last: datetime | None = None
    missing_weekdays: tuple[str, ...] = ()
    missing_hours: tuple[int, ...] = ()
    strange: tuple[str, ...] = ()


class _Box(NamedTuple):
    """Combinations of an operation, SOP class, archive, level and destination ("" = open): all of them were seen.

    `all_keys` were in every identifier of each of them, else `any_keys` have one in every identifier. They aren't
    merged: what was always asked with a patient's ID must not be opened by what was asked with a study's UID.
    """

    operations: frozenset[Operation]
    sop_classes: frozenset[str]
    archives: frozenset[str]
    levels: frozenset[str]
    destinations: frozenset[str]
    all_keys: frozenset[int] = frozenset()
    any_keys: frozenset[int] = frozenset()

    def without(self, dimension: int) -> tuple[object, ...]:
        """Return what two boxes must share to be merged in a dimension; what is open is merged with nothing."""
        return (*self[:dimension], *self[dimension + 1 :], "" in self[dimension])


def suggest(device: str, seen: Iterable[Seen], own_ae_titles: Collection[str] = ()) -> Suggestion:
    """Return the least rules that allow what was seen of a device."""
    asked: dict[_Box, list[frozenset[int] | None]] = defaultdict(list)
    strange: set[str] = set()
    moments: list[datetime] = []
    hours: set[tuple[date, int]] = set()
    operations = 0
    for each in seen:
        operations += 1
        moments = [min([*moments, each.at]), max([*moments, each.at])]
        hours.add((each.at.date(), each.at.hour))
        if has_leading_zero(each.sop_class_uid):
            strange.add(f"{each.operation.label} of {each.sop_class_uid}: a rule can't name a UID with a leading zero")
            continue
        for box in _boxes_of(each, own_ae_titles):
            asked[box].append(each.keys)
    weekdays = {day.weekday() for day, _hour in hours}
    hours_of_day = {hour for _day, hour in hours}
    return Suggestion(
        device=device,
        rules=_rules(device, {_with_keys(box, keys): len(keys) for box, keys in asked.items()}),
        operations=operations,
        days=len({day for day, _hour in hours}),
        first=moments[0] if moments else None,
        last=moments[1] if moments else None,
        missing_weekdays=tuple(day for number, day in enumerate(_DAYS) if number not in weekdays),
        missing_hours=tuple(hour for hour in range(24) if hour not in hours_of_day),
        strange=tuple(sorted(strange)),
    )


def _boxes_of(seen: Seen, own_ae_titles: Collection[str]) -> list[_Box]:
    level = destination = ""
    if seen.operation in IDENTIFIER_OPERATIONS:
        level = level_of(seen.sop_class_uid, seen.query_level)
        # A rule names no level that is missing or odd: then it has to leave the level open.
        level = level if level in RULE_LEVELS else ""
    if seen.operation is Operation.C_MOVE and seen.move_destination:
        destination = _SELF if seen.move_destination in own_ae_titles else seen.move_destination
    operations = (seen.operation, *_COMPLETED.get((service_of(seen.sop_class_uid), seen.operation), ()))
    return [
        _Box(*(frozenset({each}) for each in (operation, seen.sop_class_uid, seen.archive, level, destination)))  # type: ignore[arg-type]
        for operation in operations
    ]


def _with_keys(box: _Box, asked: Sequence[frozenset[int] | None]) -> _Box:
    """Return the box with the keys that were needed, of those that name one patient, order or study.

    An identifier that isn't on record, or has none of them, leaves the keys open; so does a worklist, which has no key
    that a rule should insist on.
    """
    if not all(service_of(uid) in _KEYED for uid in box.sop_classes):
        return box
    naming = [NAMING_KEYS & (keys or frozenset()) for keys in asked]
    if not all(naming):
        return box
    common = frozenset.intersection(*naming)
    return box._replace(all_keys=common, any_keys=frozenset() if common else frozenset[int]().union(*naming))


def _united(boxes: Sequence[_Box], dimension: int) -> _Box:
    """Return the box that holds all of these, which differ in one dimension only."""
    values: list[Any] = list(boxes[0])
    values[dimension] = frozenset(value for box in boxes for value in box[dimension])
    return _Box(*values)


def _rules(device: str, counts: Mapping[_Box, int]) -> tuple[SuggestedRule, ...]:
    """Merge boxes that differ in one dimension only, one dimension after the other."""
    merged = dict(counts)
    for dimension in range(_Box._fields.index("all_keys")):
        alike: dict[tuple[object, ...], list[_Box]] = defaultdict(list)
        for box in merged:
            alike[box.without(dimension)].append(box)
        merged = {_united(boxes, dimension): sum(merged[box] for box in boxes) for boxes in alike.values()}
    rules: list[SuggestedRule] = []
    for box, count in sorted(merged.items(), key=lambda item: [sorted(values) for values in item[0]]):
        labels = tuple(operation.label for operation in sorted(box.operations))
        rules.append(
            SuggestedRule(
                id=f"{_plain(device)}-{labels[0]}-{len(rules) + 1}",
                operations=labels,
                sop_classes=tuple(sorted(map(uid_keyword, box.sop_classes))),
                archives=tuple(sorted(box.archives)),
                query_levels=tuple(level for level in RULE_LEVELS if level in box.levels),
                move_destinations=tuple(sorted(box.destinations - {""})),
                required_keys=tuple(sorted(map(key_name, box.all_keys))),
                required_any_key=tuple(sorted(map(key_name, box.any_keys))),
                count=count,
            )
        )
    return tuple(rules)


def _plain(device: str) -> str:
    return device[:_MOST_NAME_CHARACTERS].rstrip("._-")


# --- to text ---------------------------------------------------------------------------------------------------------


def suggestion_text(suggestion: Suggestion) -> str:
    """Return the rules as a policy in TOML, with what was not observed as comments."""
    lines = [
        f"# What {suggestion.device} has done, as the least rules that allow it. Nothing is activated by this file:",
        "# review it, put the rules into your policy, then dicomward policy check, and dicomward device enforce.",
        f"# Seen: {suggestion.operations} operations on {suggestion.days} days"
        + (
            f", from {suggestion.first:%Y-%m-%d %H:%M} to {suggestion.last:%Y-%m-%d %H:%M}."
            if suggestion.first
            else "."
        ),
        *(f"# {line}" for line in missing_times(suggestion)),
        *(f"# Left out: {each}." for each in suggestion.strange),
        "",
        "version = 1",
    ]
    for rule in suggestion.rules:
        lines += ["", f"# {rule.count} operations", "[[rule]]", f"id = {_text(rule.id)}", 'effect = "allow"']
        lines.append(f"device = [{_text(suggestion.device)}]")
        for field, values in (
            ("archive", rule.archives),
            ("operation", rule.operations),
            ("sop_class", rule.sop_classes),
            ("query_level", rule.query_levels),
            ("move_destination", rule.move_destinations),
            ("required_keys", rule.required_keys),
            ("required_any_key", rule.required_any_key),
        ):
            if values:
                lines.append(f"{field} = [{', '.join(map(_text, values))}]")
    return "\n".join(lines) + "\n"


def missing_times(suggestion: Suggestion) -> list[str]:
    """Say in words at which times nothing was seen."""
    if not suggestion.operations:
        return ["Nothing was seen of it at any time."]
    days, hours = suggestion.missing_weekdays, suggestion.missing_hours
    return [
        f"Days of the week without any operation: {', '.join(days)}."
        if days
        else "Every day of the week was observed.",
        f"Hours of the day without any operation: {_spans(hours)}." if hours else "Every hour of the day was observed.",
    ]


def _spans(hours: tuple[int, ...]) -> str:
    """Write hours as spans: `00:00-06:59, 22:00-23:59`."""
    spans: list[list[int]] = []
    for hour in hours:
        if spans and spans[-1][1] == hour - 1:
            spans[-1][1] = hour
        else:
            spans.append([hour, hour])
    return ", ".join(f"{first:02}:00-{last:02}:59" for first, last in spans)


def _text(text: str) -> str:
    """Return a TOML text; names, AE titles and labels hold nothing but printable ASCII."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
