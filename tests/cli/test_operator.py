"""`dicomward operator`, and how every command knows who runs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicomward.io.people import operators as io_operators
from dicomward.settings import Settings, load_settings
from tests.cli.conftest import Run


@pytest.fixture
def named(settings: Settings, run: Run) -> Settings:
    """Return a directory with the administrators anna and carla and the operator bert."""
    assert run("operator", "add", "bert", "--role", "operator").code == 0
    assert run("operator", "add", "carla", "--role", "administrator").code == 0
    return settings


@contextmanager
def as_user(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("SUDO_USER", name)
        yield


def second_person(settings: Settings, *words: str) -> None:
    text = settings.path.read_text(encoding="utf-8")
    quoted = ", ".join(f'"{word}"' for word in words)
    settings.path.write_text(text.replace("[operators]", f"[operators]\nsecond_person = [{quoted}]"), encoding="utf-8")
    load_settings(settings.path)


def test_the_first_change_names_whoever_makes_it(named: Settings, run: Run) -> None:
    assert run("operator", "list", "--json").json == [
        {"name": "anna", "role": "administrator", "users": ["anna"]},
        {"name": "bert", "role": "operator", "users": ["bert"]},
        {"name": "carla", "role": "administrator", "users": ["carla"]},
    ]
    assert "bert   operator" in run("operator", "list").out
    shown = run("audit", "search", "--code", "DW-OPER-CHANGE")
    assert "operator=anna" in shown.out
    assert "operator carla is administrator" in shown.out


def test_init_makes_its_user_the_administrator(tmp_path: Path, run: Run) -> None:
    made = run("init", tmp_path / "gw", "--pacs", "PACS@127.0.0.1:104")
    assert made.code == 0
    config = tmp_path / "gw" / "dicomward.toml"
    assert run("operator", "list", "--config", config, "--json").json == [
        {"name": "anna", "role": "administrator", "users": ["anna"]}
    ]
    (tmp_path / "gw" / "operators.toml").chmod(0o600)


def test_without_operators_it_says_so(settings: Settings, run: Run) -> None:
    shown = run("operator", "list", "--json")
    assert shown.json == []
    assert "whoever may write this directory" in shown.err
    assert run("operator", "whoami").out.startswith("anna: administrator; may view")


def test_whoami(named: Settings, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with as_user(monkeypatch, "bert"):
        shown = run("operator", "whoami", "--json").json
    assert shown["role"] == "operator"
    assert "bypass" in shown["permissions"]
    assert "device-change" not in shown["permissions"]


def test_roles_are_changed_and_operators_removed(named: Settings, run: Run) -> None:
    assert run("operator", "role", "bert", "viewer", "--json").json == {"name": "bert", "role": "viewer"}
    assert run("operator", "remove", "bert").out == "operator bert removed\n"
    missing = run("operator", "remove", "karla")
    assert missing.code == 1
    assert "did you mean 'carla'?" in missing.err
    assert run("operator", "remove", "carla").code == 0
    last = run("operator", "remove", "anna")
    assert last.code == 1
    assert "nobody could change anything" in last.err


def test_denied_when_the_role_is_too_low_and_on_record(
    named: Settings, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with as_user(monkeypatch, "bert"):
        refused = run("archive", "remove", "PACS")
    assert refused.code == 1
    assert "bert is an operator, and this (archive-change) needs an administrator" in refused.err
    assert "operator=bert reason=operator-not-permitted" in run("audit", "search", "--code", "DW-OPER-DENY").out


@pytest.mark.parametrize(
    "command",
    [
        ("device", "list"),
        ("device", "show", "ct1"),
        ("device", "suspend", "ct1"),
        ("archive", "list"),
        ("archive", "show", "PACS"),
        ("renew-gateway",),
        ("policy", "explain", "--device", "PACS", "--operation", "c-echo", "--sop-class", "verification"),
        ("audit", "search"),
        ("audit", "verify"),
        ("operator", "list"),
        ("approval", "list"),
        ("approval", "approve", "x"),
    ],
    ids=" ".join,
)
def test_every_command_needs_an_operator(
    named: Settings, run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    with as_user(monkeypatch, "mallory"):
        refused = run(*command)
    assert (refused.code, refused.out) == (1, "")
    assert "'mallory' is no operator of this gateway" in refused.err


def test_a_refusal_that_can_not_be_recorded_is_still_one(
    named: Settings, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io_operators, "record_event", lambda *_args: "disk full")
    with as_user(monkeypatch, "mallory"):
        refused = run("device", "list")
    assert refused.code == 1
    assert "this refusal could not be recorded: disk full" in refused.err
    done = run("operator", "role", "bert", "viewer")
    assert done.code == 1
    assert "this is done, but not in the audit log: disk full" in done.err


def test_an_emergency_goes_on_without_the_operators(named: Settings, run: Run) -> None:
    named.operators.file.write_text("version =", encoding="utf-8")
    suspended = run("device", "suspend", "PACS")
    assert "device-suspend goes on without it, for anna" in suspended.err
    broken = run("archive", "remove", "PACS")
    assert broken.code == 2
    assert "is not TOML" in broken.err
    assert run("operator", "add", "dora", "--role", "viewer").code == 2


def test_a_second_operator_is_needed_and_enough(named: Settings, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    second_person(named, "archive-change")
    waits = run("archive", "remove", "PACS")
    assert waits.code == 1
    assert "this needs a second operator (carla)" in waits.err
    assert run("archive", "list", "--json").json != []
    (asked,) = run("approval", "list", "--json").json
    assert (asked["requested_by"], asked["command"], asked["status"]) == ("anna", "archive remove name=PACS", "pending")
    for name, says in (("anna", "you have asked for this yourself"), ("bert", "bert may not do this")):
        with as_user(monkeypatch, name):
            refused = run("approval", "approve", asked["id"])
        assert refused.code == 1
        assert says in refused.err
    with as_user(monkeypatch, "carla"):
        approved = run("approval", "approve", asked["id"])
        # The approval is anna's, and nobody else's.
        assert "needs a second operator (anna)" in run("archive", "remove", "PACS").err
    assert "anna can type the command again, once" in approved.out
    removed = run("archive", "remove", "PACS")
    assert removed.code == 0
    again = run("archive", "remove", "PACS")
    assert "this needs a second operator" in again.err
    actions = [
        line.split("action=")[1].split()[0]
        for line in run("audit", "search", "--code", "DW-APPROVAL").out.splitlines()
        if "operator=bert" not in line
    ]
    assert actions == ["requested", "approved", "requested", "used", "requested"]


def test_nothing_is_done_when_the_use_can_not_be_recorded(
    named: Settings, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_person(named, "all")
    monkeypatch.setattr(io_operators, "record_event", lambda *_args: "disk full")
    refused = run("archive", "remove", "PACS")
    assert refused.code == 1
    assert "nothing was done: the audit log can't take the record of it" in refused.err


def test_nobody_else_can_approve(settings: Settings, run: Run) -> None:
    assert run("operator", "add", "bert", "--role", "operator").code == 0
    second_person(settings, "all")
    refused = run("archive", "remove", "PACS")
    assert refused.code == 1
    assert "nobody else may approve it; add one: dicomward operator add" in refused.err
    assert run("operator", "add", "carla", "--role", "administrator").code == 0


def test_another_file_is_another_command(named: Settings, run: Run, tmp_path: Path) -> None:
    second_person(named, "device-change")
    certificate = named.directory / "ca" / "ca.cert.pem"
    add = ("device", "add", "ct9", "--aet", "CT9", "--role", "modality", "--network", "any", "--certificate")
    assert run(*add, certificate).code == 1
    (asked,) = run("approval", "list", "--json").json
    assert "sha256(ca.cert.pem)=" in asked["command"]
    assert run(*add, tmp_path / "none.pem").code == 2


def test_unreadable_approvals_stop_the_command(named: Settings, run: Run) -> None:
    second_person(named, "all")
    named.gateway.state_directory.mkdir(exist_ok=True)
    (named.gateway.state_directory / "approvals.json").write_text("x", encoding="utf-8")
    assert "can't be noted" in run("archive", "remove", "PACS").err
    assert run("approval", "list").code == 1


def test_reloading_another_policy_is_a_change_of_the_policy(
    named: Settings, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomward.io.gateway.policy_file import read_policy, remember_policy

    named.gateway.state_directory.mkdir(exist_ok=True)
    with as_user(monkeypatch, "bert"):
        changed = run("reload")
        assert "this (policy-change) needs an administrator" in changed.err
        remember_policy(read_policy(named.policy.file), named.gateway.state_directory)
        assert "no gateway runs" in run("reload").err
        named.policy.file.write_text("broken", encoding="utf-8")
        assert "no gateway runs" in run("reload").err
    named.policy.file.write_text("version = 1\n", encoding="utf-8")
    second_person(named, "policy-change")
    assert "needs a second operator (carla)" in run("reload").err


def test_an_account_that_this_machine_does_not_have_is_told(run: Run, settings: Settings) -> None:
    done = run("operator", "add", "dora", "--role", "viewer", "--user", "no-such-account")
    assert done.code == 0
    assert "this machine has no Unix user 'no-such-account' (yet)" in done.err
    assert run("operator", "add", "root-too", "--role", "viewer", "--user", "root").err == ""
