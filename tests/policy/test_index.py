from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.policy.decision import Effect
from dicomward.policy.index import build_index
from dicomward.policy.rule import Rule, TimeWindow
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance
from tests.policy.builders import ACCESSION_NUMBER, PATIENT_ID, SITE_TIME, STUDY_INSTANCE_UID, WINDOWS, allow, deny

MONDAY = datetime(2026, 7, 6, tzinfo=SITE_TIME)
ANY = frozenset({Operation.C_FIND})


def one(*values: Any) -> frozenset[Any]:
    return frozenset(values)


def test_no_rules_accept_nothing() -> None:
    index = build_index(())
    assert (index.allows, index.denies, index.broken) == (0, 0, 0)
    assert index.ids_of(0) == ()


def test_ids_come_in_the_order_of_the_policy() -> None:
    index = build_index(tuple(deny(f"r{i}") for i in range(100)))
    assert index.ids_of(1 << 99 | 1 << 7 | 1) == ("r0", "r7", "r99")
    assert index.ids_of((1 << 100) - 1) == tuple(f"r{i}" for i in range(100))


def test_a_value_is_accepted_by_the_rules_that_name_it_and_by_the_open_ones() -> None:
    index = build_index((deny("a", roles=one("x")), deny("b"), deny("c", roles=one("x", "y"))))
    assert index.ids_of(index.role.accepting("x")) == ("a", "b", "c")
    assert index.ids_of(index.role.accepting("y")) == ("b", "c")
    assert index.ids_of(index.role.accepting("z")) == ("b",)


def test_effects_and_assurances() -> None:
    index = build_index(
        (allow("a", assurance=Assurance.TLS_DEVICE), deny("b", assurance_below=Assurance.DEVICE_AND_PERSON), deny("c"))
    )
    assert index.ids_of(index.allows) == ("a",)
    assert index.ids_of(index.denies) == ("b", "c")
    assert index.ids_of(index.assurance[Assurance.NETWORK_PIN]) == ("b", "c")
    assert index.ids_of(index.assurance[Assurance.TLS_DEVICE]) == ("a", "b", "c")
    assert index.ids_of(index.assurance[Assurance.DEVICE_AND_PERSON]) == ("a", "c")


def test_a_deny_rule_for_a_query_level_takes_an_unclear_level_too() -> None:
    index = build_index(
        (
            allow("a", operations=ANY, services=None, query_levels=one("STUDY")),
            deny("b", operations=ANY, query_levels=one("STUDY")),
            deny("c", operations=ANY, query_levels=one("WORKLIST")),
        )
    )
    assert index.ids_of(index.level.accepting("STUDY")) == ("a", "b")
    assert index.ids_of(index.level.accepting("?")) == ("b",)
    assert index.ids_of(index.level.accepting("WORKLIST")) == ("c",)


def test_keys() -> None:
    index = build_index(
        (
            allow("all", operations=ANY, services=None, required_keys=one(PATIENT_ID, STUDY_INSTANCE_UID)),
            allow("any", operations=ANY, services=None, required_any_key=one(PATIENT_ID, ACCESSION_NUMBER)),
            deny("both", operations=ANY, unless_keys=one(STUDY_INSTANCE_UID), unless_any_key=one(PATIENT_ID)),
            deny("none"),
        )
    )
    assert index.ids_of(index.with_keys) == ("all", "any", "both")
    assert index.ids_of(index.failing_keys(frozenset())) == ("all", "any", "both")
    assert index.ids_of(index.failing_keys(one(PATIENT_ID))) == ("all", "both")
    assert index.ids_of(index.failing_keys(one(STUDY_INSTANCE_UID))) == ("all", "any", "both")
    assert index.ids_of(index.failing_keys(one(STUDY_INSTANCE_UID, PATIENT_ID, 1))) == ()


def test_destinations() -> None:
    index = build_index(
        (
            deny("named", operations=one(Operation.C_MOVE), move_destinations=one("A")),
            deny("self", operations=one(Operation.C_MOVE), move_to_self=True),
            deny("open"),
        )
    )
    assert index.ids_of(index.destination.accepting("A")) == ("named", "open")
    assert index.ids_of(index.destination.accepting("B")) == ("open",)
    assert index.ids_of(index.to_self) == ("self",)


def test_without_windows_every_time_holds_even_a_naive_one() -> None:
    index = build_index((deny("a"),))
    assert index.week is None
    assert index.ids_of(index.at(MONDAY.replace(tzinfo=None)) & index.denies) == ("a",)


def test_with_windows_a_naive_time_is_an_error() -> None:
    index = build_index((deny("a", times=(TimeWindow(days=one(0), start_minute=0, end_minute=1),)),))
    with pytest.raises(ValueError, match="no time zone"):
        index.at(MONDAY.replace(tzinfo=None))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(WINDOWS, min_size=1, max_size=4), min_size=1, max_size=4), st.integers(0, 7 * 1440 - 1))
def test_the_week_holds_what_the_windows_contain(windows: list[list[TimeWindow]], minute: int) -> None:
    rules = (deny("open"), *(deny(f"r{i}", times=tuple(of_rule)) for i, of_rule in enumerate(windows)))
    index = build_index(rules)
    edges = {minute, *(m % (7 * 1440) for m in (index.week.starts if index.week else ()))}
    for moment in (MONDAY + timedelta(minutes=m + d) for m in edges for d in (-1, 0)):
        expected = tuple(
            rule.id for rule in rules if rule.times is None or any(window.contains(moment) for window in rule.times)
        )
        assert index.ids_of(index.at(moment) & index.denies) == expected


def test_rules_at_fault_and_doubled_ids_are_broken() -> None:
    index = build_index((allow("a"), allow("b", devices=one()), allow("a"), deny("d")))
    assert index.broken == 0b0110
    assert index.ids_of(index.allows) == ("a",)
    assert index.ids_of(index.broken) == ("b", "a")


def test_trap_a_rule_that_cannot_even_be_looked_at_is_broken_and_not_skipped() -> None:
    strange = Rule(id="strange", effect=Effect.DENY, services=frozenset({"no such service"}))  # type: ignore[arg-type]
    index = build_index((strange,))
    assert index.ids_of(index.broken) == ("strange",)
    assert index.denies == 0
