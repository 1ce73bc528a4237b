"""`dicomward reload`."""

import json
from pathlib import Path

import pytest

from dicomward.cli.main import main
from dicomward.io.control import Answer, ControlServer
from tests.directory_helpers import copy_directory

OK: Answer = {
    "ok": True,
    "settings": {
        "state": "changed",
        "changed": ["gateway.idle_seconds", "limits"],
        "needs_restart": ["gateway.listen"],
    },
    "policy": {"state": "changed", "revision": "abc", "before": "def"},
    "certificates": {"state": "unchanged", "not_after": {"tls/a.pem": "2027-01-01T00:00:00+00:00"}},
    "registry": {"state": "unchanged", "revision": 7},
}


class Running:
    """A control socket that answers what a test wants."""

    def __init__(self, directory: Path) -> None:
        self.settings = copy_directory(directory)
        self.settings.gateway.state_directory.mkdir(mode=0o700, exist_ok=True)
        self.requests: list[Answer] = []
        self.answer: Answer = OK
        self.server = ControlServer(self.settings.gateway.state_directory, self.handle)
        self.server.start()

    def handle(self, request: Answer) -> Answer:
        self.requests.append(request)
        return self.answer

    def run(self, *options: str) -> int:
        return main(["reload", "--config", str(self.settings.path), *options])


@pytest.fixture
def running(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = Running(tmp_path / "gateway")
    yield made
    made.server.stop()


def test_it_prints_what_is_in_force(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert running.run("--operator", "anna") == 0
    assert running.requests == [{"do": "reload", "audit": {"operator": "anna"}}]
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "settings: changed, changed: gateway.idle_seconds limits, needs restart: gateway.listen",
        "policy: changed, revision abc, before def",
        "certificates: unchanged, tls/a.pem not after 2027-01-01T00:00:00+00:00",
        "registry: unchanged, revision 7",
    ]
    assert printed.err == ""


def test_json_is_the_answer(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert running.run("--json") == 0
    assert json.loads(capsys.readouterr().out) == OK


def test_what_is_broken_is_said_and_exits_with_1(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    running.answer = {"ok": False, "policy": {"state": "kept-old", "problem": "line 3: no such key", "revision": "abc"}}
    assert running.run() == 1
    printed = capsys.readouterr()
    assert printed.out == "policy: kept the old version, revision abc\n"
    assert printed.err == "dicomward: policy: the old version is kept: line 3: no such key\n"


def test_error_of_the_gateway_exits_with_1(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    running.answer = {"ok": False, "error": "the audit log could not be written"}
    assert running.run() == 1
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[gateway\n", '[gateway]\nstate_directory = "elsewhere"\nidle_second = 5\n'])
def test_broken_settings_do_not_hide_the_gateway(running: Running, text: str) -> None:
    if "elsewhere" in text:
        run = running.settings.gateway.state_directory
        run.rename(run.with_name("elsewhere"))
    running.settings.path.write_text(text, encoding="utf-8")
    assert running.run() == 0
    assert len(running.requests) == 1


def test_without_a_gateway_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = copy_directory(tmp_path / "gateway")
    assert main(["reload", "--config", str(settings.path)]) == 1
    assert "no gateway runs" in capsys.readouterr().err
    settings.path.write_text("[gateway\n", encoding="utf-8")
    assert main(["reload", "--config", str(settings.path)]) == 2
    assert "not TOML" in capsys.readouterr().err
    assert main(["reload", "--config", str(tmp_path / "nowhere.toml")]) == 2
