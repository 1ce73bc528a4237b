"""`dicomward bypass`: opened in seconds with or without a gateway, closed, listed, reviewed by another operator."""

from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.identity.registry import Device, RegistrySnapshot
from dicomward.identity.registry_json import decode_snapshot
from dicomward.io.private_file import FileBusyError
from dicomward.io.protection.bypass_store import encode_bypass, read_bypasses, write_bypass
from dicomward.io.registry.store import write_snapshot
from dicomward.settings import Settings
from tests.cli.conftest import Outcome, Run
from tests.directory_helpers import now, running_gateway
from tests.io.audit_helpers import records_of
from tests.policy.test_bypass import bypass


@pytest.fixture
def ward(run: Run, settings: Settings) -> Settings:
    path = settings.registry.snapshot
    snapshot = decode_snapshot(path.read_text())
    devices = (
        Device(name="ct1", ae_titles=("CT1",), role="modality", site="north", networks=("10.1.2.0/24",)),
        Device(name="mr1", ae_titles=("MR1",), role="modality", networks=("10.1.2.0/24",)),
    )
    write_snapshot(path, RegistrySnapshot(devices=devices, archives=snapshot.archives, revision=snapshot.revision))
    return settings


def opened(run: Run, *options: object) -> Outcome:
    return run("bypass", "open", "--device", "ct1", "--reason", "night", *options)


def alerts(settings: Settings) -> list[dict[str, object]]:
    return [dict(r.members) for r in records_of(settings.audit.directory) if r.members["code"] == "DW-SEC-ALERT"]


def test_opened_without_a_gateway_and_without_a_database(run: Run, ward: Settings) -> None:
    (ward.directory / "registry.db").unlink()
    done = opened(run)
    assert done.code == 0, done.err
    assert "for device ct1 is open until" in done.out
    assert done.out.endswith("(60 minutes); no gateway runs here, the next start uses it\n")
    (alert,) = alerts(ward)
    assert (alert["reason"], alert["operator"], alert["device"]) == ("bypass-opened", "anna", "ct1")
    (stored,) = read_bypasses(ward.gateway.state_directory).bypasses.values()
    assert (stored.reason, stored.minutes, stored.operator) == ("night", 60, "anna")


def test_open_close_review_and_list(run: Run, ward: Settings) -> None:
    made = run("bypass", "open", "--site", "north", "--reason", "new policy", "--minutes", "480", "--json").json
    assert (made["site"], made["minutes"], made["state"], made["gateway_runs"]) == ("north", 480, "OPEN", False)
    table = run("bypass", "list")
    assert table.code == 0
    assert [part in table.out for part in (made["id"], "site north", "OPEN", "anna", "new policy")] == [True] * 5
    assert "still open: close it first" in run("bypass", "review", made["id"], "--note", "x", "--operator", "bert").err
    closed = run("bypass", "close")
    assert (
        f"bypass {made['id']} for site north is closed; now it must be reviewed, by another operator if there is one"
        in closed.out
    )
    assert "not reviewed" in run("bypass", "list").out
    own = run("bypass", "review", made["id"], "--note", "fine")
    assert own.code == 1
    assert "somebody else must review it" in own.err
    done = run("bypass", "review", made["id"], "--note", "fine", "--operator", "bert")
    assert (done.code, done.out.split(";")[0]) == (0, f"bypass {made['id']} for site north is reviewed by bert")
    assert run("bypass", "list").out == "no bypass is open, and none waits for its review\n"
    (entry,) = run("bypass", "list", "--all", "--json").json["bypasses"]
    assert (entry["note"], entry["state"], entry["ending"]) == ("fine", "reviewed by bert", "closed")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--device", "ct2", "--reason", "x"), 1, "there is no device 'ct2'; did you mean 'ct1'?"),
        (("--site", "nort", "--reason", "x"), 1, "no device is of site 'nort'; did you mean 'north'?"),
        (("--site", "", "--reason", "x"), 1, "no device is of site ''"),
        (("--device", "ct1", "--reason", " "), 2, "--reason must have 1 to 500 printable characters"),
        (("--device", "ct1", "--reason", "a\nb"), 2, "--reason must have 1 to 500 printable characters"),
        (("--device", "ct1", "--reason", "x", "--minutes", "0"), 2, "--minutes 0 is not within 1 to 480"),
        (("--device", "ct1", "--reason", "x", "--minutes", "481"), 2, "if it must last longer, open another one"),
        (("--device", "ct1", "--reason", "x", "--operator", ""), 2, "the operator's name"),
        (("--device", "ct1"), 2, "--reason"),
        (("--reason", "x"), 2, "one of the arguments --device --site is required"),
        (("--device", "ct1", "--site", "north", "--reason", "x"), 2, "not allowed with"),
    ],
)
def test_wrong_use_opens_nothing(run: Run, ward: Settings, options: tuple[str, ...], code: int, message: str) -> None:
    done = run("bypass", "open", *options)
    assert done.code == code
    assert message in done.err
    assert read_bypasses(ward.gateway.state_directory).bypasses == {}


def test_registry_that_cannot_be_read_is_named(run: Run, ward: Settings) -> None:
    ward.registry.snapshot.write_text("{")
    done = opened(run)
    assert done.code == 1
    assert "registry.json can't be read" in done.err


def test_close_says_which_are_open(run: Run, ward: Settings) -> None:
    assert "no such bypass is open" in run("bypass", "close").err
    opened(run)
    run("bypass", "open", "--device", "mr1", "--reason", "night")
    done = run("bypass", "close")
    assert done.code == 2
    assert "2 are open, so say which" in done.err
    assert "not by both" in run("bypass", "close", "x", "--device", "mr1").err
    assert "for device mr1 is closed" in run("bypass", "close", "--device", "mr1").out
    assert run("bypass", "close", "--site", "north").code == 1
    assert run("bypass", "close", "nothing").code == 1


def test_one_whose_time_is_over_is_not_shown_as_open(run: Run, ward: Settings) -> None:
    write_bypass(ward.gateway.state_directory, bypass())
    done = run("bypass", "list")
    assert done.code == 1
    assert "not reviewed" in done.out
    assert "has a file, but no record in the audit log" in done.err
    assert run("bypass", "list", "--json").json["contradictions"]


def test_file_that_cannot_be_read_and_a_missing_log_are_told(run: Run, ward: Settings) -> None:
    opened(run)
    (path,) = (ward.gateway.state_directory / "bypass").glob("*.json")
    path.write_text("{")
    done = run("bypass", "list")
    assert "is not JSON" in done.err
    assert "its file is gone" in done.err
    for each in ward.audit.directory.iterdir():
        each.unlink()
    ward.audit.directory.rmdir()
    assert "the audit log can't be read" in run("bypass", "list").err


def test_running_gateway_is_asked(run: Run, ward: Settings) -> None:
    answer = {"ok": True, "bypass": encode_bypass(replace(bypass(), opened_at=now())), "problem": "its disk is full"}
    with running_gateway(ward, answer) as asked:
        done = opened(run, "--minutes", "5")
    assert done.out.endswith("; in force\n")
    assert done.err == "dicomward: bypass 20260302-1: its disk is full\n"
    assert asked == [
        {
            "do": "bypass",
            "action": "open",
            "device": "ct1",
            "site": None,
            "reason": "night",
            "minutes": 5,
            "operator": "anna",
        }
    ]


def test_gateway_that_refuses_or_answers_nonsense_is_told(run: Run, ward: Settings) -> None:
    with running_gateway(ward, {"ok": False, "error": "nothing was done: no sink"}):
        assert opened(run).err == "dicomward: nothing was done: no sink\n"
    with running_gateway(ward, {"ok": True, "bypass": 7}):
        done = opened(run)
        assert done.code == 1
        assert "the gateway's answer can't be read" in done.err


def test_list_is_what_the_gateway_has(run: Run, ward: Settings) -> None:
    entry = encode_bypass(replace(bypass(), opened_at=now()))
    with running_gateway(ward, {"ok": True, "bypasses": [entry]}):
        assert "20260302-1" in run("bypass", "list").out


def test_log_that_a_gateway_holds_is_told(run: Run, ward: Settings) -> None:
    from dicomward.io.audit.log import AuditLog

    log = AuditLog(ward.audit.directory)
    log.start()
    try:
        done = opened(run)
    finally:
        log.close()
    assert done.code == 1
    assert "a gateway is starting or stopping just now; try again" in done.err


def test_log_that_cannot_be_written_is_told(run: Run, ward: Settings, tmp_path: Path) -> None:
    opened(run)
    for each in ward.audit.directory.iterdir():
        each.unlink()
    ward.audit.directory.rmdir()
    ward.audit.directory.write_text("in the way")
    done = opened(run)
    assert done.code == 1
    assert "nothing was done: the audit log can't be written" in done.err
    assert len(read_bypasses(ward.gateway.state_directory).bypasses) == 1


# -- operators --------------------------------------------------------------------------------------------------------


def as_user(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SUDO_USER", name)


def test_operators_open_at_once_and_another_administrator_reviews(
    run: Run, ward: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomward.io.people.operators._login_uid", lambda: None)
    for name, role in (("bert", "operator"), ("carla", "administrator"), ("vera", "viewer")):
        assert run("operator", "add", name, "--role", role).code == 0
    text = ward.path.read_text()
    ward.path.write_text(text.replace("[operators]", '[operators]\nsecond_person = ["all"]'))
    as_user(monkeypatch, "vera")
    assert opened(run).code == 1
    as_user(monkeypatch, "bert")
    bypass_id = opened(run, "--json").json["id"]
    assert run("bypass", "close").code == 0
    ward.path.write_text(text)
    assert run("bypass", "review", bypass_id, "--note", "x").code == 1
    as_user(monkeypatch, "carla")
    assert f"{bypass_id} for device ct1 is reviewed by carla" in run("bypass", "review", bypass_id, "--note", "x").out


def test_only_operator_reviews_alone(run: Run, ward: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomward.io.people.operators._login_uid", lambda: None)
    assert run("operator", "add", "bert", "--role", "operator").code == 0
    bypass_id = opened(run, "--json").json["id"]
    run("bypass", "close")
    assert run("bypass", "review", bypass_id, "--note", "x").code == 0


def test_emergency_does_not_wait_for_a_file_of_operators_that_is_broken(run: Run, ward: Settings) -> None:
    ward.operators.file.write_text("[[")
    done = opened(run)
    assert done.code == 0, done.err
    bypass_id = run("bypass", "list", "--json").json["bypasses"][0]["id"]
    assert run("bypass", "close").code == 0
    assert run("bypass", "review", bypass_id, "--note", "x").code == 2


def test_held_lock_is_told(run: Run, ward: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_arguments: object) -> object:
        raise FileBusyError("another command has held it for 15 s")

    monkeypatch.setattr("dicomward.io.protection.bypass_commands.bypass_lock", busy)
    assert "nothing was done: another command has held it" in opened(run).err
