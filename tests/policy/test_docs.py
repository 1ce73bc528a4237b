"""docs/policy.md says what the code does: its examples load, its tables are complete."""

import re
from pathlib import Path

import pytest

from dicomward.policy.case_file import REQUEST_FIELDS, load_cases
from dicomward.policy.case_run import judge
from dicomward.policy.levels import RULE_LEVELS
from dicomward.policy.load import FIELDS, load_policy
from dicomward.policy.ready import default_policy_text
from dicomward.policy.rule import Rule
from dicomward.policy.values import DAYS
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance, Role
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import OPERATIONS_OF_SERVICE, Service

TEXT = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
EXAMPLES = [block for block in BLOCKS if "[[rule]]" in block]
(CASES,) = (block for block in BLOCKS if "[[test]]" in block)

# What evaluate and evaluate_association can answer.
REASONS = {
    ReasonCode.ALLOWED,
    ReasonCode.DENIED_BY_RULE,
    ReasonCode.NO_MATCHING_RULE,
    ReasonCode.RULE_ERROR,
    ReasonCode.NO_PERMITTED_CONTEXT,
    ReasonCode.CLINICAL_FLOOR_ONLY,
    ReasonCode.NOT_CONFIRMED,
    ReasonCode.OPERATION_NOT_OF_SOP_CLASS,
    ReasonCode.SOP_CLASS_MISMATCH,
    ReasonCode.MOVE_DESTINATION_NOT_ALLOWED,
    ReasonCode.QUERY_LEVEL_NOT_ALLOWED,
    ReasonCode.REQUIRED_KEYS_MISSING,
    ReasonCode.OUTSIDE_PERMITTED_TIMES,
    ReasonCode.ASSURANCE_TOO_LOW,
}


def table(heading: str) -> dict[str, list[str]]:
    """Return the rows of the first table below a heading by the code in their first cell."""
    section = TEXT.split(f"{heading}\n", 1)[1]
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", section.split("\n#", 1)[0], re.MULTILINE)
    return {first: [cell.strip() for cell in rest.split("|")] for first, rest in rows}


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_loads_without_a_warning(example: str) -> None:
    policy = load_policy(example, source="docs/policy.md")
    assert policy.rules
    assert policy.warnings == ()


def test_all_examples_can_stand_in_one_policy() -> None:
    rules: tuple[Rule, ...] = load_policy("\n".join(EXAMPLES), source="docs/policy.md").rules
    assert len(rules) == sum(example.count("[[rule]]") for example in EXAMPLES)


def test_the_table_of_fields_is_complete() -> None:
    rows = table("## The fields of a rule")
    assert set(rows) == set(FIELDS)
    allow_only = {field for field, row in rows.items() if row[0] == "allow"}
    deny_only = {field for field, row in rows.items() if row[0] == "deny"}
    assert allow_only == {"assurance", "required_keys", "required_any_key", "strip"}
    assert deny_only == {"assurance_below", "unless_keys", "unless_any_key"}
    values = {field: set(re.findall(r"`([^`]+)`", row[1])) for field, row in rows.items()}
    assert values["operation"] == {operation.label for operation in Operation}
    assert values["query_level"] == set(RULE_LEVELS)
    assert values["assurance"] == {assurance.label for assurance in Assurance}
    assert values["role"] == set(Role)


def test_the_table_of_services_is_complete() -> None:
    rows = table("### Services")
    assert set(rows) == set(Service)
    for service, row in rows.items():
        operations = {operation.label for operation in OPERATIONS_OF_SERVICE[Service(service)]}
        listed = set(re.findall(r"`([^`]+)`", row[1]))
        assert listed == operations or (row[1] == "all" and operations == {o.label for o in Operation})


def test_the_table_of_reason_codes_is_complete() -> None:
    assert set(table("## Reason codes")) == REASONS


def test_the_days_are_named() -> None:
    assert f"`{DAYS[0]}` to `{DAYS[-1]}`" in TEXT


def test_the_example_of_policy_tests_passes() -> None:
    ready = load_policy(default_policy_text(), source="policy.toml")
    verdicts = [judge(ready, case) for case in load_cases(CASES, source="t.toml", known={}).cases]
    assert len(verdicts) == 10
    assert [verdict.failures for verdict in verdicts if not verdict.passed] == []


def test_the_table_of_the_fields_of_a_test_is_complete() -> None:
    section = TEXT.split("## Tests of a policy\n", 1)[1].split("\n## ", 1)[0]
    listed = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert listed == {*REQUEST_FIELDS, "expect", "reason", "rules", "strip"}
