"""`dicomward policy diff`: what is printed, and the exit codes."""

from pathlib import Path

import pytest

from dicomward.policy import diff, diff_walk
from dicomward.policy.decision import Decision, Effect
from dicomward.vocab.reason import ReasonCode
from tests.cli.conftest import Run

ECHO = '[[rule]]\nid = "echo"\neffect = "allow"\nrole = "modality"\noperation = "c-echo"\n'
FIND = '[[rule]]\nid = "find"\neffect = "allow"\nrole = "reader"\noperation = "c-find"\nservice = "query"\n'


@pytest.fixture
def policies(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text(ECHO, encoding="utf-8")
    new.write_text(ECHO + FIND + 'required_keys = "PatientID"\n', encoding="utf-8")
    return old, new


def test_a_widening_is_shown_with_a_request_and_ends_with_1(run: Run, policies: tuple[Path, Path]) -> None:
    outcome = run("policy", "diff", *policies)
    assert (outcome.code, outcome.err) == (1, "")
    assert "becomes allowed:\n- c-find of service query, role reader, keys with PatientID\n" in outcome.out
    assert "because of: find added" in outcome.out
    assert "was: deny: no-matching-rule; will be: allow: allowed by find" in outcome.out
    assert 'query_level = "STUDY", keys = ["PatientID"]' in outcome.out
    assert outcome.out.splitlines()[-1].startswith("the new policy is wider: 1 kind of requests allowed, 0 denied, ")


def test_what_is_only_narrower_ends_with_0(run: Run, policies: tuple[Path, Path]) -> None:
    outcome = run("policy", "diff", *reversed(policies))
    assert outcome.code == 0
    assert "becomes denied:\n- c-find of service query" in outcome.out
    assert "the new policy is not wider" in outcome.out


@pytest.mark.parametrize(
    ("fail_on", "wider", "narrower", "same"), [("widening", 1, 0, 0), ("any", 1, 1, 0), ("never", 0, 0, 0)]
)
def test_what_fails_can_be_chosen(
    run: Run, policies: tuple[Path, Path], fail_on: str, wider: int, narrower: int, same: int
) -> None:
    old, new = policies
    codes = [run("policy", "diff", a, b, "--fail-on", fail_on).code for a, b in ((old, new), (new, old), (old, old))]
    assert codes == [wider, narrower, same]


def test_the_same_policy_changes_nothing(run: Run, policies: tuple[Path, Path]) -> None:
    outcome = run("policy", "diff", policies[0], policies[0])
    assert (outcome.code, outcome.out) == (0, "rules: none is another one\n\nevery request is decided as before\n")


def test_as_json_everything_is_there(run: Run, policies: tuple[Path, Path]) -> None:
    found = run("policy", "diff", *policies, "--json").json
    assert found["wider"] is True
    assert found["rules"] == [{"action": "added", "old_id": "", "new_id": "find"}]
    (change,) = found["becomes_allowed"]
    assert change["where"] == {"operation": "c-find of service query", "role": "reader", "keys": "with PatientID"}
    assert change["because_of"] == found["rules"]
    assert change["request"]["role"] == "reader"
    assert (change["old"]["effect"], change["new"]["rules"]) == ("deny", ["find"])
    assert (found["becomes_denied"], found["reasons_complete"]) == ([], True)


@pytest.mark.parametrize("content", ["x = 1\n", None])
def test_a_policy_that_is_not_sound_is_not_compared(run: Run, policies: tuple[Path, Path], content: str | None) -> None:
    old, new = policies
    new.unlink()
    if content is not None:
        new.write_text(content, encoding="utf-8")
    outcome = run("policy", "diff", old, new)
    assert (outcome.code, outcome.out) == (2, "")
    assert "new.toml" in outcome.err


def test_what_is_shown_more_or_less_is_said(run: Run, policies: tuple[Path, Path]) -> None:
    bare, strict = policies
    bare.write_text(FIND, encoding="utf-8")
    strict.write_text(FIND + 'strip = ["PatientAddress"]\n', encoding="utf-8")
    wider = run("policy", "diff", strict, bare)
    assert wider.code == 1
    assert "shows more in the matches of queries:\n- c-find of service query, role reader\n" in wider.out
    assert "  stripped: PatientAddress; will be: nothing\n" in wider.out
    assert "1 with more in the matches" in wider.out.splitlines()[-1]
    assert [run("policy", "diff", bare, strict, "--fail-on", kind).code for kind in ("widening", "any")] == [0, 1]
    (shown,) = run("policy", "diff", bare, strict, "--json").json["shows_less"]
    assert (shown["old"]["strip"], shown["new"]["strip"]) == ([], ["PatientAddress"])


def test_a_comparison_that_failed_counts_as_wider(
    run: Run, policies: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diff, "evaluate", lambda *_: Decision(effect=Effect.DENY, reason=ReasonCode.RULE_ERROR))
    outcome = run("policy", "diff", *policies)
    assert (outcome.code, outcome.out) == (1, "")
    assert "take the new policy for wider" in outcome.err


def test_reasons_that_are_too_many_are_pointed_out(
    run: Run, policies: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diff_walk, "MOST_REASON_CASES", 0)
    assert "too many to list" in run("policy", "diff", *policies).out
