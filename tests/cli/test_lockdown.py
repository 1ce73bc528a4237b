"""`dicomward lockdown`: what it prints and how it exits. The traffic is in tests/real/test_syslog.py."""

import pytest

from dicomward.settings import Settings
from tests.cli.conftest import Run
from tests.io.audit_helpers import records_of


@pytest.fixture(autouse=True)
def _devices(settings: Settings, run: Run) -> None:
    made = run(
        *("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--network", "any", "--site", "main"),
        *("--out", settings.directory / "ct1"),
    )
    assert made.code == 0, made.err


def test_lock_list_and_lift(settings: Settings, run: Run) -> None:
    assert run("lockdown").out == "no site is locked\n"
    locked = run("lockdown", "--site", "main", "--reason", "ransomware")
    assert (locked.code, locked.out) == (0, "only the clinical floor is left to site main; no gateway runs\n")
    assert "it was already" in run("lockdown", "--site", "main").out
    listed = run("lockdown", "list", "--json").json
    assert [(each["site"], each["operator"], each["reason"]) for each in listed] == [("main", "anna", "ransomware")]
    assert "ransomware" in run("lockdown", "status").out
    lifted = run("lockdown", "--site", "main", "--lift", "--json")
    assert lifted.json == {"site": "main", "state": "lifted", "changed": True, "gateway": False, "aborted": 0}
    assert run("lockdown").out == "no site is locked\n"
    actions = [each.members["action"] for each in records_of(settings.audit.directory) if each.code == "DW-LOCKDOWN"]
    assert actions == ["lock", "lock", "lift"]


def test_every_site_can_be_locked(run: Run) -> None:
    assert run("lockdown", "--site", "all").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--site", "mian"], 1, "no device belongs to a site 'mian'; did you mean 'main'?"),
        (["--site", "main", "--lift"], 1, "site 'main' isn't locked"),
        (["--lift"], 2, "--site is missing"),
        (["--reason", "x"], 2, "--site is missing"),
        (["list", "--site", "main"], 2, "don't go together"),
        (["--site", "main", "--reason", "x" * 300], 2, "at most 256 characters"),
    ],
)
def test_mistakes_are_told(run: Run, arguments: list[str], code: int, message: str) -> None:
    done = run("lockdown", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_a_broken_file_is_told_and_a_broken_registry_is_no_hindrance(settings: Settings, run: Run) -> None:
    settings.registry.snapshot.write_text("{")
    assert run("lockdown", "--site", "unheard-of").code == 0
    (settings.gateway.state_directory / "lockdown.json").write_text("{")
    done = run("lockdown")
    assert done.code == 1
    assert "can't be used" in done.err
