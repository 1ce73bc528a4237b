"""Read a policy from TOML. Everything unknown, empty or meaningless is an error that says what to do about it."""

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from dicomward.policy.decision import Effect
from dicomward.policy.levels import RULE_LEVELS
from dicomward.policy.model import Policy, Problem
from dicomward.policy.rule import MINUTES_OF_DAY, Rule, TimeWindow, find_faults, operations_of_rule
from dicomward.policy.values import (
    DAYS,
    SELF,
    BadValueError,
    lines_of,
    nearest,
    one_of,
    read_assurance,
    read_destination,
    read_effect,
    read_key,
    read_minute,
    read_name,
    read_rule_id,
    read_sop_class,
    read_strip,
    read_text,
)
from dicomward.vocab.dimse import OPERATION_BY_LABEL, Operation
from dicomward.vocab.principal import Role
from dicomward.vocab.services import SERVICE_OF_SOP_CLASS, Service

FIELDS: Final = (
    "id", "description", "effect", "device", "role", "site", "person", "group", "assurance", "assurance_below",
    "operation", "sop_class", "service", "archive", "query_level", "required_keys", "required_any_key",
    "unless_keys", "unless_any_key", "move_destination", "time", "strip",
)  # fmt: skip
_WINDOW_FIELDS: Final = ("days", "from", "to")
_RULE_HEADER: Final = re.compile(r"^[ \t]*\[\[[ \t]*rule[ \t]*\]\]", re.MULTILINE)
_NEAREST_UIDS: Final = "1.2.840.10008."

_T = TypeVar("_T")


class PolicyError(Exception):
    """The policy can't be used; `problems` has everything that is wrong with it, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def load_policy(text: str, *, source: str) -> Policy:
    """Return the policy of a TOML text; `source` names it in messages. Raises PolicyError with every problem found."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError((Problem(source, f"this is not TOML: {error}", "correct the line"),)) from error
    except RecursionError as error:
        raise PolicyError((Problem(source, "the values are nested too deeply", "a rule has plain lists"),)) from error
    reader = _Reader(source, text)
    rules = reader.read_document(document)
    if reader.problems:
        raise PolicyError(tuple(reader.problems))
    return Policy(
        rules=tuple(rules),
        revision=hashlib.sha256(text.encode()).hexdigest()[:16],
        source=source,
        warnings=tuple(reader.warnings),
    )


class _Reader:
    """Reads one document and collects what is wrong with it."""

    def __init__(self, source: str, text: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._lines = lines_of(_RULE_HEADER, text)
        self._where = source
        self._ids: dict[str, str] = {}

    def read_document(self, document: Mapping[str, object]) -> list[Rule]:
        for key in document:
            if key not in ("version", "rule"):
                self._problem(key, f'"{key}" is not known here', nearest(key, ("version", "rule")))
        version = document.get("version", 1)
        if version != 1 or isinstance(version, bool):
            self._problem("version", f"version {version!r} is not known", "this program reads version = 1")
        tables = document.get("rule", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._problem("rule", "rules are tables", "start each rule with [[rule]]")
            return []
        if not tables:
            self._warn("", "there is no rule, so nothing is allowed", "see docs/policy.md")
        if len(tables) != len(self._lines):
            # A header inside a long string, or an inline table: then a line would mislead.
            self._lines = []
        rules = (self._read_rule(number, table) for number, table in enumerate(tables))
        return [rule for rule in rules if rule is not None]

    def _read_rule(self, number: int, table: Mapping[str, object]) -> Rule | None:
        self._where = self._name_place(number, table.get("id"))
        before = len(self.problems)
        for key in table:
            if key not in FIELDS:
                self._problem(key, "this field is not known", nearest(key, FIELDS))
        rule_id = self._read(table, "id", read_rule_id)
        effect = self._read(table, "effect", read_effect)
        if effect is None and "effect" not in table:
            self._problem("effect", "the effect is missing", 'write effect = "allow" or effect = "deny"')
        if rule_id is None and "id" not in table:
            self._problem("id", "the id is missing", "every rule has an id: audit and explain name it")
        destinations = self._read_set(table, "move_destination", read_destination)
        fields = Rule(
            id=rule_id or "?",
            effect=effect or Effect.DENY,
            description=self._read(table, "description", read_text) or "",
            devices=self._read_set(table, "device", read_name),
            roles=self._read_set(table, "role", read_name),
            sites=self._read_set(table, "site", read_name),
            people=self._read_set(table, "person", read_name),
            groups=self._read_set(table, "group", read_name),
            assurance=self._read(table, "assurance", read_assurance),
            assurance_below=self._read(table, "assurance_below", read_assurance),
            operations=self._read_set(table, "operation", one_of("operation", OPERATION_BY_LABEL)),
            sop_classes=self._read_set(table, "sop_class", read_sop_class),
            services=self._read_set(table, "service", one_of("service", {s.value: s for s in Service})),
            archives=self._read_set(table, "archive", read_name),
            query_levels=self._read_set(table, "query_level", one_of("query level", {x: x for x in RULE_LEVELS})),
            required_keys=self._read_set(table, "required_keys", read_key),
            required_any_key=self._read_set(table, "required_any_key", read_key),
            unless_keys=self._read_set(table, "unless_keys", read_key),
            unless_any_key=self._read_set(table, "unless_any_key", read_key),
            move_destinations=None if destinations is None else destinations - {SELF} or None,
            move_to_self=SELF in (destinations or ()),
            times=self._read_times(table),
            strip=self._read_set(table, "strip", read_strip),
        )
        if len(self.problems) > before:
            return None
        for fault in find_faults(fields):
            self._problem(fault.field, fault.message, fault.hint)
        self._note_id(fields.id)
        self._find_oddities(fields)
        return fields

    def _name_place(self, number: int, rule_id: object) -> str:
        line = f" line {self._lines[number]}" if self._lines else ""
        name = f' "{rule_id}"' if isinstance(rule_id, str) else f" {number + 1}"
        return f"{self.source}{line}, rule{name}"

    def _note_id(self, rule_id: str) -> None:
        if rule_id in self._ids:
            self._problem("id", f"this id is taken by {self._ids[rule_id]}", "every id names one rule")
        self._ids[rule_id] = self._where

    def _find_oddities(self, rule: Rule) -> None:
        for role in sorted(rule.roles or ()):
            if role not in tuple(Role):
                hint = f"the ready roles are {', '.join(Role)}; another one matches devices registered with it"
                self._warn("role", f'"{role}" is not a ready role', hint)
        for uid in sorted(rule.sop_classes or ()):
            if uid.startswith(_NEAREST_UIDS) and uid not in SERVICE_OF_SOP_CLASS:
                self._warn("sop_class", f"PS3.6 has no SOP class {uid}", "check the UID")
        for title in sorted(rule.move_destinations or ()):
            if title.lower() == SELF:
                self._warn("move_destination", f'"{title}" is read as an AE title', f'"{SELF}" is in small letters')
        if rule.strip and operations_of_rule(rule) != {Operation.C_FIND}:
            self._warn("strip", "only matches of c-find are stripped, not images", "leave it if that is meant")
        if rule.effect is Effect.DENY and rule.is_unconditional:
            self._warn("", "this rule denies everything to everybody", "take it out to let anything pass")

    def _read(self, table: Mapping[str, object], field: str, parse: Callable[[object], _T]) -> _T | None:
        if field not in table:
            return None
        try:
            return parse(table[field])
        except BadValueError as bad:
            self._problem(field, bad.message, bad.hint)
            return None

    def _read_set(self, table: Mapping[str, object], field: str, parse: Callable[[object], _T]) -> frozenset[_T] | None:
        if field not in table:
            return None
        value = table[field]
        values = value if isinstance(value, list) else [value]
        if not values:
            self._problem(field, "the list is empty", "name a value, or leave the field out to leave it open")
        parsed = set()
        for item in values:
            try:
                parsed.add(parse(item))
            except BadValueError as bad:
                self._problem(field, bad.message, bad.hint)
        return frozenset(parsed)

    def _read_times(self, table: Mapping[str, object]) -> tuple[TimeWindow, ...] | None:
        if "time" not in table:
            return None
        value = table["time"]
        values = value if isinstance(value, list) else [value]
        if not values:
            self._problem("time", "the list is empty", "name a window, or leave the field out to leave it open")
        windows = (self._read_window(item) for item in values)
        return tuple(window for window in windows if window is not None)

    def _read_window(self, item: object) -> TimeWindow | None:
        if not isinstance(item, dict):
            self._problem("time", "a window is a table", 'write { days = ["mon"], from = "08:00", to = "18:00" }')
            return None
        for key in item:
            if key not in _WINDOW_FIELDS:
                self._problem("time", f'"{key}" is not known in a window', nearest(key, _WINDOW_FIELDS))
        if not item:
            self._problem("time", "the window is empty", 'write { days = ["mon"], from = "08:00", to = "18:00" }')
        days = self._read_set(item, "days", one_of("day", {day: i for i, day in enumerate(DAYS)}))
        start, end = self._read(item, "from", read_minute), self._read(item, "to", read_minute)
        return TimeWindow(
            days=frozenset(range(7)) if days is None else days,
            start_minute=0 if start is None else start,
            end_minute=MINUTES_OF_DAY if end is None else end,
        )

    def _problem(self, field: str, message: str, hint: str) -> None:
        self.problems.append(Problem(self._place(field), message, hint))

    def _warn(self, field: str, message: str, hint: str) -> None:
        self.warnings.append(Problem(self._place(field), message, hint))

    def _place(self, field: str) -> str:
        return f"{self._where}, {field}" if field else self._where
