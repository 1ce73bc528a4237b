"""Classes of requests in words, and requests in the words of policy tests."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from dicomward.policy.diff import Change
from dicomward.policy.facets import Destination, Facet, Span, What
from dicomward.policy.key_region import KeyRegion
from dicomward.policy.keys import key_name
from dicomward.policy.levels import NO_LEVEL, UNCLEAR, possible_levels
from dicomward.policy.request import IdentifierRequest, OperationRequest
from dicomward.policy.rule import MINUTES_OF_DAY
from dicomward.policy.values import DAYS
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance
from dicomward.vocab.services import SERVICE_OF_SOP_CLASS, Service, operations_of, service_of
from dicomward.vocab.uid import uid_keyword

# Longer lists of SOP classes are named by their service and their number.
_MOST_SOP_CLASSES: Final = 6
_LEVEL_WORDS: Final = {NO_LEVEL: "none", UNCLEAR: "missing or unknown"}


def describe_change(change: Change) -> dict[str, str]:
    """Return what a class of requests has in common, by facet; what is open is left out, but for what is asked."""
    words: dict[str, str] = {}
    for facet, atoms in zip(change.space.facets, change.box.atoms, strict=True):
        chosen = facet.chosen(atoms)
        if facet.name == "what":
            words["operation"] = "; ".join(_describe_what(chosen))
        elif atoms != facet.everything:
            words[facet.name] = _describe_facet(facet, chosen)
    if change.box.keys != (KeyRegion(),):
        words["keys"] = " or ".join(_describe_keys(region, change.space.keys) for region in change.box.keys)
    return words


def _describe_facet(facet: Facet[Any], chosen: tuple[Any, ...]) -> str:
    match facet.name:
        case "time":
            return _describe_times(chosen)
        case "assurance":
            return ", ".join(Assurance(level).label for level in sorted(chosen))
        case "move_destination":
            return _describe_destinations(facet, chosen)
        case "group":
            return " or ".join(" and ".join(sorted(groups)) or "none" for groups in chosen)
        case _:
            return _describe_names(facet.atoms, chosen, facet.other)


def _describe_names(known: Iterable[str], chosen: Iterable[str], other: str | None) -> str:
    present = set(chosen)
    if other not in present:
        return ", ".join(sorted(name or "none" for name in present))
    missing = sorted(name or "none" for name in set(known) - present)
    return f"any but {', '.join(missing)}" if missing else "any"


def _describe_destinations(facet: Facet[Destination], chosen: Iterable[Destination]) -> str:
    other = facet.atoms[-1].title
    titles = [title for title, is_self in facet.atoms if is_self]
    parts = []
    for word, is_self in (("the device itself", True), ("another device", False)):
        present = [title for title, own in chosen if own is is_self]
        if present:
            names = _describe_names(titles, present, other)
            parts.append(word if names == "any" else f"{word} as {names}")
    return " or ".join(parts)


def _describe_times(spans: Iterable[Span]) -> str:
    by_day: dict[int, list[tuple[int, int]]] = {}
    for start, end in spans:
        for day in range(start // MINUTES_OF_DAY, (end - 1) // MINUTES_OF_DAY + 1):
            midnight = day * MINUTES_OF_DAY
            piece = (max(start - midnight, 0), min(end - midnight, MINUTES_OF_DAY))
            pieces = by_day.setdefault(day, [])
            if pieces and pieces[-1][1] == piece[0]:
                piece = (pieces.pop()[0], piece[1])
            pieces.append(piece)
    alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for day, pieces in by_day.items():
        alike.setdefault(tuple(pieces), []).append(day)
    return "; ".join(f"{_days(days)} {_hours(pieces)}" for pieces, days in alike.items())


def _days(days: list[int]) -> str:
    return "every day" if len(days) == len(DAYS) else ", ".join(DAYS[day] for day in days)


def _hours(pieces: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(f"{clock(start)} to {clock(end)}" for start, end in pieces)


def clock(minute: int) -> str:
    """Return a minute of the day as `HH:MM`."""
    return f"{minute // 60:02}:{minute % 60:02}"


def _describe_keys(region: KeyRegion, tags: tuple[int, ...]) -> str:
    def names(keys: int) -> list[str]:
        return [key_name(tag) for place, tag in enumerate(tags) if keys >> place & 1]

    sure = [name for clause in region.clauses if clause.bit_count() == 1 for name in names(clause)]
    parts = [f"with {' and '.join(sure)}"] if sure else []
    parts += [f"with one of {', '.join(names(clause))}" for clause in region.clauses if clause.bit_count() > 1]
    if region.lacks:
        parts.append(f"without {' or '.join(names(region.lacks))}")
    return " and ".join(parts)


def _describe_what(atoms: tuple[What, ...]) -> Iterator[str]:
    """Yield phrases such as `c-find of service query at level STUDY, SERIES`; operations with equal ones together."""
    levels: dict[tuple[Operation, str, str], list[str | None]] = {}
    for operation, uid, context, level in atoms:
        levels.setdefault((operation, uid, context), []).append(level)
    asked: dict[Operation, dict[tuple[str, ...], list[tuple[str, str]]]] = {}
    for (operation, uid, context), found in levels.items():
        complete = found == [None] or set(found) == set(possible_levels(uid))
        words = () if complete else tuple(_LEVEL_WORDS.get(level or "", level or "") for level in found)
        asked.setdefault(operation, {}).setdefault(words, []).append((uid, context))
    phrases: dict[str, list[str]] = {}
    for operation, by_levels in asked.items():
        for words, pairs in by_levels.items():
            about = _describe_sop_classes(operation, pairs) + (f" at level {', '.join(words)}" if words else "")
            phrases.setdefault(about, []).append(operation.label)
    for about, operations in phrases.items():
        yield f"{', '.join(operations)} of {about}"


def _describe_sop_classes(operation: Operation, pairs: list[tuple[str, str]]) -> str:
    direct = {uid for uid, context in pairs if not context}
    parts = []
    for service in dict.fromkeys(service_of(uid) for uid in sorted(direct)):
        uids = sorted(uid for uid in direct if service_of(uid) is service)
        if _is_whole(service, operation, uids):
            parts.append(f"service {service}")
        elif len(uids) <= _MOST_SOP_CLASSES:
            parts += [_sop_class(uid) for uid in uids]
        else:
            parts.append(f"{len(uids)} SOP classes of service {service}, such as {_sop_class(uids[0])}")
    # A context of the same family adds nothing where the SOP class itself is there.
    parts += [f"{_sop_class(uid)} in a context of {_sop_class(context)}" for uid, context in pairs
              if context and uid not in direct]  # fmt: skip
    return ", ".join(parts)


def _is_whole(service: Service, operation: Operation, uids: list[str]) -> bool:
    known = {uid for uid, of in SERVICE_OF_SOP_CLASS.items() if of is service and operation in operations_of(uid)}
    if service is Service.OTHER:
        return known < set(uids)
    return len(known) > 1 and known <= set(uids)


def _sop_class(uid: str) -> str:
    return "any private SOP class" if uid.startswith("2.25.") and uid not in SERVICE_OF_SOP_CLASS else uid_keyword(uid)


def request_fields(request: OperationRequest) -> dict[str, str | list[str]]:
    """Return a request as the fields of a policy test (case_file.py): whoever pastes them there asks the same."""
    principal = request.principal
    fields: dict[str, str | list[str]] = {
        "device": principal.device,
        "role": principal.role,
        "site": principal.site,
        "assurance": principal.assurance.label,
        "calling_ae_title": principal.calling_ae_title,
        "archive": request.archive,
        "operation": request.operation.label,
        "sop_class": uid_keyword(request.sop_class_uid),
        "context_sop_class": uid_keyword(request.context_sop_class_uid) if request.context_sop_class_uid else "",
        "move_destination": request.move_destination or "",
        "time": f"{DAYS[request.at.weekday()]} {request.at:%H:%M}",
    }
    if principal.person:
        fields["person"] = principal.person
    if principal.groups:
        fields["group"] = sorted(principal.groups)
    if request.own_ae_titles:
        fields["own_ae_titles"] = sorted(request.own_ae_titles)
    if isinstance(request, IdentifierRequest):
        fields["query_level"] = request.query_level or ""
        fields["keys"] = sorted(key_name(tag) for tag in request.keys)
    return {name: value for name, value in fields.items() if value or name == "keys"}
