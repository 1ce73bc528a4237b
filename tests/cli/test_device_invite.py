"""`dicomward device invite`: what is printed, who is refused, and many from one file."""

import csv
import io
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.enrolling import enrol, invite
from tests.io.enrolment_place import Place


def test_invitation_is_printed_for_people(run: Run, place: Place) -> None:
    done = run("device", "invite", "ct1", "--aet", "CT1", "--role", "modality", "--expires", "2h", "--url", place.url)
    assert done.code == 0
    assert "device ct1 is invited until" in done.out
    assert f"dicomward enroll --server {place.url} --code D" in done.out
    assert "█" in done.out
    assert "█" not in run("device", "invite", "ct1", "--aet", "CT1", "--role", "modality", "--no-qr").out


def test_ae_title_of_somebody_else_is_refused_at_the_invitation(run: Run, place: Place) -> None:
    invite(run, place, "us1")
    for arguments, why in (
        (("us2", "--aet", "US1"), "is promised to 'us1'"),
        (("us3", "--aet", "PACS"), "belongs to the archive"),
        (("PACS", "--aet", "US4"), "is the name of an archive"),
        (("us5", "--aet", "US5", "--expires", "1s"), "a minute at least"),
        (("us6", "--aet", "US6", "--days", "0"), "not possible"),
        (("us7", "--aet", "US7", "--url", "http://x"), "in plaintext"),
        (("us8",), "are needed"),
    ):
        done = run("device", "invite", *arguments, "--role", "modality")
        assert done.code in (1, 2)
        assert why in done.err


def test_device_behind_an_edge_agent_is_invited_and_stays_one(run: Run, place: Place, tmp_path: Path) -> None:
    code = invite(run, place, "ws9", "--address", "reverse")
    assert enrol(run, place, code, tmp_path / "one").code == 0
    assert run("device", "show", "ws9", "--json").json["reverse"] is True
    done = run("device", "invite", "ws8", "--aet", "WS8", "--role", "modality", "--address", "reverse", "--plain")
    assert (done.code, "never plaintext" in done.err) == (2, True)


def test_registered_device_is_invited_again_by_its_name(run: Run, place: Place, tmp_path: Path) -> None:
    assert enrol(run, place, invite(run, place, "us9"), tmp_path / "one").code == 0
    again = run("device", "invite", "us9", "--url", place.url, "--json")
    assert again.json["ae_titles"] == ["US9"]
    assert run("device", "invite", "us9", "--aet", "OTHER").code == 1
    assert enrol(run, place, again.json["code"], tmp_path / "two").code == 0


def test_many_are_invited_from_a_file(run: Run, place: Place, tmp_path: Path) -> None:
    table = tmp_path / "devices.csv"
    table.write_text(
        "name;aet;role;network;key;expires\nmr1;MR1|MR1B;modality;127.0.0.0/8;rsa;3d\nmr2;MR2;modality;;;\n"
    )
    done = run("device", "invite", "--csv", table, "--out", "-", "--url", place.url)
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["name"] for row in rows] == ["mr1", "mr2"]
    assert enrol(run, place, rows[0]["code"], tmp_path / "mr1", "--key", "rsa").code == 0
    table.write_text("name,aet,role\nmr3,MR3,modality\nmr4,MR4,modality\n")
    files = run("device", "invite", "--csv", table, "--out", tmp_path / "codes", "--url", place.url, "--json")
    assert [each["name"] for each in files.json] == ["mr3", "mr4"]
    assert (tmp_path / "codes" / "mr3.txt").stat().st_mode & 0o777 == 0o600
    assert run("device", "invite", "--csv", table, "--out", tmp_path / "codes").code == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no column name"),
        ("name,what\nx,y\n", "unknown columns what"),
        ("name\n", "names 0 devices"),
        ("name,aet\n,X\n", "line 2: it needs a name"),
        ("name,days\nx,y\n", "no number of days"),
        ("name,key\nx,dsa\n", "no kind of key"),
        ("name,aet,role\nx,X1,modality\nx,X2,modality\n", "names 'x' twice"),
        ("name,aet,role\nx1,X,modality\nx2,X,modality\n", "is promised to"),
    ],
)
def test_wrong_file_invites_nobody(run: Run, place: Place, tmp_path: Path, text: str, why: str) -> None:
    table = tmp_path / "devices.csv"
    table.write_text(text)
    done = run("device", "invite", "--csv", table, "--out", "-")
    assert done.code in (1, 2)
    assert why in done.err
    assert done.out == ""


def test_file_may_be_written_as_a_spreadsheet_does(run: Run, place: Place, tmp_path: Path) -> None:
    table = tmp_path / "devices.csv"
    table.write_bytes(
        b"\xef\xbb\xbfName;AE Title;Role;Networks;Expires\r\nsp1;SP1;modality;127.0.0.0/8;90 min\r\n;;;;\r\n"
    )
    done = run("device", "invite", "--csv", table, "--out", "-", "--url", place.url)
    assert done.code == 0, done.err
    assert [(row["name"], row["aet"]) for row in csv.DictReader(io.StringIO(done.out))] == [("sp1", "SP1")]
    missing = run("device", "invite", "--csv", tmp_path / "nowhere.csv", "--out", "-")
    assert (missing.code, "No such file" in missing.err) == (2, True)
    table.write_bytes(b"name;role\r\nR\xf6ntgen;modality\r\n")
    assert "save it as CSV UTF-8" in run("device", "invite", "--csv", table, "--out", "-").err
