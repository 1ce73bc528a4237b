"""`dicomward enroll`: from the code of an invitation to the files at the device, and their renewal."""

import os
import shutil
import socket
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from dicomward.cli import enroll
from dicomward.enrolment.code import make_code
from dicomward.io.ca.local import load_certificates
from dicomward.io.enrolment import client as enrol_client
from dicomward.io.enrolment.client import LostAnswerError
from tests.cli.conftest import Run
from tests.cli.enrolling import enrol, invite
from tests.directory_helpers import now
from tests.io.enrolment_place import Place, enrolment_place


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
