"""`dicomward enrolment`: who is invited, what waits, and the server."""

from pathlib import Path

from tests.cli.conftest import Run
from tests.cli.enrolling import enrol, invite
from tests.io.enrolment_place import Place, new_key, request


def test_invitation_is_listed_and_revoked(run: Run, place: Place, tmp_path: Path) -> None:
    code = invite(run, place, "dx1")
    assert "dx1" in run("enrolment", "list").out
    assert run("enrolment", "revoke", "dx1", "--json").json == {"name": "dx1", "state": "revoked"}
    assert enrol(run, place, code, tmp_path / "device").code == 1
    assert "is over already" in run("enrolment", "revoke", "dx1").err
    assert "there is no open invitation" in run("enrolment", "revoke", "dx2").err
    states = {each["name"]: each["state"] for each in run("enrolment", "list", "--all", "--json").json["invitations"]}
    assert states["dx1"] == "revoked"


def test_waiting_request_is_approved_or_rejected(run: Run, place: Place) -> None:
    place.server.desk._has_queue = True
    key = new_key()
    number = place.est("simpleenroll", request(key, "xa1")).text.split()[1]
    other = place.est("simpleenroll", request(new_key(), "")).text.split()[1]
    assert "xa1" in run("enrolment", "list").out
    assert run("enrolment", "approve", number).code == 2
    done = run("enrolment", "approve", number.lower(), "--aet", "XA1", "--role", "modality", "--json")
    assert done.json["state"] == "approved"
    assert run("enrolment", "approve", number, "--aet", "XA1", "--role", "modality").code == 1
    assert place.est("simpleenroll", request(key, "xa1")).status == 200
    assert run("enrolment", "approve", other, "--aet", "XA2", "--role", "modality").code == 2
    assert "rejected" in run("enrolment", "reject", other).out
    assert "there is no request" in run("enrolment", "reject", "ZZZZZ").err
    place.server.desk._has_queue = False


def test_server_does_not_start_without_a_ca(run: Run, settings: object) -> None:
    done = run("enrolment", "serve")
    assert done.code == 1
    assert "the enrolment server can't start" in done.err
