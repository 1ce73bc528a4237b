"""`dicomward inventory`: drafts from captures and from the audit log; who still talks in plaintext."""

from datetime import timedelta
from pathlib import Path

import pytest

from dicomward.audit.event import AssociationAllowed, AssociationDenied, AuditEvent, OperationAllowed
from dicomward.identity.draft import parse_draft
from dicomward.io.audit.log import append_offline
from dicomward.settings import Settings
from dicomward.vocab.reason import ReasonCode
from tests.cli.conftest import Run
from tests.directory_helpers import now
from tests.io.capture.test_inventory import DAY, SECRET
from tests.io.capture_files import pcap

STORE = {"operation": "c-store", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "direction": "requestor"}


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "day.pcap"
    path.write_bytes(pcap(DAY))
    return path


def test_capture_becomes_a_draft_that_can_be_imported(
    run: Run, settings: Settings, capture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "draft.toml"
    done = run("inventory", "--pcap", capture, "--out", out)
    assert done.code == 0, done.err
    assert f"{out}: 1 archives and 2 devices; review every line, then:" in done.out
    assert f"dicomward device import {out} --dry-run" in done.out
    assert [each.name for each in parse_draft(out.read_text()).devices] == ["CT1", "WS1"]
    out.write_text(out.read_text().replace('name = "PACS"', 'name = "OLDPACS"').replace('"PACS"', '"OLDPACS"'))
    assert run("device", "import", out).code == 0
    assert "exists already" in run("inventory", "--pcap", capture, "--out", out).err


def test_capture_needs_no_gateway(run: Run, capture: Path) -> None:
    done = run("inventory", "--pcap", capture)
    assert done.code == 0
    assert parse_draft(done.out).archives[0].ae_title == "PACS"
    assert SECRET not in done.out


def test_captures_are_joined_and_json_has_counts(run: Run, capture: Path) -> None:
    value = run("inventory", "--pcap", capture, "--pcap", capture, "--json").json
    assert value["counts"]["associations"] == 6
    assert [each["role"] for each in value["devices"]] == ["modality", "workstation"]
    assert value["devices"][0]["seen"]["operations"] == ["c-find 2x", "c-store 2x"]


def test_mistakes_are_said(run: Run, settings: Settings, tmp_path: Path) -> None:
    assert run("inventory").code == 2
    assert run("inventory", "--pcap", tmp_path / "none").code == 2
    (tmp_path / "zip").write_bytes(b"PK")
    done = run("inventory", "--pcap", tmp_path / "zip")
    assert done.code == 2
    assert "is neither pcap nor pcapng" in done.err
    assert run("inventory", "--plaintext", "--out", tmp_path / "x").code == 2


# --- from the log ---


def association(identifier: str, **fields: object) -> dict[str, object]:
    return {
        "association": identifier,
        "calling_ae_title": "CT1",
        "called_ae_title": "PACS",
        "address": "10.1.2.3",
        **fields,
    }


def log(settings: Settings, *events: AuditEvent) -> None:
    for event in events:
        append_offline(settings.audit.directory, event)


def test_log_becomes_a_draft(run: Run, settings: Settings) -> None:
    log(
        settings,
        AssociationAllowed(**association("a", role="modality")),  # type: ignore[arg-type]
        OperationAllowed(association="a", **STORE),  # type: ignore[arg-type]
        OperationAllowed(association="a", operation="c-dance", direction="requestor"),
        OperationAllowed(association="zzz", **STORE),  # type: ignore[arg-type]
        AssociationDenied(**association("b", calling_ae_title="NEW"), reason=ReasonCode.CALLING_AE_TITLE_NOT_BOUND),  # type: ignore[arg-type]
        AssociationAllowed(**association("c", calling_ae_title="PACS", role="archive")),  # type: ignore[arg-type]
        AssociationAllowed(association="d"),
    )
    value = run("inventory", "--observed", "--json").json
    assert [(each["name"], each["role"], each["networks"]) for each in value["devices"]] == [
        ("CT1", "modality", ["10.1.2.3/32"]),
        ("NEW", "", ["10.1.2.3/32"]),
    ]
    assert value["archives"] == []
    (segment,) = settings.audit.directory.glob("audit-*.jsonl")
    segment.write_bytes(segment.read_bytes() + b"junk\n")
    assert run("inventory", "--observed", "--json").json["counts"]["damaged records"] == 1


def test_log_that_does_not_exist_is_said(run: Run, settings: Settings) -> None:
    for path in settings.audit.directory.glob("*"):
        path.unlink()
    settings.audit.directory.rmdir()
    done = run("inventory", "--observed")
    assert done.code == 1
    assert "there is no audit log" in done.err


# --- plaintext ---


def test_who_talks_in_plaintext_is_listed(run: Run, settings: Settings, tmp_path: Path) -> None:
    end = now().astimezone().date() + timedelta(days=20)
    with settings.path.open("a") as file:
        file.write(
            f'[[legacy_zones]]\nname = "old"\nlisten = "127.0.0.1:0"\nnetworks = ["10.1.2.0/24"]\nend_date = {end}\n'
        )
    base = ("--role", "modality", "--network")
    run("device", "add", "ct1", "--aet", "CT1", *base, "10.1.2.3", "--legacy", "old", "--address", "10.1.2.3:104",
        "--plain")  # fmt: skip
    run("device", "add", "mr1", "--aet", "MR1", *base, "10.1.2.4", "--legacy", "old")
    run("device", "add", "us1", "--aet", "US1", *base, "10.1.2.5", "--out", tmp_path / "us1")
    run("device", "suspend", "mr1")
    log(
        settings,
        AssociationAllowed(device="ct1", assurance="network-pin", archive="pacs"),
        AssociationAllowed(device="ct1", assurance="tls-device", archive="pacs"),
    )
    value = run("inventory", "--plaintext", "--json").json
    assert [(each["name"], each["kind"], each["zone"], each["days_left"]) for each in value] == [
        ("ct1", "device", "old", 20),
        ("ct1", "device", None, None),
        ("PACS", "archive", None, None),
    ]
    zone = value[0]
    assert zone["end_date"] == str(end)
    assert zone["last_seen"] > zone["last_seen_plaintext"]
    assert value[1]["last_seen"] is None
    table = run("inventory", "--plaintext").out
    assert "calls in the legacy zone old" in table
    assert "is called at 10.1.2.3 port 104 without TLS" in table


def test_zone_that_is_gone_and_nobody_at_all_are_said(run: Run, settings: Settings) -> None:
    run("archive", "remove", "PACS")
    assert run("inventory", "--plaintext").out == "nobody talks in plaintext\n"
    assert run("inventory", "--plaintext", "--json").json == []
