"""What `check-config` says about operators and verifiers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from joserfc.jwk import ECKey

from dicomward.identity.operators import Operator, OperatorRole, Operators
from dicomward.io.installation.check import check_configuration
from dicomward.io.installation.config_people import find_operator_problems, find_verifier_problems
from dicomward.io.people.operators import change_operators
from dicomward.settings import Settings
from tests.directory_helpers import copy_directory, now

ANNA = Operator(name="anna", role=OperatorRole.ADMINISTRATOR, unix_users=("anna",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return copy_directory(tmp_path / "gateway")


def people(settings: Settings, **changes: object) -> Settings:
    return replace(settings, people=replace(settings.people, **changes))  # type: ignore[arg-type]


def test_a_fresh_directory_has_no_problem(settings: Settings) -> None:
    assert list(find_operator_problems(settings)) == []
    assert list(find_verifier_problems(settings)) == []
    change_operators(settings, Operators((ANNA,)))
    assert list(find_operator_problems(settings)) == []


def test_broken_operators_are_a_warning(settings: Settings) -> None:
    settings.operators.file.write_text("version =", encoding="utf-8")
    assert "is not TOML" in next(find_operator_problems(settings))[1]
    findings = check_configuration(settings, now())
    assert [str(finding.severity) for finding in findings] == ["warning"]


def test_a_second_person_that_nobody_can_be(settings: Settings) -> None:
    change_operators(settings, Operators((ANNA,)))
    words = replace(settings, operators=replace(settings.operators, second_person=("archive-change",)))
    ((where, what),) = find_operator_problems(words)
    assert where == "operators.second_person"
    assert "archive-change needs a second operator" in what
    change_operators(settings, Operators((ANNA, replace(ANNA, name="bert", unix_users=()))))
    assert list(find_operator_problems(words)) == []


def test_files_of_verifiers_that_can_not_be_used(settings: Settings, tmp_path: Path) -> None:
    settings.people.passcodes.write_text("version =", encoding="utf-8")
    ca = tmp_path / "ca.pem"
    ca.write_text("no certificate", encoding="utf-8")
    changed = people(
        settings,
        jwt_keys=tmp_path / "none.json",
        ldap_url="ldaps://x",
        ldap_ca=ca,
        ldap_bind_passcode_file=tmp_path / "none.txt",
    )
    found = [what for _, what in find_verifier_problems(changed)]
    assert len(found) == 4
    assert "is not TOML" in found[0]
    assert all("can't be read" in each for each in (found[1], found[3]))
    assert "no certificate" in found[2]


def test_files_of_verifiers_that_are_good(settings: Settings, tmp_path: Path) -> None:
    keys, ca, secret = tmp_path / "keys.json", tmp_path / "ca.pem", tmp_path / "secret.txt"
    keys.write_text(json.dumps({"keys": [ECKey.generate_key("P-256").as_dict(private=False)]}), encoding="utf-8")
    shutil.copy(settings.tls.client_ca, ca)
    secret.write_text("x", encoding="utf-8")
    secret.chmod(0o644)
    changed = people(settings, jwt_keys=keys, ldap_url="ldaps://x", ldap_ca=ca, ldap_bind_passcode_file=secret)
    ((_, what),) = find_verifier_problems(changed)
    assert "chmod 600" in what
    secret.chmod(0o600)
    assert list(find_verifier_problems(changed)) == []
