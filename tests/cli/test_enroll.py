"""`dicomward enroll`, with invitations and bundles: from the command at the gateway to the files at the device."""

import csv
import io
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from dicomward.cli import enroll
from dicomward.enrolment.code import make_code
from dicomward.io.ca.local import load_certificates
from dicomward.io.enrolment import client as enrol_client
from dicomward.io.enrolment.client import LostAnswerError
from tests.cli.conftest import Outcome, Run
from tests.directory_helpers import now
from tests.io.enrolment_place import Place, enrolment_place


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with enrolment_place(tmp_path_factory.mktemp("enroll") / "gateway") as made:
        yield made


@pytest.fixture
def place(running: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    running.server.est.forget_failures()
    monkeypatch.setenv("DICOMWARD_CONFIG", str(running.settings.path))
    monkeypatch.setattr(enroll, "_UNIT_DIRECTORY", Path("/nonexistent"))
    return running


def invite(run: Run, place: Place, name: str, *more: str) -> str:
    done = run(
        "device", "invite", name, "--aet", name.upper(), "--role", "modality", "--url", place.url, "--json", *more
    )
    assert done.code == 0, done.err
    return str(done.json["code"])


def enrol(run: Run, place: Place, code: str, out: Path, *more: str) -> Outcome:
    return run("enroll", "--server", place.url, "--code", code, "--out", out, "--no-echo", *more)


def test_invitation_is_printed_for_people(run: Run, place: Place) -> None:
    done = run("device", "invite", "ct1", "--aet", "CT1", "--role", "modality", "--expires", "2h", "--url", place.url)
    assert done.code == 0
    assert "device ct1 is invited until" in done.out
    assert f"dicomward enroll --server {place.url} --code D" in done.out
    assert "█" in done.out
    assert "█" not in run("device", "invite", "ct1", "--aet", "CT1", "--role", "modality", "--no-qr").out


def test_device_gets_its_files(run: Run, place: Place, tmp_path: Path) -> None:
    out = tmp_path / "device"
    code = invite(run, place, "ct2")
    done = enrol(run, place, f"dicomward://enroll?code={code}", out, "--json")
    assert done.code == 0, done.err
    assert done.json["device"] == "ct2"
    assert (out / "key.pem").stat().st_mode & 0o777 == 0o600
    chain = load_certificates(out / "cert.pem")
    assert [each.subject.rfc4514_string() for each in chain] == ["CN=ct2", "CN=Test issuing CA 1"]
    assert "CN=Test root CA" in [each.subject.rfc4514_string() for each in load_certificates(out / "ca.pem")]
    assert not (out / "key.pem.next").exists()
    assert enrol(run, place, code, out).code == 2
    refused = enrol(run, place, code, tmp_path / "other", "--json")
    assert refused.code == 1
    assert refused.json["ok"] is False
    assert "403" in refused.err
    assert not (tmp_path / "other").exists()


def test_code_of_another_ca_sends_nothing(run: Run, place: Place, tmp_path: Path) -> None:
    before = len(place.refusals())
    done = enrol(run, place, make_code(bytes(14), b"another CA").text, tmp_path / "device")
    assert done.code == 1
    assert "nothing of the code was sent" in done.err
    assert not (tmp_path / "device").exists()
    assert len(place.refusals()) == before


def test_server_that_does_not_speak_for_the_ca_gets_nothing(
    run: Run, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrol_client, "CMC_RA", x509.ObjectIdentifier("1.2.3"))
    done = enrol(run, place, invite(run, place, "ct3"), tmp_path / "device")
    assert done.code == 1
    assert "not one of an enrolment server" in done.err


def test_name_that_the_server_does_not_have_is_explained(run: Run, place: Place, tmp_path: Path) -> None:
    code = invite(run, place, "ct4")
    done = run(
        "enroll", "--server", place.url.replace("127.0.0.1", "127.0.0.2"), "--code", code, "--out", tmp_path / "d"
    )
    assert done.code == 1
    assert "enrolment.names" in done.err or "no connection" in done.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--server", "https://x", "--code", "ABC"), "a code has 40 characters"),
        (("--code", make_code(bytes(14), b"x").text), "--server URL is missing"),
        (("--server", "https://x"), "--code CODE is missing"),
        (("--renew",), "holds no enrolled device"),
        (("--server", "http://x", "--code", make_code(bytes(14), b"x").text), "no https:// URL"),
        (("--server", "https://x:y", "--code", make_code(bytes(14), b"x").text), "is no URL"),
    ],
)
def test_wrong_use_is_explained(run: Run, tmp_path: Path, arguments: tuple[str, ...], why: str) -> None:
    done = run("enroll", "--out", tmp_path / "device", *arguments)
    assert done.code in (1, 2)
    assert why in done.err


def test_request_without_a_code_is_approved(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with enrolment_place(tmp_path / "gateway", queue=True) as place:
        monkeypatch.setenv("DICOMWARD_CONFIG", str(place.settings.path))
        monkeypatch.setattr(enroll, "_UNIT_DIRECTORY", Path("/nonexistent"))
        out = tmp_path / "device"
        ask = ("enroll", "--server", place.url, "--name", "ct1", "--ca", place.root, "--out", out, "--no-echo")
        waiting = run(*ask)
        assert waiting.code == 1
        assert "waits for approval" in waiting.err
        (request,) = run("enrolment", "list", "--json").json["requests"]
        assert request["id"] in waiting.err
        approve = ("enrolment", "approve", request["id"], "--aet", "CT1", "--role", "modality")
        # Meanwhile it asks again.
        monkeypatch.setattr(time, "sleep", lambda _seconds: run(*approve))
        done = run(*ask, "--wait", "60")
        assert done.code == 0, done.err
        assert "device ct1: certificate" in done.out
        assert run(*ask).code == 2
        rejected = ("enroll", "--server", place.url, "--name", "x", "--ca", place.root, "--out", tmp_path / "x")
        assert run(*rejected).code == 1
        (request,) = run("enrolment", "list", "--json").json["requests"]
        assert run("enrolment", "reject", request["id"]).code == 0
        refused = run(*rejected)
        assert (refused.code, (tmp_path / "x").exists()) == (1, False)
        assert "rejected" in refused.err
        assert run("enroll", "--ca", place.root, "--out", out).code == 2
        assert run("enroll", "--server", "x", "--name", "x", "--ca", "/nowhere", "--out", tmp_path / "y").code == 2


def test_nobody_there(run: Run, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{unused.getsockname()[1]}"
        done = run("enroll", "--server", url, "--code", make_code(bytes(14), b"x").text, "--out", tmp_path / "d")
    assert done.code == 1
    assert "is the enrolment server running?" in done.err


def test_renewal_waits_for_its_time_and_replaces_the_files(run: Run, place: Place, tmp_path: Path) -> None:
    out = tmp_path / "device"
    assert enrol(run, place, invite(run, place, "ct5"), out).code == 0
    first, key = (out / "cert.pem").read_bytes(), (out / "key.pem").read_bytes()
    early = run("enroll", "--renew", "--out", out, "--json")
    assert early.json["renewed"] is False
    assert (out / "cert.pem").read_bytes() == first
    assert run("enroll", "--renew", "--force", "--no-echo", "--out", out).code == 0
    assert (out / "cert.pem").read_bytes() != first
    assert (out / "key.pem").read_bytes() != key
    assert (out / "cert.pem.old").read_bytes() == first
    assert (out / "key.pem.old").read_bytes() == key


def test_renewal_when_two_thirds_are_over(
    run: Run, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "device"
    assert enrol(run, place, invite(run, place, "ct6"), out).code == 0
    monkeypatch.setattr(enroll, "now", lambda: now() + timedelta(days=65))
    done = run("enroll", "--renew", "--no-echo", "--out", out, "--json")
    assert done.code == 0, done.err
    assert done.json["ok"] is True


def test_lost_answer_of_a_renewal_is_asked_for_again_with_the_same_key(
    run: Run, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "device"
    assert enrol(run, place, invite(run, place, "ct7"), out).code == 0
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    real = enrol_client._ask
    lost: list[bytes] = []

    def loses(*args: object, **kwargs: object) -> object:
        answer = real(*args, **kwargs)  # type: ignore[arg-type]
        if "simplereenroll" in str(args[4]) and len(lost) < 4:
            lost.append(answer.body)
            raise LostAnswerError("no answer")
        return answer

    monkeypatch.setattr(enrol_client, "_ask", loses)
    # All three tries lose their answer; the next run, perhaps days later, uses the same key.
    assert run("enroll", "--renew", "--force", "--no-echo", "--out", out).code == 1
    assert (out / "key.pem.next").exists()
    assert run("enroll", "--renew", "--force", "--no-echo", "--out", out).code == 0
    assert len(set(lost)) == 1
    assert not (out / "key.pem.next").exists()
    assert not [reason for reason, device in place.refusals() if device == "ct7"]


def test_installation_that_was_cut_off_is_finished(run: Run, place: Place, tmp_path: Path) -> None:
    out = tmp_path / "device"
    assert enrol(run, place, invite(run, place, "ct8"), out).code == 0
    certificate = (out / "cert.pem").read_bytes()
    (out / "cert.pem").rename(out / "cert.pem.new")
    (out / "cert.pem").write_bytes(b"the old one")
    assert run("enroll", "--renew", "--out", out).code == 0
    assert (out / "cert.pem").read_bytes() == certificate


def test_timer_is_printed(run: Run, tmp_path: Path) -> None:
    done = run("enroll", "--print-timer", "--out", tmp_path / "a b")
    assert "OnCalendar=" in done.out
    assert f'enroll --renew --no-echo --out "{tmp_path}/a b"' in done.out


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of units, and a systemctl that writes down what it is asked for."""
    units, tools = tmp_path / "units", tmp_path / "tools"
    units.mkdir()
    tools.mkdir()
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    (tools / "systemctl").chmod(0o755)
    # What the units start has to be there, too.
    (tools / "dicomward").write_text("#!/bin/sh\n")
    (tools / "dicomward").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(enroll, "_UNIT_DIRECTORY", units)
    monkeypatch.setattr(enroll, "_SYSTEMD_RUNS", tmp_path)
    return units


@pytest.mark.parametrize("folder", ["device", "a b", "50% $x"])
def test_timer_is_installed_and_systemd_takes_it(
    run: Run, place: Place, systemd: Path, tmp_path: Path, folder: str
) -> None:
    code = invite(run, place, f"timer{len(folder)}")
    done = enrol(run, place, code, tmp_path / folder, "--json")
    assert done.code == 0, done.err
    timer = str(done.json["timer"])
    assert sorted(path.name for path in systemd.iterdir()) == [timer.replace(".timer", ".service"), timer]
    assert (tmp_path / "asked").read_text() == f"daemon-reload\nenable --now {timer}\n"
    # A renewal says that the timer is there, and installs nothing.
    again = run("enroll", "--renew", "--force", "--no-echo", "--out", tmp_path / folder)
    assert (again.code, timer in again.out) == (0, True)
    if shutil.which("systemd-analyze") is not None:
        checked = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", systemd / timer, systemd / timer.replace(".timer", ".service")],
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{systemd}:", "SYSTEMD_LOG_LEVEL": "warning"},
            capture_output=True,
            text=True,
            check=False,
        )
        told = checked.stdout + checked.stderr
        assert [line for line in told.splitlines() if "dicomward" in line] == []


def test_timer_that_can_not_be_installed_is_no_failure(run: Run, place: Place, systemd: Path, tmp_path: Path) -> None:
    systemd.rmdir()
    done = enrol(run, place, invite(run, place, "notimer"), tmp_path / "device")
    assert done.code == 0
    assert "the timer for renewal could not be installed" in done.err
    assert "run each day: dicomward enroll --renew" in done.err


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
    from tests.io.enrolment_place import new_key, request

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


@pytest.mark.parametrize("old", [False, True])
def test_bundle_opens_with_its_passphrase(run: Run, place: Place, tmp_path: Path, old: bool) -> None:
    name, out = f"nm{old:d}", tmp_path / "device.p12"
    more = ["--old"] if old else []
    arguments = ("--aet", name.upper(), "--role", "modality", "--network", "127.0.0.1/32", "--out", out, *more)
    done = run("device", "bundle", name, *arguments, "--json")
    assert done.code == 0, done.err
    bundle = load_pkcs12(out.read_bytes(), done.json["passphrase"].encode())
    assert bundle.cert is not None
    assert bundle.cert.certificate.subject.rfc4514_string() == f"CN={name}"
    assert len(bundle.additional_certs) >= 2
    shown = subprocess.run(
        [
            "openssl",
            "pkcs12",
            "-in",
            out,
            "-nokeys",
            "-passin",
            f"pass:{done.json['passphrase']}",
            *(["-legacy"] * old),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"CN = {name}" in shown.stdout
    assert run("device", "bundle", name, "--out", out).code == 1
    assert (
        "--network" in run("device", "bundle", "nm9", "--aet", "N", "--role", "modality", "--out", tmp_path / "x").err
    )


def test_server_does_not_start_without_a_ca(run: Run, settings: object) -> None:
    done = run("enrolment", "serve")
    assert done.code == 1
    assert "the enrolment server can't start" in done.err
