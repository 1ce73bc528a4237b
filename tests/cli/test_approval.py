"""`dicomward approval`: what waits is shown and decided. How commands wait is in test_operator.py."""

import pytest

from dicomward.io.people import operators as io_operators
from dicomward.settings import Settings
from tests.cli.conftest import Run
from tests.cli.test_operator import as_user, second_person


@pytest.fixture
def asked(settings: Settings, run: Run) -> str:
    assert run("operator", "add", "carla", "--role", "administrator").code == 0
    second_person(settings, "all")
    assert run("archive", "remove", "PACS").code == 1
    (request,) = run("approval", "list", "--json").json
    return str(request["id"])


def test_rejected_requests_are_over(asked: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with as_user(monkeypatch, "carla"):
        assert run("approval", "reject", asked, "--json").json["status"] == "rejected"
    assert run("approval", "list", "--json").json == []
    shown = run("approval", "list", "--all").out
    assert f"{asked}  rejected  anna  carla" in shown
    assert run("approval", "approve", asked).code == 1


def test_what_can_not_be_recorded_is_told(asked: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_operators, "record_event", lambda *_args: "disk full")
    with as_user(monkeypatch, "carla"):
        done = run("approval", "approve", asked)
    assert done.code == 1
    assert "not in the audit log: disk full" in done.err


def test_without_operators_there_is_no_second_one(settings: Settings, run: Run) -> None:
    refused = run("approval", "approve", "x")
    assert refused.code == 1
    assert "there is only one operator" in refused.err
