"""`dicomward edge`, but for serving: tests/real has that."""

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.io.edge.watch import STATUS_NAME
from tests.cli.conftest import Run
from tests.io.edge.place import WHO, make_spool, put
from tests.test_settings_edge import ENROLS, GOOD, SPOOL


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "edge.toml"
    path.write_text(GOOD + SPOOL, "utf-8")
    (tmp_path / "state").mkdir()
    return path


def told(directory: Path, age: float, **numbers: object) -> None:
    devices = {"ct1": {"delivered": 7, "upstream": "ok", **numbers}}
    text = json.dumps({"time": time.time() - age, "version": "1.2", "devices": devices})
    (directory / "state" / STATUS_NAME).write_text(text, "utf-8")


def test_status_of_an_agent_that_never_ran(run: Run, configuration: Path) -> None:
    done = run("edge", "status", "--config", configuration)
    assert done.code == 0
    assert done.out.splitlines() == [
        "not running",
        "ct1: 0 objects wait (0 bytes, oldest 0 s), 0 stored without commitment, 0 delivered since the start, "
        "upstream: unknown",
    ]


def test_status_tells_what_waits_and_what_runs(run: Run, configuration: Path, tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    put(spool)
    spool.store(put(spool))
    told(tmp_path, 1.0)
    done = run("edge", "status", "--config", configuration)
    assert (done.code, done.out.splitlines()[0]) == (0, "running, version 1.2")
    assert "ct1: 1 objects wait" in done.out
    assert "1 stored without commitment, 7 delivered" in done.out
    told(tmp_path, 60.0)
    assert run("edge", "status", "--config", configuration, "--json").json["running"] is False


def test_status_fails_for_what_is_in_quarantine_or_overdue(run: Run, configuration: Path, tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    spool.set_aside(put(spool), "status C000H")
    done = run("edge", "status", "--config", configuration)
    assert done.code == 1
    assert done.out.splitlines()[-1].startswith("quarantine: ct1 ")
    assert done.out.endswith(": status C000H\n")
    spool.mark_overdue([put(spool, replace(WHO, sop_instance_uid=f"1.2.{number}")) for number in range(25)])
    text = configuration.read_text("utf-8")
    configuration.write_text(text + "alarm_minutes = 0.01\n", "utf-8")
    time.sleep(0.7)
    done = run("edge", "status", "--config", configuration)
    assert done.code == 1
    assert " OVERDUE" in done.out
    assert done.out.endswith("quarantine: and 6 more; --json has all of them\n")
    report = run("edge", "status", "--config", configuration, "--json").json
    assert report["overdue"] == ["ct1"]
    assert [each["state"] for each in report["quarantine"]].count("overdue") == 25


def test_retry_sends_again_what_was_refused(run: Run, configuration: Path, tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    spool.set_aside(put(spool), "status C000H")
    done = run("edge", "retry", "--config", configuration)
    assert (done.code, done.out) == (0, "1 objects are sent again\n")
    assert run("edge", "retry", "--config", configuration, "--json").json == {"sent_again": 0}


def test_retry_needs_a_spool(run: Run, configuration: Path) -> None:
    configuration.write_text(GOOD + 'store = "pass-through"\n', "utf-8")
    done = run("edge", "retry", "--config", configuration)
    assert done.code == 1
    assert "this agent has no spool" in done.err


def test_wrong_settings_and_what_keeps_an_agent_from_starting(run: Run, configuration: Path, tmp_path: Path) -> None:
    done = run("edge", "--config", tmp_path / "none.toml")
    assert done.code == 2
    assert "it can't be read" in done.err
    done = run("edge", "run", "--config", configuration)
    assert done.code == 1
    assert "spool.key is 'credential:spool'" in done.err


def test_status_tells_of_reverse_connections(run: Run, configuration: Path, tmp_path: Path) -> None:
    line = {"parked": 2, "used": 5, "problem": "ok"}
    for told_line, text in (
        (line, "upstream: unknown, reverse connections: 2 parked, 5 used"),
        ({**line, "parked": 0, "problem": "no route"}, "reverse connections: 0 parked, 5 used (no route)"),
    ):
        status = {"time": time.time(), "version": "1.2", "devices": {}, "reverse": {"ct1": told_line}}
        (tmp_path / "state" / STATUS_NAME).write_text(json.dumps(status), "utf-8")
        done = run("edge", "status", "--config", configuration)
        assert done.out.splitlines()[1].endswith(text)
    assert run("edge", "status", "--config", configuration, "--json").json["reverse"] == {"ct1": told_line}


def test_status_tells_how_each_certificate_stands(run: Run, configuration: Path, tmp_path: Path) -> None:
    fine = {"standing": "valid", "text": "good for 59 days", "not_after": "2027-03-01T00:00:00+00:00", "problem": False}
    held = {**fine, "standing": "renewal-held", "text": "a person has to release it", "problem": True}
    none = {"standing": "no-code", "text": "", "not_after": None, "problem": True}
    for told_certificate, code, text in (
        (fine, 0, "ct1: certificate: valid until 2027-03-01: good for 59 days"),
        (held, 1, "ct1: certificate: renewal-held until 2027-03-01: a person has to release it ATTENTION"),
        (none, 1, "ct1: certificate: no-code ATTENTION"),
    ):
        status = {"time": time.time(), "version": "1.2", "devices": {}, "certificates": {"ct1": told_certificate}}
        (tmp_path / "state" / STATUS_NAME).write_text(json.dumps(status), "utf-8")
        done = run("edge", "status", "--config", configuration)
        assert (done.code, done.out.splitlines()[2]) == (code, text)
        assert run("edge", "status", "--config", configuration, "--json").code == code


def test_agent_without_certificate_and_code_says_how_to_get_one(
    run: Run, configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration.write_text(ENROLS.replace(":11112", ":0"), "utf-8")
    done = run("edge", "--config", configuration)
    assert done.code == 1
    assert "there is no certificate for ct1, and no code to get one with: start once with --code ct1=CODE" in done.err
    assert done.out == ""
    wrong = run("edge", "--config", configuration, "--code", "ABC")
    assert (wrong.code, "a code has 40 characters" in wrong.err) == (2, True)
    monkeypatch.setattr("sys.stdin", io.StringIO("ct2=ABC\n"))
    from_stdin = run("edge", "--config", configuration, "--code", "-")
    assert (from_stdin.code, "no device is called 'ct2'" in from_stdin.err) == (2, True)
    status = run("edge", "status", "--config", configuration, "--code", "ABC")
    assert (status.code, "not for `edge status`" in status.err) == (2, True)


def test_service_of_windows_is_refused_elsewhere(run: Run, configuration: Path) -> None:
    done = run("edge", "service", "--config", configuration)
    assert done.code == 2
    assert "Windows' service manager" in done.err
