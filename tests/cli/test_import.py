"""`dicomward import`: a draft on stdout or in a file, notes on stderr, and what can't be read named."""

import json
from pathlib import Path

import pytest

from dicomward.settings import Settings
from tests.cli.conftest import Run

SAMPLES = Path(__file__).resolve().parents[1] / "identity" / "samples"


def test_orthanc_becomes_a_draft_on_stdout_and_notes_on_stderr(run: Run) -> None:
    done = run("import", "orthanc", SAMPLES / "orthanc.json", "--host", "192.0.2.40")
    assert done.code == 0
    assert done.out.startswith("# A registry draft.")
    assert 'address = "192.0.2.40:4242"' in done.out
    assert "dicomward: note: DicomModalitiesInDatabase is true" in done.err


def test_dcm4chee_becomes_a_draft_in_a_file_that_is_never_replaced_unasked(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "draft.toml"
    done = run("import", "dcm4chee", SAMPLES / "dcm4chee.ldif", "--out", out)
    assert done.code == 0
    assert done.out.startswith(f"{out}: 5 devices, 2 archives, ")
    assert f"dicomward device import {out} --dry-run" in done.out
    assert 'ae_titles = ["CT1", "CT1_MPPS"]' in out.read_text()
    again = run("import", "dcm4chee", SAMPLES / "dcm4chee.ldif", "--out", out)
    assert again.code == 1
    assert "is there already" in again.err
    assert run("import", "dcm4chee", SAMPLES / "dcm4chee.ldif", "--out", out, "--force", "--json").json["devices"]


def test_folder_is_read_whole(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"DicomAet": "ONE"}')
    (tmp_path / "b.json").write_text('\ufeff{"DicomModalities": {"ct": ["CT", "192.0.2.1", 104]}}')
    (tmp_path / "c.txt").write_text("not it")
    value = run("import", "orthanc", tmp_path, "--json").json
    assert [each["name"] for each in value["archives"] + value["devices"]] == ["ONE", "ct"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "it is not JSON with comments"), (b"\xff", "is not UTF-8 text"), (b"{}", "no configuration was found")],
)
def test_file_that_is_no_configuration_is_named(run: Run, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "o.json"
    path.write_bytes(content)
    done = run("import", "orthanc", path)
    assert done.code == 2
    assert message in done.err


def test_what_cannot_be_read_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "none.ldif can't be read" in run("import", "dcm4chee", tmp_path / "none.ldif").err
    assert "has no *.ldif" in run("import", "dcm4chee", tmp_path).err
    path = tmp_path / "a.ldif"
    path.write_text("nonsense\n")
    assert "is no attribute" in run("import", "dcm4chee", path).err
    monkeypatch.setattr("dicomward.cli.import_._MOST_BYTES", 3)
    assert "is larger than 3 bytes" in run("import", "dcm4chee", path).err


def test_draft_of_orthanc_is_loaded(run: Run, settings: Settings, tmp_path: Path) -> None:
    source, draft = tmp_path / "o.json", tmp_path / "draft.toml"
    flags = {"AllowFind": False, "AllowGet": False, "AllowMove": False}
    modality = {"AET": "CT9", "Host": "192.0.2.1", "Port": 104, **flags}
    source.write_text(json.dumps({"DicomAet": "OTHERPACS", "DicomModalities": {"ct9": modality}}))
    assert run("import", "orthanc", source, "--out", draft).code == 0
    done = run("device", "import", draft)
    assert done.code == 0, done.err
    assert run("device", "show", "ct9", "--json").json["role"] == "modality"
