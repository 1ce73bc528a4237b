from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.policy.decision import Effect
from dicomward.policy.evaluate import evaluate
from dicomward.policy.levels import IDENTIFIER_OPERATIONS
from dicomward.policy.lint import RegisteredNames, find_unknown_names, find_void_rules
from dicomward.policy.request import OperationRequest
from dicomward.policy.rule import Rule, TimeWindow
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance
from dicomward.vocab.services import Service
from tests.policy.builders import CT, IDENTIFIERS, allow, deny, operations, policy, rules

NAMES = RegisteredNames(devices={"CT1", "pacs"}, sites={"north"}, targets={"pacs"}, ae_titles={"CT1", "OR1"})


def test_names_of_the_registry_pass() -> None:
    rule = deny(
        "r",
        devices=frozenset({"CT1", "pacs"}),
        sites=frozenset({"north"}),
        archives=frozenset({"pacs"}),
        operations=frozenset({Operation.C_MOVE}),
        move_destinations=frozenset({"OR1"}),
    )
    assert find_unknown_names(policy(rule, allow("open")), NAMES) == ()


def test_every_unknown_name_is_a_warning_with_the_nearest_one() -> None:
    rule = deny(
        "r",
        devices=frozenset({"CT11"}),
        sites=frozenset({"elsewhere"}),
        archives=frozenset({"pcas"}),
        operations=frozenset({Operation.C_MOVE}),
        move_destinations=frozenset({"ZZZZ"}),
    )
    assert [(w.location, w.message, w.hint) for w in find_unknown_names(policy(rule), NAMES)] == [
        (', rule "r", device', 'the registry has no device or archive "CT11"', 'did you mean "CT1"?'),
        (', rule "r", site', 'the registry has no site "elsewhere"', "register it, or correct the rule"),
        (
            ', rule "r", archive',
            'the registry has no archive, or device with an address, "pcas"',
            'did you mean "pacs"?',
        ),
        (', rule "r", move_destination', 'the registry has no AE title "ZZZZ"', "register it, or correct the rule"),
    ]


NIGHT = (TimeWindow(days=frozenset(range(7)), start_minute=1200, end_minute=360),)
STORE = {"roles": frozenset({"modality"}), "services": frozenset({Service.STORAGE})}
MOVE = {"roles": frozenset({"workstation"}), "operations": frozenset({Operation.C_MOVE})}


@pytest.mark.parametrize(
    ("allowing", "denying"),
    [
        (STORE, STORE),
        (STORE, {"roles": frozenset({"modality", "uploader"})}),
        (STORE, {"operations": frozenset({Operation.C_STORE, Operation.C_ECHO})}),
        (STORE | {"times": NIGHT}, STORE),
        (STORE | {"times": NIGHT}, STORE | {"times": NIGHT}),
        (STORE | {"required_keys": None, "archives": frozenset({"a"})}, {"archives": frozenset({"a", "b"})}),
        ({"devices": frozenset({"d"}), "sop_classes": frozenset({CT})}, {"services": frozenset({Service.STORAGE})}),
        ({"devices": frozenset({"d"}), "sop_classes": frozenset({CT})}, {"sop_classes": frozenset({CT, "1.2"})}),
        (MOVE | {"move_destinations": frozenset({"A"})}, MOVE | {"move_destinations": frozenset({"A", "B"})}),
        (MOVE | {"move_to_self": True}, MOVE | {"move_destinations": frozenset({"A"}), "move_to_self": True}),
    ],
)
def test_a_rule_of_which_another_denies_everything_is_a_warning(
    allowing: dict[str, Any], denying: dict[str, Any]
) -> None:
    (warning,) = find_void_rules(policy(allow("a", **allowing), deny("b", **denying)))
    assert warning.location.endswith('rule "a"')
    assert warning.message == 'rule "b" denies everything that this rule allows'


@pytest.mark.parametrize(
    ("allowing", "denying"),
    [
        (STORE, {}),  # it has a warning of its own
        (STORE, {"roles": frozenset({"uploader"})}),
        (STORE, STORE | {"sites": frozenset({"north"})}),
        (STORE, STORE | {"times": NIGHT}),
        (STORE, STORE | {"assurance_below": Assurance.DEVICE_AND_PERSON}),
        (STORE, {"operations": frozenset({Operation.C_ECHO})}),
        (STORE, {"services": frozenset({Service.QUERY})}),
        (STORE, {"sop_classes": frozenset({CT})}),
        ({"devices": frozenset({"d"}), "sop_classes": frozenset({CT})}, {"services": frozenset({Service.QUERY})}),
        (MOVE, MOVE | {"unless_keys": frozenset({1})}),
        (MOVE, MOVE | {"unless_any_key": frozenset({1})}),
        (MOVE, MOVE | {"query_levels": frozenset({"PATIENT"})}),
        (MOVE, MOVE | {"move_to_self": True}),
        (MOVE | {"move_destinations": frozenset({"A", "B"})}, MOVE | {"move_destinations": frozenset({"A"})}),
        (MOVE | {"move_to_self": True}, MOVE | {"move_destinations": frozenset({"A"})}),
    ],
)
def test_a_rule_that_may_allow_something_is_none(allowing: dict[str, Any], denying: dict[str, Any]) -> None:
    assert find_void_rules(policy(deny("b", **denying), allow("a", **allowing))) == ()


_OPEN = [
    *("devices", "roles", "sites", "people", "groups", "operations", "sop_classes", "services", "archives", "times"),
    *("query_levels", "move_destinations"),
]


@given(st.data())
@settings(max_examples=300)
def test_what_is_said_to_allow_nothing_allows_nothing(data: st.DataObject) -> None:
    rule = replace(data.draw(rules()), id="a", effect=Effect.ALLOW)
    opened: dict[str, Any] = dict.fromkeys(data.draw(st.sets(st.sampled_from(_OPEN))))
    other = replace(rule, id="b", effect=Effect.DENY, required_keys=None, required_any_key=None, assurance=None)
    both = policy(rule, replace(other, strip=None, **opened))
    if not find_void_rules(both):
        return
    request: OperationRequest = data.draw(operations())
    if request.operation in IDENTIFIER_OPERATIONS:
        # Whether the levels fit is known with the identifier.
        request = data.draw(IDENTIFIERS)
    assert evaluate(both, request).effect is Effect.DENY


def test_a_policy_without_deny_rules_has_none() -> None:
    assert find_void_rules(policy(allow("a"), Rule(id="c", effect=Effect.ALLOW))) == ()
