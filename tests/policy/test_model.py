from dataclasses import FrozenInstanceError

import pytest

from dicomward.policy.model import Policy, Problem
from tests.policy.builders import allow, policy


def test_a_policy_is_compiled_and_immutable() -> None:
    made = policy(allow("a"))
    assert made.index.ids == ("a",)
    with pytest.raises(FrozenInstanceError):
        made.revision = "other"  # type: ignore[misc]


def test_policies_with_the_same_rules_are_equal() -> None:
    assert policy(allow("a")) == policy(allow("a"))
    assert policy(allow("a")) != policy(allow("b"))
    assert "index" not in repr(Policy(rules=(), revision="r"))


def test_a_problem_reads_as_one_line() -> None:
    assert str(Problem("policy.toml line 3", "wrong", "do this")) == "policy.toml line 3: wrong (do this)"
    assert str(Problem("policy.toml", "wrong", "")) == "policy.toml: wrong"
