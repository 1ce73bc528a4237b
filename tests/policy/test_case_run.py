"""Cases are put to a policy: what fails says why, and rules that no case determines are named."""

import pytest

from dicomward.policy.case_file import Case, load_cases
from dicomward.policy.case_run import cover, judge
from dicomward.vocab.dimse import Operation
from tests.policy.builders import PATIENT_ADDRESS, PATIENT_ID, allow, deny, policy

ECHO = allow("echo", operations=frozenset({Operation.C_ECHO}))
FIND = allow("find", operations=frozenset({Operation.C_FIND}), required_keys=frozenset({PATIENT_ID}))
NEVER = deny("never", sites=frozenset({"moon"}))
POLICY = policy(ECHO, FIND, NEVER)


def case(text: str) -> Case:
    (found,) = load_cases(f'[[test]]\nrole = "workstation"\n{text}', source="t.toml", known={}).cases
    return found


@pytest.mark.parametrize(
    ("text", "failures"),
    [
        ('operation = "c-echo"\nexpect = "allow"\nrules = ["echo"]', []),
        ('operation = "c-echo"\nexpect = "deny"', ["expected deny, the decision is allow"]),
        (
            'operation = "c-store"\nreason = "denied-by-rule"',
            ["expected the reason denied-by-rule, it is no-matching-rule"],
        ),
        (
            'operation = "c-echo"\nexpect = "allow"\nrules = ["ecko"]',
            [
                'the policy has no rule ecko: did you mean "echo"?',
                "expected to be determined by ecko, it is by echo",
            ],
        ),
        (
            'operation = "c-store"\nexpect = "deny"\nrules = ["never"]',
            ["expected to be determined by never, it is by no rule"],
        ),
        (
            'operation = "c-echo"\nexpect = "allow"\nrules = []',
            ["expected to be determined by no rule, it is by echo"],
        ),
    ],
)
def test_what_is_otherwise_is_said(text: str, failures: list[str]) -> None:
    verdict = judge(POLICY, case(text))
    assert list(verdict.failures) == failures
    assert verdict.passed is not bool(failures)


def test_rules_are_covered_if_a_case_is_decided_by_them() -> None:
    verdicts = [judge(POLICY, case('operation = "c-echo"\nexpect = "allow"'))]
    found = cover(POLICY, verdicts)
    assert (found.determined, found.missing) == (("echo",), ("find", "never"))
    assert round(found.percent) == 33
    assert cover(policy(), ()).percent == 100


def test_what_still_depends_on_the_identifier_covers_nothing() -> None:
    asked = 'operation = "c-find"\nexpect = "allow"\n'
    assert cover(POLICY, [judge(POLICY, case(asked))]).determined == ()
    assert cover(POLICY, [judge(POLICY, case(asked + 'keys = "PatientID"'))]).determined == ("find",)


def test_what_is_stripped_from_matches_can_be_expected() -> None:
    stripping = policy(allow("find", operations=frozenset({Operation.C_FIND}), strip=frozenset({PATIENT_ADDRESS})))
    asked = 'operation = "c-find"\nkeys = []\nexpect = "allow"\nstrip = '
    assert judge(stripping, case(asked + '"PatientAddress"')).passed
    assert judge(stripping, case(asked + "[]")).failures == (
        "expected nothing to be stripped from matches, it is PatientAddress",
    )
    worklist = judge(stripping, case('operation = "c-find"\nservice = "worklist"\nexpect = "allow"\nstrip = []'))
    assert worklist.passed
