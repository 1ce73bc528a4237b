"""`dicomward budget show | reset`: without a gateway, with one, and with a damaged file."""

import threading

import pytest

from dicomward.audit.event import BudgetReset
from dicomward.io.audit.log import AuditLogBusyError, AuditLogError
from dicomward.io.control import ControlError
from dicomward.io.protection import budget_view
from dicomward.io.protection.budgets import BudgetStore
from dicomward.limits.budgets import Charge, Holder
from dicomward.settings import Settings
from tests.cli.conftest import Run


@pytest.fixture
def used(run: Run, settings: Settings) -> Settings:
    """Return settings with a registered device that has used some of its budgets."""
    done = run(
        "device", "add", "r1", "--aet", "R1", "--role", "research", "--network", "10.1.2.0/24",
        "--out", settings.directory / "r1",
    )  # fmt: skip
    assert done.code == 0, done.err
    settings.gateway.state_directory.mkdir(mode=0o700, exist_ok=True)
    charge(settings)
    return settings


def charge(settings: Settings) -> None:
    store = BudgetStore(
        settings.gateway.state_directory, settings.budgets, failed=print, works=print, record=lambda _event: None
    )
    store.charge((Holder("r1", "research"),), Charge(patients=(1, 2), studies=(3,), matches=1650, bytes=10))
    over = threading.Event()
    store.keep(over.set)
    assert over.wait(20)
    store.close()


def test_nobody_has_used_anything(run: Run, settings: Settings) -> None:
    done = run("budget", "show")
    assert (done.code, done.out) == (0, "nobody has taken anything out\n")
    assert run("budget", "show", "--json").json == []
    assert run("budget", "show", "--device", "PACS", "--json").json["role"] == "archive"


def test_what_was_used_is_shown(run: Run, used: Settings) -> None:
    done = run("budget", "show")
    assert done.code == 0, done.err
    header, first, *rest = done.out.splitlines()
    assert header.split() == ["DEVICE", "ROLE", "MEASURE", "PERIOD", "USED", "BUDGET", "%", "LEVEL"]
    assert first.split() == ["r1", "research", "patients", "hour", "2", "200", "1", "free"]
    assert len(rest) == 11
    shown = run("budget", "show", "--device", "r1", "--json").json
    assert (shown["device"], shown["role"]) == ("r1", "research")
    assert {
        "measure": "matches", "period": "30_days", "used": 1650, "budget": 1_000_000, "level": "free"
    } in shown["budgets"]  # fmt: skip
    assert [each["device"] for each in run("budget", "show", "--json").json] == ["r1"]


def test_a_reset_is_on_record_with_its_operator(run: Run, used: Settings) -> None:
    done = run("budget", "reset", "--device", "r1", "--operator", "anna")
    assert (done.code, done.out, done.err) == (0, "budgets of r1 are reset\n", "")
    assert run("budget", "show").out == "nobody has taken anything out\n"
    found = run("audit", "search", "--code", BudgetReset.code)
    assert "operator=anna" in found.out
    assert "device=r1" in found.out
    assert run("budget", "reset", "--device", "r1").out == "budgets of r1 are reset; it had used nothing\n"
    assert run("budget", "reset", "--device", "r1", "--json").json == {"device": "r1", "had_used": False}


@pytest.mark.parametrize("action", ["show", "reset"])
def test_an_unknown_device_is_refused_with_the_nearest_name(run: Run, used: Settings, action: str) -> None:
    done = run("budget", action, "--device", "r2")
    assert (done.code, done.out) == (1, "")
    assert "r1" in done.err
    assert run("budget", action, "--device", "").code == 2


def test_a_reset_needs_a_device(run: Run, used: Settings) -> None:
    assert run("budget", "reset").code == 2


@pytest.mark.parametrize("action", ["show", "reset"])
def test_a_damaged_file_is_said_and_kept(run: Run, used: Settings, action: str) -> None:
    path = used.gateway.state_directory / "budgets.db"
    path.write_bytes(b"no database " * 1000)
    done = run("budget", action, "--device", "r1")
    assert done.code == 1
    assert "budgets.db can't be used" in done.err
    assert path.read_bytes().startswith(b"no database")


@pytest.mark.parametrize(
    ("error", "message"),
    [(AuditLogBusyError("busy"), "repeat the command"), (AuditLogError("full"), "nothing was reset")],
)
def test_a_reset_that_cannot_be_recorded_does_not_happen(
    run: Run, used: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def refuse(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(budget_view, "append_offline", refuse)
    done = run("budget", "reset", "--device", "r1")
    assert done.code == 1
    assert message in done.err
    assert run("budget", "show", "--device", "r1", "--json").json["budgets"][0]["used"] == 2


def test_a_gateway_that_does_not_answer_is_said(run: Run, used: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_arguments: object) -> None:
        raise ControlError("the gateway did not answer")

    monkeypatch.setattr(budget_view, "call", silent)
    assert "did not answer" in run("budget", "show").err
    monkeypatch.setattr(budget_view, "call", lambda *_arguments: {"ok": False, "error": "no"})
    done = run("budget", "reset", "--device", "r1")
    assert (done.code, "the gateway answered: no" in done.err) == (1, True)
