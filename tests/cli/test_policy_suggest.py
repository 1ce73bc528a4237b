"""`dicomward policy suggest`: rules from what the log has of a device; nothing known, nothing activated."""

from pathlib import Path
from typing import Any

import pytest

from dicomward.audit.event import AuditEvent, OperationAllowed, OperationCompleted
from dicomward.io.audit.log import append_offline
from dicomward.policy.load import load_policy
from dicomward.settings import Settings
from tests.cli.conftest import Run

CT = "1.2.840.10008.5.1.4.1.1.2"


def allowed(device: str = "ct1", **fields: object) -> AuditEvent:
    values: dict[str, object] = {
        "device": device,
        "archive": "pacs",
        "operation": "c-store",
        "sop_class_uid": CT,
        "direction": "requestor",
    }
    return OperationAllowed(**values | fields)  # type: ignore[arg-type]


@pytest.fixture
def observed(run: Run, settings: Settings, tmp_path: Path) -> Settings:
    base = ("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--network", "10.1.2.3")
    assert run(*base, "--out", tmp_path / "keys").code == 0
    for event in (
        allowed(),
        allowed(operation="c-move", sop_class_uid="1.2.840.10008.5.1.4.1.2.2.2", query_level="STUDY",
                move_destination="CT1"),
        allowed(direction="acceptor"),
        allowed(operation="n-event-report", sop_class_uid="1.2.840.10008.1.20.1", direction="acceptor"),
        allowed(operation="c-dance"),
        allowed(sop_class_uid=None),
        allowed("ws1", operation="c-echo"),
    ):  # fmt: skip
        append_offline(settings.audit.directory, event)
    return settings


def test_rules_are_printed_and_nothing_is_activated(run: Run, observed: Settings) -> None:
    before = observed.policy.file.read_bytes()
    done = run("policy", "suggest", "--device", "ct1")
    assert done.code == 0, done.err
    policy = load_policy(done.out, source="suggested")
    assert [rule.devices for rule in policy.rules] == [frozenset({"ct1"})] * 3
    assert policy.rules[1].move_to_self
    assert "Days of the week without any operation: " in done.err
    assert "Hours of the day without any operation: " in done.err
    assert observed.policy.file.read_bytes() == before


def test_rules_are_written_to_a_file_that_the_check_takes(run: Run, observed: Settings, tmp_path: Path) -> None:
    out = tmp_path / "ct1.toml"
    done = run("policy", "suggest", "--device", "ct1", "--out", out)
    assert done.code == 0
    assert f"{out}: 3 rules for ct1; nothing is activated" in done.out
    assert run("policy", "check", out).code == 0
    again = run("policy", "suggest", "--device", "ct1", "--out", out)
    assert again.code == 1
    assert "exists already" in again.err


def test_json_has_rules_and_times(run: Run, observed: Settings) -> None:
    value = run("policy", "suggest", "--device", "ct1", "--json").json
    assert (value["device"], value["operations"], value["days"]) == ("ct1", 3, 1)
    assert len(value["not_observed"]["weekdays"]) == 6
    assert len(value["not_observed"]["hours"]) == 23
    assert value["rules"][0]["sop_classes"] == ["CTImageStorage"]
    assert load_policy(value["policy"], source="x").rules


def test_time_narrows_what_is_looked_at(run: Run, observed: Settings) -> None:
    assert run("policy", "suggest", "--device", "ct1", "--from", "1h").code == 0
    for options in (("--to", "1h"), ("--from", "2099-01-01"), ("--to", "2020-01-01")):
        done = run("policy", "suggest", "--device", "ct1", *options)
        assert done.code == 1
        assert "there is nothing to suggest; observe it first: dicomward device observe ct1" in done.err


def test_mistakes_are_said(run: Run, observed: Settings) -> None:
    assert "there is no device 'ct2'; did you mean 'ct1'?" in run("policy", "suggest", "--device", "ct2").err
    assert run("policy", "suggest", "--device", "ct1", "--from", "soon").code == 2
    assert run("policy", "suggest").code == 2


def test_damaged_record_is_warned_about(run: Run, observed: Settings) -> None:
    (segment,) = observed.audit.directory.glob("audit-*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    broken = next(line for line in lines if b"c-move" in line)
    segment.write_bytes(b"".join(line if line is not broken else b"x" + line for line in lines))
    assert "damaged" in run("policy", "suggest", "--device", "ct1").err


def test_device_without_any_log_has_nothing_to_suggest(run: Run, settings: Settings, tmp_path: Path) -> None:
    base = ("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--network", "10.1.2.3")
    run(*base, "--out", tmp_path / "keys")
    assert run("policy", "suggest", "--device", "ct1").code == 1


# (0008,0052) STUDY and (0010,0020) 4711, in Explicit VR Little Endian.
IDENTIFIER = "CABSAENTBgBTVFVEWSAQACAATE8EADQ3MTE="
FIND = {"operation": "c-find", "sop_class_uid": "1.2.840.10008.5.1.4.1.2.2.1", "query_level": "STUDY"}


@pytest.mark.parametrize(
    ("identifier", "required"),
    [(IDENTIFIER, ["PatientID"]), (None, []), ("not base64", []), ("CABSAENT", [])],
)
def test_keys_are_those_of_the_identifier_on_record(
    run: Run, observed: Settings, identifier: str | None, required: list[str]
) -> None:
    asked: dict[str, Any] = {
        **FIND,
        "device": "ct1",
        "archive": "pacs",
        "direction": "requestor",
        "association": "a",
        "message_id": 1,
    }
    syntax = "1.2.840.10008.1.2.1" if identifier is not None else None
    ended = OperationCompleted(**asked, status=0, identifier=identifier, transfer_syntax_uid=syntax)
    append_offline(observed.audit.directory, allowed(**asked))
    append_offline(observed.audit.directory, ended)
    # The same number again, and no end of it on record yet.
    for operation in ("c-echo", "c-echo"):
        append_offline(observed.audit.directory, allowed(**{**asked, "operation": operation, "query_level": None}))
    value = run("policy", "suggest", "--device", "ct1", "--json").json
    (rule,) = (each for each in value["rules"] if each["operations"] == ["c-find"])
    assert rule["required_keys"] == required
    assert value["operations"] == 6
