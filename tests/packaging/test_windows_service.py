"""Installing the agent on Windows, with a service manager that only remembers; `make windows-test` has a real one."""

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

SCRIPT: Final = Path(__file__).resolve().parents[2] / "packaging" / "windows" / "edge_service.py"
STOPPED, RUNNING = 1, 4


def load() -> Any:
    spec = importlib.util.spec_from_file_location("edge_service", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SERVICE: Final = load()


class Manager:
    """A service manager; who runs is what `command` names, unless it is a release that can't."""

    def __init__(self) -> None:
        self.exists = False
        self.broken = ""
        self.command = ""
        self.done: list[str] = []

    def create(self, command: str) -> None:
        self.exists, self.command = True, command
        self.done.append("create")

    def configure(self) -> None:
        self.done.append("configure")

    def set_command(self, command: str) -> None:
        self.command = command

    def start(self) -> None:
        self.done.append("start")

    def stop(self) -> None:
        self.done.append("stop")

    def remove(self) -> None:
        self.done.append("remove")

    def state(self) -> int:
        return STOPPED if self.broken and self.broken in self.running else RUNNING

    @property
    def running(self) -> str:
        return self.command.split("releases/")[1].split("/")[0] if self.command else ""


class Place:
    """A Program Files with releases, a state directory, and `dicomward edge status` answered for the manager's."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base, self.state = directory / "base", directory / "state"
        self.state.mkdir()
        (self.state / "edge.toml").touch()
        self.manager = Manager()
        self.rights: list[list[str]] = []
        self.refusing = ""
        monkeypatch.setattr(SERVICE, "STEP_SECONDS", 0.001)
        monkeypatch.setattr(SERVICE.subprocess, "run", self._run)

    def release(self, name: str) -> None:
        python = self.base / "releases" / name / "python"
        python.mkdir(parents=True)
        (python / "python.exe").touch()
        (python / "python312._pth").write_text("python312.zip\n.\n")

    def _run(self, command: list[Any], **_options: object) -> "subprocess.CompletedProcess[str]":
        if command[0] == "icacls.exe":
            self.rights.append(command)
            return subprocess.CompletedProcess(command, 0, "", "")
        release = Path(command[0]).parts[-3]
        if release == self.refusing:
            return subprocess.CompletedProcess(command, 2, "", "edge.toml: no")
        report = {"running": release == self.manager.running, "version": release}
        return subprocess.CompletedProcess(command, 0, json.dumps(report), "")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path, monkeypatch)
    made.release("0.1")
    made.release("0.2")
    return made


def install(place: Place, release: str = "0.1") -> None:
    SERVICE.install(place.manager, place.base, place.state, release)


def switch(place: Place, release: str) -> None:
    SERVICE.switch(place.manager, place.base, place.state, release)


def test_installed_service_runs_a_release_and_its_files_are_nobody_else_s(place: Place) -> None:
    install(place)
    python = place.base / "releases" / "0.1" / "python"
    assert place.manager.done == ["create", "configure", "stop", "start"]
    settings = place.state / "edge.toml"
    assert place.manager.command == (
        f'"{python / "python.exe"}" -X utf8 -m dicomward.cli.main edge service --config "{settings}"'
    )
    assert (python / "python312._pth").read_text().splitlines() == ["python312.zip", ".", "..\\lib"]
    ((_, directory, *options),) = place.rights
    assert directory == str(place.state)
    assert options[0] == "/inheritance:r"
    assert options[-1] == r"NT SERVICE\dicomward-edge:(OI)(CI)M"


@pytest.mark.parametrize(
    ("release", "prepare", "message"),
    [
        ("0.9", "", "there is no .*python.exe"),
        ("../0.1", "", "there is no .*python.exe"),
        ("0.1", "settings", "there is no .*edge.toml"),
        ("0.1", "exists", "there is a service"),
        ("0.1", "refusing", "does not start with these settings; nothing was changed: edge.toml: no"),
    ],
)
def test_what_can_not_be_installed_changes_nothing(place: Place, release: str, prepare: str, message: str) -> None:
    if prepare == "settings":
        (place.state / "edge.toml").unlink()
    place.manager.exists = prepare == "exists"
    place.refusing = "0.1" if prepare == "refusing" else ""
    with pytest.raises(SERVICE.Refused, match=message):
        install(place, release)
    assert place.manager.done == []


def test_service_that_does_not_serve_is_told(place: Place) -> None:
    place.manager.broken = "0.1"
    with pytest.raises(SERVICE.Refused, match="it does not serve"):
        install(place)


def test_update_and_the_way_back(place: Place) -> None:
    install(place)
    with pytest.raises(SERVICE.Refused, match="no release was before"):
        SERVICE.back(place.manager, place.base, place.state)
    switch(place, "0.2")
    assert place.manager.running == "0.2"
    SERVICE.back(place.manager, place.base, place.state)
    assert place.manager.running == "0.1"
    assert (place.state / "release.before").read_text() == "0.2"


def test_release_that_does_not_serve_is_left_again(place: Place) -> None:
    install(place)
    place.manager.broken = "0.2"
    with pytest.raises(SERVICE.Refused, match=r"0\.1 runs again"):
        switch(place, "0.2")
    assert place.manager.running == "0.1"
    assert (place.state / "release").read_text() == "0.1"
    place.manager.broken = "0."
    with pytest.raises(SERVICE.Refused, match="does not serve either"):
        switch(place, "0.2")


def test_release_that_does_not_take_the_settings_is_not_switched_to(place: Place) -> None:
    install(place)
    place.manager.done.clear()
    place.refusing = "0.2"
    with pytest.raises(SERVICE.Refused, match="nothing was changed"):
        switch(place, "0.2")
    assert place.manager.done == []


def test_switch_without_a_service_is_refused(place: Place) -> None:
    with pytest.raises(SERVICE.Refused, match="install it first"):
        switch(place, "0.2")


def test_key_is_sealed_and_never_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SERVICE, "protect_data", lambda data: b"sealed" + data)
    path = tmp_path / "spool.key"
    assert SERVICE.main(["seal", str(path)]) == 0
    assert len(path.read_bytes()) == 6 + 32
    assert SERVICE.main(["seal", str(path)]) == 1


@pytest.mark.parametrize("arguments", [["install"], ["back", "0.1"], ["remove", "x"], ["start"], []])
def test_wrong_usage_is_told(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        SERVICE.main(arguments)
    assert stopped.value.code == 2


def test_actions_reach_the_manager(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SERVICE, "Manager", lambda: place.manager)
    where = ["--base", str(place.base), "--state", str(place.state)]
    assert SERVICE.main(["install", "0.1", *where]) == 0
    assert SERVICE.main(["switch", "0.2", *where]) == 0
    assert SERVICE.main(["back", *where]) == 0
    assert SERVICE.main(["switch", "0.9", *where]) == 1
    assert SERVICE.main(["remove", *where]) == 0
    assert place.manager.done[-2:] == ["stop", "remove"]


def test_service_that_does_not_stop_is_removed_all_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    SERVICE.remove(place.manager, place.state)
    assert place.manager.done == []

    def stuck() -> None:
        raise SERVICE.Refused("the service has not stopped")

    install(place)
    monkeypatch.setattr(place.manager, "stop", stuck)
    SERVICE.remove(place.manager, place.state)
    assert place.manager.done[-1] == "remove"


def test_rights_that_can_not_be_set_are_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        SERVICE.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 5, "", "Access is denied.")
    )
    with pytest.raises(SERVICE.Refused, match=r"Access is denied\."):
        SERVICE.protect(place.state)
