"""The units: systemd reads them, its score of them, and that they fit the settings, the commands and each other."""

import configparser
import re
import shlex
import subprocess
from pathlib import Path
from typing import Final

import pytest

from dicomward.cli.main import COMMANDS
from dicomward.io.gateway.listeners import listeners_of
from dicomward.io.gateway.server import _BACKLOG
from dicomward.settings import parse_settings
from tests.docs.pages import ROOT, read
from tests.real.processes import run
from tests.real.servers import need

UNITS: Final = ROOT / "packaging" / "systemd"
SERVICES: Final = sorted(UNITS.glob("*.service"))
MOST_EXPOSURE: Final = 2.0


def section(path: Path, name: str) -> dict[str, list[str]]:
    """Return the values of each key of a section; a key may come several times."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif current == name and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units beside each other, with commands that are there."""
    directory = tmp_path_factory.mktemp("units")
    for path in UNITS.glob("dicomward*"):
        text = re.sub(r"^(ExecStart=)\S+", r"\1/bin/true", path.read_text("utf-8"), flags=re.MULTILINE)
        (directory / path.name).write_text(text, "utf-8")
    return directory


@pytest.mark.parametrize("name", sorted(path.name for path in UNITS.glob("dicomward*")))
def test_systemd_reads_it_without_a_complaint(installed: Path, name: str) -> None:
    tool = need(Path("/usr/bin/systemd-analyze"), "systemd")
    done = run(
        [tool, "verify", "--man=no", installed / name],
        environment={"SYSTEMD_UNIT_PATH": f"{installed}:", "SYSTEMD_LOG_LEVEL": "warning"},
    )
    # Without a running systemd there are complaints about other units of the machine; none may be about ours.
    assert [line for line in done.stdout.splitlines() if "dicomward" in line] == []


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_exposure_is_low(path: Path) -> None:
    tool = need(Path("/usr/bin/systemd-analyze"), "systemd")
    done = run(
        [tool, "security", "--offline=true", f"--threshold={int(MOST_EXPOSURE * 10)}", path],
        environment={"SYSTEMD_COLORS": "0", "SYSTEMD_UNIT_PATH": f"{UNITS}:"},
    )
    assert done.returncode == 0, done.stdout
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(exposure) <= MOST_EXPOSURE
    if path.name == "dicomward.service":
        assert f"gives it {exposure} " in read("packaging.md")


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_command_exists(path: Path) -> None:
    (line,) = section(path, "Service")["ExecStart"]
    program, *words = shlex.split(line)
    if program == "/usr/bin/dicomward":
        assert words[0] in COMMANDS
    else:
        assert program == "/usr/lib/dicomward/daily-backup"
        assert (UNITS / "daily-backup").stat().st_mode & 0o111


@pytest.mark.parametrize("path", sorted(UNITS.glob("*.timer")), ids=lambda path: path.stem)
def test_timer_has_its_service_and_runs_daily(path: Path) -> None:
    assert path.with_suffix(".service").exists()
    (when,) = section(path, "Timer")["OnCalendar"]
    assert re.fullmatch(r"\*-\*-\* \d\d:\d\d", when)
    assert section(path, "Timer")["Persistent"] == ["yes"]


def test_stopping_waits_for_longer_than_draining(tmp_path: Path) -> None:
    settings = parse_settings("", path=tmp_path / "dicomward.toml")
    (patience,) = section(UNITS / "dicomward.service", "Service")["TimeoutStopSec"]
    assert int(patience) > settings.gateway.drain_seconds


def test_sockets_have_the_names_of_the_listeners(tmp_path: Path) -> None:
    names = {listener.name for listener in listeners_of(parse_settings("", path=tmp_path / "dicomward.toml"))}
    sockets = {path: section(path, "Socket") for path in UNITS.glob("*.socket")}
    assert {values["FileDescriptorName"][0] for values in sockets.values()} <= names
    assert len(sockets) == 2
    for values in sockets.values():
        assert values["Service"] == ["dicomward.service"]
        assert values["Accept"] == ["no"]
        assert values["Backlog"] == [str(_BACKLOG)]


def test_every_unit_is_on_the_page() -> None:
    page = read("packaging.md")
    for path in (
        *UNITS.glob("*.socket"),
        *UNITS.glob("*.timer"),
        UNITS / "dicomward.service",
        UNITS / "dicomward-edge.service",
        UNITS / "dicomward-enrolment.service",
        UNITS / "dicomward-sync.service",
    ):
        assert f"`{path.name}`" in page


def test_nothing_starts_before_init() -> None:
    for path in (*SERVICES, *UNITS.glob("*.socket")):
        own = {"dicomward-edge": "dicomward-edge/edge.toml", "dicomward-enrolment": "dicomward-ca/dicomward.toml"}
        made = own.get(path.stem, "dicomward/dicomward.toml")
        assert section(path, "Unit")["ConditionPathExists"] == [f"/var/lib/{made}"]


def test_ini_is_well_formed() -> None:
    for path in UNITS.glob("dicomward*"):
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.read_string(path.read_text("utf-8"))
        assert "Unit" in parser


# -- the daily backup --------------------------------------------------------------------------------------------------


def daily_backup(directory: Path, tools: Path, count: int) -> "subprocess.CompletedProcess[str]":
    return run([UNITS / "daily-backup", directory, str(count)], environment={"PATH": f"{tools}:/usr/bin:/bin"})


def fake_dicomward(tools: Path, *, is_good: bool) -> None:
    tools.mkdir(exist_ok=True)
    command = tools / "dicomward"
    command.write_text(f'#!/bin/sh\n[ "$2" = verify ] && exec {"true" if is_good else "false"}\necho new >"$2"\n')
    command.chmod(0o755)


def test_only_the_newest_backups_stay(tmp_path: Path) -> None:
    directory, tools = tmp_path / "backups", tmp_path / "tools"
    directory.mkdir()
    fake_dicomward(tools, is_good=True)
    for day in range(1, 6):
        (directory / f"dicomward-2026010{day}T023000Z.tar.gz").write_text("old")
    (directory / "dicomward-important.tar.gz").write_text("mine")
    assert daily_backup(directory, tools, 3).returncode == 0
    names = sorted(path.name for path in directory.iterdir())
    assert len(names) == 4
    assert "dicomward-important.tar.gz" in names
    assert {"dicomward-20260104T023000Z.tar.gz", "dicomward-20260105T023000Z.tar.gz"} <= set(names)


def test_bad_backup_removes_no_good_one(tmp_path: Path) -> None:
    directory, tools = tmp_path / "backups", tmp_path / "tools"
    directory.mkdir()
    fake_dicomward(tools, is_good=False)
    (directory / "dicomward-20260101T023000Z.tar.gz").write_text("old")
    assert daily_backup(directory, tools, 1).returncode != 0
    assert (directory / "dicomward-20260101T023000Z.tar.gz").exists()
