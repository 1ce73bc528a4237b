"""`dicomward policy test`: what is printed, and the exit codes."""

from pathlib import Path

import pytest

from dicomward.settings import Settings
from tests.cli.conftest import Run

POLICY = (
    '[[rule]]\nid = "echo"\neffect = "allow"\nrole = "modality"\noperation = "c-echo"\n'
    '[[rule]]\nid = "store"\neffect = "allow"\nrole = "modality"\noperation = "c-store"\n'
)
ECHO = 'policy = "p.toml"\n[[test]]\nname = "echo"\nrole = "modality"\noperation = "c-echo"\nexpect = "allow"\n'
STORE = '[[test]]\nname = "store"\nrole = "modality"\noperation = "c-store"\nexpect = "allow"\n'
WRONG = '[[test]]\nname = "wrong"\nrole = "reader"\noperation = "c-store"\nexpect = "allow"\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "p.toml").write_text(POLICY, encoding="utf-8")
    return tmp_path


def write(place: Path, text: str, name: str = "t.toml") -> Path:
    path = place / name
    path.write_text(text, encoding="utf-8")
    return path


def test_what_passes_is_counted(run: Run, place: Path) -> None:
    outcome = run("policy", "test", write(place, ECHO + STORE))
    assert (outcome.code, outcome.out, outcome.err) == (0, "2 cases: 2 passed, 0 failed\n", "")


def test_what_fails_is_explained_and_ends_with_1(run: Run, place: Path) -> None:
    outcome = run("policy", "test", write(place, ECHO + WRONG))
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    assert lines[0] == 'FAILED t.toml line 7, test "wrong"'
    assert lines[1:3] == ["  expected allow, the decision is deny", "  decision: deny: no-matching-rule, by no rule"]
    assert (
        "  to allow it: rule store would allow it, but role: the rule wants modality, the request has reader" in lines
    )
    assert lines[-1] == "2 cases: 1 passed, 1 failed"


def test_an_identifier_that_is_not_stated_is_pointed_out(run: Run, place: Path) -> None:
    (place / "p.toml").write_text(
        '[[rule]]\nid = "find"\neffect = "allow"\nrole = "r"\noperation = "c-find"\nservice = "query"\n'
        'required_keys = "PatientID"\n',
        encoding="utf-8",
    )
    file = write(place, 'policy = "p.toml"\n[[test]]\nrole = "r"\noperation = "c-find"\nexpect = "deny"\n')
    assert "depends: rule find allows it if the query has all of PatientID" in run("policy", "test", file).out


def test_rules_that_no_case_determines_are_named(run: Run, place: Path) -> None:
    outcome = run("policy", "test", write(place, ECHO), "--coverage")
    assert outcome.code == 0
    assert outcome.out.splitlines()[1:] == ["p.toml: 1 of 2 rules determine a case (50 %)", "  no case: store"]


@pytest.mark.parametrize(("least", "code"), [("50", 0), ("50%", 0), ("51", 1), ("100", 1), ("0", 0)])
def test_too_little_coverage_ends_with_1(run: Run, place: Path, least: str, code: int) -> None:
    outcome = run("policy", "test", write(place, ECHO), "--min-coverage", least)
    assert outcome.code == code
    assert ("fewer than the" in outcome.out) is bool(code)


@pytest.mark.parametrize("least", ["101", "-1", "half", "nan"])
def test_a_share_is_0_to_100(run: Run, place: Path, least: str) -> None:
    assert run("policy", "test", write(place, ECHO), f"--min-coverage={least}").code == 2


def test_files_about_one_policy_cover_it_together(run: Run, place: Path) -> None:
    files = write(place, ECHO), write(place, 'policy = "p.toml"\n' + STORE, "more.toml")
    assert run("policy", "test", *files, "--min-coverage", "100").code == 0


def test_the_option_names_the_policy_before_the_file_does(run: Run, place: Path) -> None:
    other = write(place, '[[rule]]\nid = "no"\neffect = "deny"\n', "other.toml")
    assert run("policy", "test", write(place, ECHO), "--policy", other).code == 1


def test_as_json_every_case_is_there(run: Run, place: Path) -> None:
    found = run("policy", "test", write(place, ECHO + WRONG), "--json").json
    assert (found["passed"], found["failed"]) == (1, 1)
    assert [case["passed"] for case in found["cases"]] == [True, False]
    assert found["cases"][0]["rules"] == ["echo"]
    assert found["cases"][1]["failures"] == ["expected allow, the decision is deny"]
    assert found["coverage"][0]["missing"] == ["store"]


def test_without_a_policy_it_is_that_of_the_settings(run: Run, place: Path, settings: Settings) -> None:
    file = write(place, ECHO.split("\n", 1)[1])
    assert run("policy", "test", file).code == 0
    outcome = run("policy", "test", file, "--config", settings.path)
    assert outcome.code == 0


def test_registered_devices_need_no_role(run: Run, place: Path, settings: Settings) -> None:
    assert run("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--network", "127.0.0.0/8",
               "--out", place / "ct1").code == 0  # fmt: skip
    file = write(place, '[[test]]\ndevice = "ct1"\noperation = "c-echo"\nexpect = "allow"\nrules = "modality-echo"\n')
    assert run("policy", "test", file).code == 2
    assert run("policy", "test", file, "--config", settings.path).code == 0


def test_no_policy_at_all_is_a_usage_error(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run("policy", "test", write(place, ECHO.split("\n", 1)[1]))
    assert outcome.code == 2
    assert "name the policy with --policy" in outcome.err


def test_files_that_cannot_be_read_are_all_named(run: Run, place: Path) -> None:
    outcome = run("policy", "test", write(place, ""), write(place, "x = 1", "u.toml"))
    assert (outcome.code, outcome.out) == (2, "")
    assert "t.toml: there is no test" in outcome.err
    assert "u.toml, x: this field is not known" in outcome.err
