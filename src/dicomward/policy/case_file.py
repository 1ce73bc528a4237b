"""Read policy tests from TOML: requests with the decision that they should get. Tables keep them short.

A field with a list of values stands for one case for each, all combinations of them; `cases` are rows that override the
fields of their test, and `[defaults]` is under every test. What can't be read, or tests nothing, is an error.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, Final

from dicomward.policy.decision import Effect
from dicomward.policy.keys import QueryKeyError, is_filled, parse_query_key
from dicomward.policy.levels import IDENTIFIER_OPERATIONS
from dicomward.policy.model import Problem
from dicomward.policy.request import IdentifierRequest, OperationRequest
from dicomward.policy.values import (
    DAYS,
    SELF,
    BadValueError,
    lines_of,
    nearest,
    one_of,
    read_assurance,
    read_effect,
    read_key,
    read_minute,
    read_name,
    read_rule_id,
    read_sop_class,
    read_strip,
    read_text,
)
from dicomward.vocab.ae_title import AeTitleError, parse_ae_title
from dicomward.vocab.dimse import OPERATION_BY_LABEL, Operation
from dicomward.vocab.principal import Assurance, Principal
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import USUAL_SOP_CLASS, Service

# What `evaluate` can answer.
REASONS: Final = (
    ReasonCode.ALLOWED,
    ReasonCode.DENIED_BY_RULE,
    ReasonCode.NO_MATCHING_RULE,
    ReasonCode.MOVE_DESTINATION_NOT_ALLOWED,
    ReasonCode.QUERY_LEVEL_NOT_ALLOWED,
    ReasonCode.REQUIRED_KEYS_MISSING,
    ReasonCode.OUTSIDE_PERMITTED_TIMES,
    ReasonCode.ASSURANCE_TOO_LOW,
    ReasonCode.OPERATION_NOT_OF_SOP_CLASS,
    ReasonCode.SOP_CLASS_MISMATCH,
    ReasonCode.CLINICAL_FLOOR_ONLY,
    ReasonCode.NOT_CONFIRMED,
)
# Operations that need no SOP class, because people mean this service; who means the worklist says so.
_USUAL_SERVICE: Final = {
    Operation.C_FIND: Service.QUERY,
    Operation.C_ECHO: Service.VERIFICATION,
    Operation.C_STORE: Service.STORAGE,
    Operation.C_GET: Service.GET,
    Operation.C_MOVE: Service.MOVE,
}
# Another word of `policy explain` for the same field.
_ALSO: Final = {
    "aet": "calling_ae_title",
    "level": "query_level",
    "key": "keys",
    "destination": "move_destination",
    "at": "time",
    "rule": "rules",
}
_DEVICE: Final = "some-device"
_TITLE: Final = "SOME-AET"
_ARCHIVE: Final = "pacs"
# A Wednesday: a test without a time must not depend on the day on which it is run.
_NOON: Final = datetime(2026, 1, 7, 12, 0, tzinfo=UTC)
_HEADER: Final = re.compile(r"^[ \t]*\[\[[ \t]*test[ \t]*\]\]", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What a registry, or the table `[device.NAME]` of a test file, says of a device."""

    role: str
    site: str = ""
    ae_titles: tuple[str, ...] = ()
    assurance: Assurance = Assurance.TLS_DEVICE


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request and what is expected of it; None = whatever it is. `where` names file, line, test and row."""

    where: str
    request: OperationRequest
    effect: Effect
    reason: ReasonCode | None
    rule_ids: frozenset[str] | None
    strip: frozenset[int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFile:
    """The cases of a file, and the policy that it names ("" if none)."""

    policy: str
    cases: tuple[Case, ...]


class CaseFileError(Exception):
    """The file can't be used; `problems` has everything that is wrong with it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def load_cases(text: str, *, source: str, known: Mapping[str, Caller]) -> CaseFile:
    """Return the cases of a TOML text; `known` are the registered devices. Raises CaseFileError with every problem."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CaseFileError((Problem(source, f"this is not TOML: {error}", "correct the line"),)) from error
    reader = _Reader(source, known, lines_of(_HEADER, text))
    found = reader.read(document)
    if reader.problems:
        raise CaseFileError(tuple(reader.problems))
    return found


def _ae_title(value: object) -> str:
    text = read_text(value)
    try:
        return parse_ae_title(text)
    except AeTitleError as error:
        raise BadValueError(f'"{text}": {error}', "write an AE title") from error


def _destination(value: object) -> str:
    return SELF if value == SELF else _ae_title(value)


def _site(value: object) -> str:
    return read_name(value) if value != "" else ""


def _narrowing_key(value: object) -> int | None:
    """Return the tag of `PatientID` or `PatientID=4711`; None where the value narrows nothing."""
    name, equals, wanted = read_text(value).partition("=")
    tag: int | None = None
    try:
        tag = parse_query_key(name)
    except QueryKeyError:
        return read_key(name)
    return None if equals and not is_filled(tag, wanted.encode()) else tag


def _moment(value: object) -> datetime:
    """Return the wall time of `2026-01-31T14:00`, `wed 14:00` or `14:00` (then it is a Wednesday)."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    text = read_text(value)
    day, _, hour = text.rpartition(" ")
    if not day and ":" in text and "T" not in text:
        return _NOON.replace(hour=0) + timedelta(minutes=read_minute(text))
    if day in DAYS:
        shift = timedelta(days=DAYS.index(day) - _NOON.weekday(), minutes=read_minute(hour))
        return _NOON.replace(hour=0) + shift
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadValueError(f'"{text}" is not a time', 'write "wed 14:00" or "2026-01-31T14:00"') from error
    if moment.tzinfo is not None:
        raise BadValueError(f'"{text}" has a time zone', "windows are about the clock on the wall: leave the zone out")
    return moment.replace(tzinfo=UTC)


def _floor(value: object) -> str | None:
    if isinstance(value, bool):
        return "test" if value else None
    raise BadValueError(f"{value!r} is neither true nor false", "write floor_only = true")


_operation: Final = one_of("operation", OPERATION_BY_LABEL)
_service: Final = one_of("service", {service.value: USUAL_SOP_CLASS[service] for service in Service})
_reason: Final = one_of("reason of a decision", {reason.value: reason for reason in REASONS})

# How each field of a request is read. Those of `_LISTS` are lists by nature; a list of lists then stands for cases.
REQUEST_FIELDS: Final[dict[str, Callable[[object], Any]]] = {
    "device": read_name,
    "role": read_name,
    "site": _site,
    "person": read_name,
    "group": read_name,
    "assurance": read_assurance,
    "calling_ae_title": _ae_title,
    "own_ae_titles": _ae_title,
    "archive": read_name,
    "operation": _operation,
    "sop_class": read_sop_class,
    "service": _service,
    "context_sop_class": read_sop_class,
    "query_level": read_text,
    "keys": _narrowing_key,
    "move_destination": _destination,
    "time": _moment,
    "floor_only": _floor,
}
_EXPECTED: Final[dict[str, Callable[[object], Any]]] = {
    "expect": read_effect,
    "reason": _reason,
    "rules": read_rule_id,
    "strip": read_strip,
}
_LISTS: Final = frozenset({"group", "own_ae_titles", "keys", "rules"})
_OF_TEST: Final = ("name", "description", "cases")
_OF_DEVICE: Final = ("role", "site", "ae_titles", "assurance")
_OF_FILE: Final = ("version", "policy", "defaults", "device", "test")


@dataclass(slots=True)
class _Reader:
    """Reads one document and collects what is wrong with it."""

    source: str
    known: Mapping[str, Caller]
    lines: list[int]
    problems: list[Problem] = field(default_factory=list)
    where: str = ""

    def read(self, document: Mapping[str, Any]) -> CaseFile:
        self.where = self.source
        self._find_unknown(document, _OF_FILE)
        if document.get("version", 1) != 1:
            self._problem("version", f"version {document['version']!r} is not known", "this program reads version = 1")
        policy = self._one("policy", document.get("policy", ""), read_text) or ""
        self.known = {**self.known, **self._read_devices(document.get("device", {}))}
        defaults = self._read_table("defaults", document.get("defaults", {}), ())
        tests = document.get("test", [])
        if not isinstance(tests, list) or not all(isinstance(test, dict) for test in tests):
            self._problem("test", "tests are tables", "start each test with [[test]]")
            tests = []
        elif not tests:
            self._problem("", "there is no test, so nothing is tested", "write [[test]] with a request and expect")
        if len(tests) != len(self.lines):
            self.lines = []
        cases = [case for number, test in enumerate(tests) for case in self._read_test(number, test, defaults)]
        return CaseFile(policy=policy, cases=tuple(cases))

    def _read_devices(self, tables: object) -> dict[str, Caller]:
        if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
            self._problem("device", "devices are tables", "write [device.NAME] with role, site and ae_titles")
            return {}
        found = {}
        for name, table in tables.items():
            self.where = f'{self.source}, device "{name}"'
            self._find_unknown(table, _OF_DEVICE)
            if "role" not in table:
                self._problem("role", "the role is missing", "write the role that the device is registered with")
            titles = table.get("ae_titles", [])
            titles = titles if isinstance(titles, list) else [titles]
            found[name] = Caller(
                role=self._one("role", table.get("role", ""), read_name if "role" in table else read_text) or "",
                site=self._one("site", table.get("site", ""), _site) or "",
                ae_titles=tuple(title for each in titles if (title := self._one("ae_titles", each, _ae_title))),
                assurance=self._one("assurance", table.get("assurance", "tls-device"), read_assurance)
                or Assurance.TLS_DEVICE,
            )
        self.where = self.source
        return found

    def _read_test(self, number: int, test: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[Case]:
        line = f" line {self.lines[number]}" if self.lines else ""
        name = test.get("name", "")
        here = self.where = f"{self.source}{line}, test " + (f'"{name}"' if name else str(number + 1))
        common = _overlay(defaults, self._read_table("", test, _OF_TEST))
        rows = test.get("cases", [{}])
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            self._problem("cases", "cases are a list of rows, and there is at least one", "write { role = … }")
            return
        for place, row in enumerate(rows):
            self.where = f"{here}, case {place + 1}" if "cases" in test else here
            yield from self._read_row(_overlay(common, self._read_table("", row, ())))

    def _read_table(self, name: str, table: Any, more: tuple[str, ...]) -> dict[str, Any]:
        """Return the fields of a table by their own names; what is not known is a problem."""
        if not isinstance(table, dict):
            self._problem(name, "this is no table", f"write [{name}]")
            return {}
        self._find_unknown(table, (*REQUEST_FIELDS, *_EXPECTED, *_ALSO, *more))
        return {_ALSO.get(str(key), str(key)): value for key, value in table.items() if key not in more}

    def _read_row(self, fields: Mapping[str, Any]) -> Iterator[Case]:
        before = len(self.problems)
        chosen = {
            name: self._alternatives(name, fields[name], read)
            for name, read in REQUEST_FIELDS.items()
            if name in fields
        }
        expected = self._read_expectation(fields)
        self._find_missing(chosen, read=len(self.problems) == before)
        if len(self.problems) > before or expected is None:
            return
        varying = [name for name, values in chosen.items() if len(values) > 1]
        for values in product(*chosen.values()):
            request = dict(zip(chosen, values, strict=True))
            suffix = ", ".join(f"{name} {_shown(fields[name][chosen[name].index(request[name])])}" for name in varying)
            yield Case(
                where=f"{self.where} ({suffix})" if suffix else self.where,
                request=self._request_of(request),
                effect=expected[0],
                reason=expected[1],
                rule_ids=expected[2],
                strip=expected[3],
            )

    def _read_expectation(
        self, fields: Mapping[str, Any]
    ) -> tuple[Effect, ReasonCode | None, frozenset[str] | None, frozenset[int] | None] | None:
        effect = self._one("expect", fields["expect"], read_effect) if "expect" in fields else None
        reason = self._one("reason", fields["reason"], _reason) if "reason" in fields else None
        rules, strip = (
            self._read_set(name, fields[name] if isinstance(fields[name], list) else [fields[name]], _EXPECTED[name])
            if name in fields
            else None
            for name in ("rules", "strip")
        )
        if reason is not None:
            meant = Effect.ALLOW if reason is ReasonCode.ALLOWED else Effect.DENY
            if effect is not None and effect is not meant:
                self._problem("reason", f"no decision is {effect} for the reason {reason}", "correct one of them")
            effect = meant
        if effect is None:
            if "expect" not in fields and "reason" not in fields:
                self._problem("expect", "nothing is expected", 'write expect = "allow" or expect = "deny"')
            return None
        return effect, reason, rules, strip

    def _find_missing(self, chosen: Mapping[str, list[Any]], *, read: bool) -> None:
        if "operation" not in chosen:
            self._problem("operation", "the operation is missing", 'write, for example, operation = "c-find"')
        if not read:
            return
        operations: set[Operation] = set(chosen.get("operation", ()))
        if "service" in chosen and "sop_class" in chosen:
            self._problem("service", "there is a sop_class too", "name one of them")
        unclear = sorted(operation.label for operation in operations - set(_USUAL_SERVICE))
        if unclear and "service" not in chosen and "sop_class" not in chosen:
            self._problem("sop_class", f"what {unclear[0]} is about is missing", "write service or sop_class")
        if Operation.C_MOVE in operations and "move_destination" not in chosen:
            self._problem("move_destination", "a c-move has a destination", 'write an AE title, or "self"')
        for name, about in (("move_destination", {Operation.C_MOVE}), ("query_level", IDENTIFIER_OPERATIONS),
                            ("keys", IDENTIFIER_OPERATIONS)):  # fmt: skip
            if name in chosen and operations and operations.isdisjoint(about):
                labels = ", ".join(sorted(operation.label for operation in about))
                self._problem(name, f"only {labels} has this", "leave it out")
        unknown = [name for name in chosen.get("device", (_DEVICE,)) if name not in self.known]
        if "role" not in chosen and unknown:
            hint = "write its role, or describe it in [device.NAME]; --config FILE reads those that are registered"
            self._problem("role", f'the role of device "{unknown[0]}" is not known', hint)

    def _request_of(self, chosen: Mapping[str, Any]) -> OperationRequest:
        device = chosen.get("device", _DEVICE)
        caller = self.known.get(device) or Caller(role=chosen["role"])
        title = chosen.get("calling_ae_title", (*caller.ae_titles, _TITLE)[0])
        operation: Operation = chosen["operation"]
        uid = chosen.get("sop_class") or chosen.get("service") or USUAL_SOP_CLASS[_USUAL_SERVICE[operation]]
        destination = chosen.get("move_destination") if operation is Operation.C_MOVE else None
        request = OperationRequest(
            principal=Principal(
                device=device,
                calling_ae_title=title,
                role=chosen.get("role", caller.role),
                site=chosen.get("site", caller.site),
                assurance=chosen.get("assurance", caller.assurance),
                address="",
                floor_only=chosen.get("floor_only"),
                person=chosen.get("person", ""),
                groups=chosen.get("group", frozenset()),
            ),
            archive=chosen.get("archive", _ARCHIVE),
            operation=operation,
            sop_class_uid=uid,
            move_destination=title if destination == SELF else destination,
            at=chosen.get("time", _NOON),
            own_ae_titles=chosen.get("own_ae_titles", frozenset(caller.ae_titles)),
            context_sop_class_uid=chosen.get("context_sop_class", ""),
        )
        if operation not in IDENTIFIER_OPERATIONS or not {"query_level", "keys"} & set(chosen):
            return request
        return IdentifierRequest.of(
            request, query_level=chosen.get("query_level") or None, keys=chosen.get("keys", frozenset())
        )

    def _alternatives(self, name: str, value: object, read: Callable[[object], Any]) -> list[Any]:
        if name in _LISTS:
            sets = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
            return [self._read_set(name, each if isinstance(each, list) else [each], read) for each in sets]
        values = value if isinstance(value, list) else [value]
        if not values:
            self._problem(name, "the list is empty, so nothing is tested", "name a value, or leave it out")
        return [self._one(name, each, read) for each in values]

    def _read_set(self, name: str, values: list[object], read: Callable[[object], Any]) -> frozenset[Any]:
        return frozenset(self._one(name, each, read) for each in values) - {None}

    def _one(self, name: str, value: object, read: Callable[[object], Any]) -> Any:
        try:
            return read(value)
        except BadValueError as bad:
            self._problem(name, bad.message, bad.hint)
            return None

    def _find_unknown(self, table: Mapping[str, Any], fields: tuple[str, ...]) -> None:
        for key in table:
            if key not in fields:
                self._problem(key, "this field is not known", nearest(key, fields))

    def _problem(self, name: str, message: str, hint: str) -> None:
        self.problems.append(Problem(f"{self.where}, {name}" if name else self.where, message, hint))


def _overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of both; what a row says of service or SOP class replaces what its test says of either."""
    kept = dict(under)
    if "service" in over or "sop_class" in over:
        kept.pop("service", None)
        kept.pop("sop_class", None)
    if "expect" in over or "reason" in over:
        for name in _EXPECTED:
            kept.pop(name, None)
    return {**kept, **over}


def _shown(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)
