"""`dicomward audit export | prune | status | verify --heads`, on a log without a gateway."""

import json
from pathlib import Path

import pytest

from dicomward.audit.event import GatewayStarted, OperationCompleted
from dicomward.io.audit.log import append_offline
from dicomward.io.audit.read import list_segments
from dicomward.io.control import Answer, ControlServer
from dicomward.settings import Settings
from tests.audit.schema import assert_valid
from tests.cli.conftest import Run
from tests.io.audit_helpers import records_of
from tests.io.small_log import make_log


@pytest.fixture
def log(settings: Settings) -> Path:
    directory = settings.audit.directory
    append_offline(directory, GatewayStarted(version="1"))
    append_offline(directory, OperationCompleted(device="ct1", operation="c-store", patient_id="4711", status=0))
    return directory


def test_each_format_prints_one_message_a_line(log: Path, run: Run) -> None:
    dicom = run("audit", "export").out.splitlines()
    assert len(dicom) >= 2
    for line in dicom:
        assert_valid(line.encode())
    fhir = run("audit", "export", "--format", "fhir", "--device", "ct1").out.splitlines()
    assert [json.loads(line)["resourceType"] for line in fhir] == ["AuditEvent"]
    ecs = run("audit", "export", "--format", "ecs", "--limit", "1").out.splitlines()
    assert json.loads(ecs[0])["event"]["code"] == "DW-AUDIT-ACCESS"
    plain = run("audit", "export", "--format", "json", "--code", "DW-GW-START").out
    assert json.loads(plain)["code"] == "DW-GW-START"


def test_a_copy_is_exported_without_settings(log: Path, run: Run) -> None:
    done = run("audit", "export", "--directory", log)
    assert done.code == 0
    assert 'AuditSourceID="dicomward"' in done.out


def test_damage_is_told(log: Path, run: Run) -> None:
    path = list_segments(log)[0].path
    path.write_bytes(path.read_bytes().replace(b"4711", b"4712"))
    done = run("audit", "export")
    assert done.code == 1
    assert "damaged" in done.err


def test_verify_with_heads(log: Path, run: Run, tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    heads.write_bytes((log / "checkpoints.jsonl").read_bytes())
    last = len(records_of(log))
    done = run("audit", "verify", "--heads", heads)
    assert done.code == 0
    assert f"kept elsewhere; they vouch for the log up to record {last}" in done.out
    assert run("audit", "verify", "--heads", heads, "--json").json["heads"]["vouched"] == last
    heads.write_text("nothing\n")
    done = run("audit", "verify", "--heads", heads)
    assert done.code == 1
    assert "BAD no-heads: heads (heads)" in done.out


def test_prune_without_a_gateway(settings: Settings, run: Run) -> None:
    directory = settings.audit.directory
    make_log(directory, 12)
    segments = len(list_segments(directory))
    would = run("audit", "prune", "--days", "1", "--dry-run")
    assert "would be removed" in would.out
    assert len(list_segments(directory)) == segments
    done = run("audit", "prune", "--days", "1", "--json")
    assert done.code == 0, done.err
    assert done.json["segments"] == segments - 1
    verified = run("audit", "verify")
    assert verified.code == 0
    assert "were removed on purpose" in verified.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["prune"], 2, "give --days N"),
        (["prune", "--days", "0"], 2, "isn't a number of days above zero"),
        (["prune", "--days", "many"], 2, "isn't a number of days above zero"),
        (["status"], 1, "no gateway runs here"),
    ],
)
def test_mistakes_are_told(log: Path, run: Run, arguments: list[str], code: int, message: str) -> None:
    done = run("audit", *arguments)
    assert done.code == code
    assert message in done.err


def test_a_running_gateway_is_asked(settings: Settings, log: Path, run: Run) -> None:
    def handle(request: Answer) -> Answer:
        if request["do"] == "audit-status":
            destination = {"destination": "h:1 dicom", "connected": True, "delivered": 7, "backlog": 0, "error": ""}
            return {
                "ok": True,
                "free_bytes": 10**9,
                "bytes_per_hour": 1000,
                "headroom_hours": 5.5,
                "destinations": [destination],
            }
        assert request["days"] == 3.0
        return {"ok": True, "records": 4, "segments": 1, "held": "h:1 dicom"}

    settings.gateway.state_directory.mkdir(exist_ok=True)
    server = ControlServer(settings.gateway.state_directory, handle)
    server.start()
    try:
        status = run("audit", "status")
        assert "headroom: 5.5 h" in status.out
        assert "h:1 dicom" in status.out
        assert run("audit", "status", "--json").json["headroom_hours"] == 5.5
        pruned = run("audit", "prune", "--days", "3")
        assert "4 records in 1 segments removed" in pruned.out
        assert "stay until syslog h:1 dicom has them" in pruned.err
    finally:
        server.stop()
