"""The policy in two languages is one policy: otherwise P9 would compare different work."""

import cedarpy
import pytest
from bench import ours
from bench.decisions import cedar_decisions, our_decisions, time_each
from bench.policies import make_devices, make_requests, make_rules

from dicomward.policy.load import load_policy


@pytest.mark.parametrize("rules", [10, 50, 200])
def test_both_languages_give_the_same_answer(rules: int) -> None:
    devices = make_devices(200, rules // 10)
    requests = make_requests(devices, 400)
    mine = [decide() for decide in our_decisions(rules, requests)]
    assert mine == [decide() for decide in cedar_decisions(rules, requests, 200)]
    assert 0.1 < sum(mine) / len(mine) < 0.9


@pytest.mark.parametrize("count", [1, 9, 50, 500])
def test_as_many_rules_as_asked_for_in_both(count: int) -> None:
    rules = make_rules(count)
    assert len({rule.id for rule in rules}) == count
    assert len(cedarpy.PolicySet.from_str("".join(rule.cedar() for rule in rules))) == count
    assert len(load_policy("".join(rule.toml() for rule in rules), source="test").rules) == count


def test_gateway_of_the_benchmark_has_fifty_rules() -> None:
    assert len(load_policy(ours.policy_text(), source="test").rules) == 50


def test_devices_are_different_and_requests_repeat() -> None:
    devices = make_devices(500, 50)
    assert len({device.name for device in devices}) == 500
    assert make_requests(devices, 50) == make_requests(devices, 50)


def test_each_call_is_timed() -> None:
    answers = iter([True, False, True])
    times = time_each([lambda: next(answers)] * 3)
    assert len(times) == 3
    assert next(answers, None) is None
    assert all(time >= 0 for time in times)
