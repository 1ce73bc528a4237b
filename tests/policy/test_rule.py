from datetime import datetime
from typing import Any

import pytest

from dicomward.policy.decision import Effect
from dicomward.policy.rule import Rule, TimeWindow, find_faults
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance
from dicomward.vocab.services import Service
from tests.policy.builders import (
    CT,
    HANGING_PROTOCOL_FIND,
    PATIENT_ID,
    PRIVATE,
    SITE_TIME,
    STUDY_FIND,
    STUDY_MOVE,
    allow,
    deny,
)

NEVER_THIS_LEVEL = (
    "query_level: identifiers of this service or SOP class never have this level, so the rule could never match"
)
WEEK = frozenset(range(7))
FIND, MOVE, STORE = Operation.C_FIND, Operation.C_MOVE, Operation.C_STORE


def one(*values: Any) -> frozenset[Any]:
    return frozenset(values)


def faults(rule: Rule) -> list[str]:
    return [f"{fault.field}: {fault.message}" for fault in find_faults(rule)]


# --- time windows: a Monday is day 0; 2026-07-06 is a Monday ----------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "clock", "inside"),
    [
        (6, "07:59", False),
        (6, "08:00", True),
        (6, "16:59", True),
        (6, "17:00", False),
        (7, "12:00", False),
    ],
)
def test_a_window_includes_its_start_and_excludes_its_end(day: int, clock: str, inside: bool) -> None:
    window = TimeWindow(days=one(0), start_minute=8 * 60, end_minute=17 * 60)
    assert window.contains(datetime.fromisoformat(f"2026-07-{day:02}T{clock}:00").replace(tzinfo=SITE_TIME)) is inside


@pytest.mark.parametrize(
    ("day", "clock", "inside"),
    [
        (10, "21:59", False),
        (10, "22:00", True),
        (11, "05:59", True),
        (11, "06:00", False),
        (11, "22:00", False),
        (10, "05:00", False),
        (6, "05:00", False),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_starts(day: int, clock: str, inside: bool) -> None:
    friday_night = TimeWindow(days=one(4), start_minute=22 * 60, end_minute=6 * 60)
    at = datetime.fromisoformat(f"2026-07-{day:02}T{clock}:00").replace(tzinfo=SITE_TIME)
    assert friday_night.contains(at) is inside


def test_sunday_night_ends_on_monday() -> None:
    sunday_night = TimeWindow(days=one(6), start_minute=23 * 60, end_minute=60)
    assert sunday_night.contains(datetime(2026, 7, 6, 0, 30, tzinfo=SITE_TIME))
    assert not sunday_night.contains(datetime(2026, 7, 7, 0, 30, tzinfo=SITE_TIME))


# --- what a rule looks at -------------------------------------------------------------------------------------------


def test_a_rule_knows_which_facts_it_needs() -> None:
    assert not allow().names_identifier
    assert not allow().names_destinations
    assert allow(query_levels=one("STUDY")).names_identifier
    assert not allow(query_levels=one("STUDY")).names_keys
    assert allow(required_keys=one(PATIENT_ID)).names_keys
    assert allow(required_any_key=one(PATIENT_ID)).names_identifier
    assert deny(unless_keys=one(PATIENT_ID)).names_keys
    assert deny(unless_any_key=one(PATIENT_ID)).names_identifier
    assert allow(move_to_self=True).names_destinations
    assert allow(move_destinations=one("A")).names_destinations


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        allow(),
        deny(),
        deny(roles=one("x")),
        allow(services=None, operations=one(STORE)),
        allow(roles=None, sites=one("north")),
        allow(roles=None, people=one("anna")),
        allow(roles=None, groups=one("readers")),
        allow(roles=None, devices=one("D1"), services=None, sop_classes=one(PRIVATE)),
        allow(services=one(Service.QUERY), query_levels=one("STUDY"), required_keys=one(PATIENT_ID)),
        allow(operations=one(FIND), services=None, query_levels=one("WORKLIST")),
        allow(services=one(Service.OTHER), operations=one(FIND), query_levels=one("STUDY")),
        allow(services=None, sop_classes=one(PRIVATE), operations=one(FIND), query_levels=one("STUDY")),
        allow(services=one(Service.MOVE), move_to_self=True),
        deny(operations=one(MOVE), move_destinations=one("A"), unless_keys=one(PATIENT_ID)),
        deny(assurance_below=Assurance.TLS_DEVICE),
        deny(times=(TimeWindow(days=WEEK, start_minute=0, end_minute=24 * 60),)),
    ],
)
def test_sound_rules_have_no_fault(rule: Rule) -> None:
    assert faults(rule) == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule(id="", effect=Effect.DENY), "id: the id is empty"),
        # Trap 7: an empty name list that allows everything.
        (allow(devices=one()), "device: the list is empty, so the rule could never match"),
        (deny(roles=one()), "role: the list is empty, so the rule could never match"),
        (deny(times=()), "time: the list is empty, so the rule could never match"),
        (
            deny(operations=one(MOVE), move_destinations=one()),
            "move_destination: the list is empty, so the rule could never match",
        ),
        (deny(required_keys=one(1), operations=one(FIND)), "required_keys: required_keys has no meaning in deny rules"),
        (deny(assurance=Assurance.TLS_DEVICE), "assurance: assurance has no meaning in deny rules"),
        (
            allow(services=one(Service.QUERY), unless_any_key=one(1)),
            "unless_any_key: unless_any_key has no meaning in allow rules",
        ),
        (allow(roles=None), ": the rule would allow this to everybody"),
        (allow(services=None), ": the rule would allow every operation"),
        (
            deny(times=(TimeWindow(days=one(), start_minute=0, end_minute=1),)),
            "time: a window has no day, or one that is not in the week",
        ),
        (
            deny(times=(TimeWindow(days=one(7), start_minute=0, end_minute=1),)),
            "time: a window has no day, or one that is not in the week",
        ),
        (
            deny(times=(TimeWindow(days=WEEK, start_minute=1440, end_minute=1),)),
            "time: a window lies outside the day",
        ),
        (deny(times=(TimeWindow(days=WEEK, start_minute=5, end_minute=0),)), "time: a window lies outside the day"),
        (
            deny(times=(TimeWindow(days=WEEK, start_minute=5, end_minute=5),)),
            "time: a window starts and ends at the same minute",
        ),
        (
            deny(operations=one(FIND), services=one(Service.STORAGE)),
            ": operation, service and sop_class exclude each other, so the rule could never match",
        ),
        (
            deny(services=one(Service.QUERY), sop_classes=one(CT)),
            ": operation, service and sop_class exclude each other, so the rule could never match",
        ),
        (
            deny(operations=one(MOVE, FIND), move_destinations=one("A")),
            "move_destination: only C-MOVE has a destination, and the rule is about other operations too",
        ),
        (
            deny(operations=one(STORE, FIND), query_levels=one("STUDY")),
            "query_level: only C-FIND, C-GET and C-MOVE have a level and keys, "
            "and the rule is about other operations too",
        ),
        (
            deny(services=one(Service.STORAGE), unless_keys=one(1)),
            "unless_keys: only C-FIND, C-GET and C-MOVE have a level and keys, "
            "and the rule is about other operations too",
        ),
        (
            deny(services=one(Service.WORKLIST), query_levels=one("STUDY")),
            NEVER_THIS_LEVEL,
        ),
        (
            deny(sop_classes=one(HANGING_PROTOCOL_FIND), query_levels=one("STUDY")),
            NEVER_THIS_LEVEL,
        ),
        (
            deny(sop_classes=one(STUDY_FIND, STUDY_MOVE), query_levels=one("WORKLIST")),
            NEVER_THIS_LEVEL,
        ),
    ],
)
def test_a_rule_that_means_nothing_or_too_much_is_at_fault(rule: Rule, expected: str) -> None:
    assert expected in faults(rule)


def test_every_fault_says_what_to_do() -> None:
    rule = Rule(id="", effect=Effect.ALLOW, times=(), sites=frozenset())
    assert len(list(find_faults(rule))) == 4
    assert all(fault.hint for fault in find_faults(rule))
