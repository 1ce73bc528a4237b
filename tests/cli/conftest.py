"""Commands run in process, on a gateway directory of their own."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dicomward.cli import enroll
from dicomward.cli.main import main
from dicomward.settings import Settings
from tests.directory_helpers import copy_directory
from tests.io.enrolment_place import Place, enrolment_place


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SUDO_USER", "anna")
    monkeypatch.delenv("DICOMWARD_CONFIG", raising=False)

    def run_command(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run_command


@pytest.fixture
def settings(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A gateway directory with the archive PACS; commands find it by the environment."""
    made = copy_directory(tmp_path / "gateway")
    monkeypatch.setenv("DICOMWARD_CONFIG", str(made.path))
    return made


@pytest.fixture(scope="module")
def enrolment_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with enrolment_place(tmp_path_factory.mktemp("enroll") / "gateway") as made:
        yield made


@pytest.fixture
def place(enrolment_server: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A running enrolment server and its CA; commands find its gateway directory by the environment."""
    enrolment_server.server.est.forget_failures()
    monkeypatch.setenv("DICOMWARD_CONFIG", str(enrolment_server.settings.path))
    monkeypatch.setattr(enroll, "_UNIT_DIRECTORY", Path("/nonexistent"))
    return enrolment_server
