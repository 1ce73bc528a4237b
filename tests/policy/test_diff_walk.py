"""The walk through all requests: what it finds, where it turns back, and how boxes are joined."""

import pytest

from dicomward.policy import diff_walk
from dicomward.policy.diff_walk import Walk, merge_boxes
from dicomward.policy.key_region import KeyRegion
from dicomward.policy.request_space import Box, build_space
from dicomward.vocab.dimse import Operation
from tests.policy.builders import ACCESSION_NUMBER, PATIENT_ID, allow, deny, policy

ECHO = allow("echo", operations=frozenset({Operation.C_ECHO}))
HAVING, LACKING = KeyRegion(0, (1,)), KeyRegion(1)


def test_nothing_is_found_where_the_rules_are_the_same_or_nothing_is_allowed() -> None:
    assert Walk(build_space(policy(ECHO), policy(ECHO))).find_leaves() == {}
    assert Walk(build_space(policy(deny("a")), policy(deny("b", sites=frozenset({"x"}))))).find_leaves() == {}


def test_a_leaf_names_the_rules_that_decide_and_those_of_one_policy_only() -> None:
    (leaf,) = Walk(build_space(policy(ECHO), policy(ECHO, deny("no")))).find_leaves()
    assert (leaf.old.allowed, leaf.new.allowed) == (True, False)
    assert (leaf.old.rules, leaf.new.rules, leaf.causes) == (0b01, 0b10, 0b10)


def test_keys_are_divided_by_the_rules_that_ask_for_them() -> None:
    asking = allow("find", operations=frozenset({Operation.C_FIND}), required_any_key=frozenset({PATIENT_ID}))
    unless = deny("unless", operations=frozenset({Operation.C_FIND}), unless_keys=frozenset({ACCESSION_NUMBER}))
    leaves = Walk(build_space(policy(), policy(asking, unless))).find_leaves()
    (allowed,) = (boxes for leaf, boxes in leaves.items() if leaf.new.allowed)
    assert {region for box in allowed for region in box.keys} == {KeyRegion(0, (1, 2))}


def test_reasons_are_found_where_decisions_are_not() -> None:
    space = build_space(policy(ECHO), policy(ECHO, deny("no", roles=frozenset({"modality"}))))
    assert not any(leaf.old.allowed == leaf.new.allowed for leaf in Walk(space).find_leaves())
    assert Walk(space, reasons=True).find_leaves()


def test_too_many_reasons_are_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff_walk, "MOST_REASON_CASES", 0)
    walk = Walk(build_space(policy(), policy(deny())), reasons=True)
    walk.find_leaves()
    assert walk.cut_short


@pytest.mark.parametrize(
    ("boxes", "merged"),
    [
        ([Box((1, 1), (HAVING,)), Box((2, 1), (HAVING,))], [Box((3, 1), (HAVING,))]),
        ([Box((1, 1), (HAVING,)), Box((1, 1), (LACKING,))], [Box((1, 1), (KeyRegion(),))]),
        ([Box((1, 1), (HAVING,)), Box((2, 2), (HAVING,))], [Box((1, 1), (HAVING,)), Box((2, 2), (HAVING,))]),
        (
            [Box((1, 1), (HAVING,)), Box((1, 2), (HAVING,)), Box((2, 3), (HAVING,))],
            [Box((3, 3), (HAVING,))],
        ),
    ],
)
def test_boxes_that_differ_in_one_facet_are_one(boxes: list[Box], merged: list[Box]) -> None:
    assert merge_boxes(boxes) == merged
