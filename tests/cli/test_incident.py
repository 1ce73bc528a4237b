"""`dicomward incident`: what it prints, how it exits, and that it is itself on record."""

from pathlib import Path
from typing import Any

import pytest

from dicomward.audit.event import AuditRecordsLost, OperationCompleted
from dicomward.io.audit.log import append_offline
from dicomward.settings import Settings
from tests.cli.conftest import Run
from tests.io.audit_helpers import records_of

FACTS: dict[str, Any] = {"association": "a1", "device": "ws1", "archive": "pacs", "direction": "requestor", "status": 0}


@pytest.fixture
def log(settings: Settings) -> Path:
    directory = settings.audit.directory
    patient: dict[str, Any] = {"patient_id": "4711", "issuer_of_patient_id": "SITE", "study_instance_uid": "1.2"}
    append_offline(directory, OperationCompleted(**FACTS, **patient, operation="c-get", message_id=1))
    append_offline(
        directory,
        OperationCompleted(
            **{**FACTS, "direction": "acceptor"}, **patient, operation="c-store", message_id=1, sop_instance_uid="9"
        ),
    )
    append_offline(
        directory,
        OperationCompleted(**FACTS, patient_id="0815", operation="c-move", message_id=2, move_destination="WS2"),
    )
    return directory


def test_patients_studies_and_directions(log: Path, run: Run) -> None:
    done = run("incident", "--device", "ws1", "--from", "1h")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[1].split()[:3] == ["PATIENT", "ID", "STUDY"]
    assert lines[2].split()[:4] == ["4711^^^SITE", "1.2", "received", "1"]
    assert lines[3].split()[:5] == ["0815", "(unknown)", "moved", "to", "WS2"]
    assert "before-the-log" in done.out


def test_json_for_scripts(log: Path, run: Run) -> None:
    report = run("incident", "--device", "ws1", "--json").json
    assert (report["patients"], report["studies"], report["complete"]) == (2, 1, True)
    first = report["touched"][0]
    assert (first["patient_id"], first["direction"], first["instances"]) == ("4711", "received", 1)
    append_offline(log, AuditRecordsLost(count=2))
    again = run("incident", "--device", "ws1", "--json").json
    assert not again["complete"]
    assert [each["kind"] for each in again["gaps"]] == ["records-lost"]


def test_the_use_is_on_record(log: Path, run: Run) -> None:
    run("incident", "--device", "ws1", "--from", "1h")
    last = records_of(log)[-1]
    assert (last.code, last.members["action"], last.members["detail"]) == (
        "DW-AUDIT-ACCESS",
        "incident",
        "device=ws1 since=1h",
    )


def test_a_device_that_did_nothing(log: Path, settings: Settings, run: Run) -> None:
    assert run("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--network", "any",
               "--out", settings.directory / "ct1").code == 0  # fmt: skip
    done = run("incident", "--device", "ct1")
    assert done.code == 0
    assert "nothing on record" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--device", "ws9"], 1, "there is no device 'ws9', nor any record of it"),
        (["--device", "ws1", "--from", "yesterday"], 2, "isn't a time"),
        (["--device", "ws1", "--from", "1h", "--to", "2h"], 2, "must be before"),
        ([], 2, "--device"),
    ],
)
def test_mistakes_are_told(log: Path, run: Run, arguments: list[str], code: int, message: str) -> None:
    done = run("incident", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_a_copy_of_a_log_needs_no_registry(log: Path, run: Run) -> None:
    done = run("incident", "--device", "nobody", "--directory", log)
    assert done.code == 0
