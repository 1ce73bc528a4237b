"""The Debian package, installed below a directory of its own: `make deb-test`.

Without a package (`DICOMWARD_DEB`) only its scripts are looked at: building one needs pip's index, and a minute.
"""

import os
import re
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import Final

import pytest

from dicomward import __version__
from tests.docs.pages import ROOT
from tests.real.processes import LOOPBACK, Child, free_port, run

SOURCES: Final = ROOT / "packaging" / "debian"
PACKAGE: Final = os.environ.get("DICOMWARD_DEB", "")
HOME: Final = "var/lib/dicomward"

built = pytest.mark.skipif(not PACKAGE, reason="no package to try: make deb-test builds one")


@pytest.mark.parametrize("name", ["build.sh", "postinst", "prerm", "postrm"])
def test_script_is_well_formed(name: str) -> None:
    shell = "bash" if name == "build.sh" else "sh"
    done = run([shell, "-n", SOURCES / name])
    assert done.returncode == 0, done.stdout


def test_what_the_build_installs_exists() -> None:
    text = (SOURCES / "build.sh").read_text("utf-8")
    for pattern in re.findall(r"(?<![\w/$])packaging/[\w./*-]+", text):
        if "$" not in pattern:
            assert list(ROOT.glob(pattern)), pattern


def test_installing_makes_a_user_for_the_gateway_and_another_one_for_the_ca(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        pytest.skip("making users needs root, and useradd")
    machine = Machine(tmp_path)
    for _ in ("install", "once more"):
        done = run(["sh", SOURCES / "postinst", "configure"], environment={"DPKG_ROOT": str(tmp_path)})
        assert done.returncode == 0, done.stdout
    lines = [each.split(":") for each in (machine.root / "etc/passwd").read_text().splitlines()]
    users = {each[0]: int(each[2]) for each in lines}
    assert sorted(users) == ["dicomward", "dicomward-ca", "root"]
    for name, mode in (("dicomward", 0o700), ("dicomward-ca", 0o711)):
        status = (tmp_path / "var/lib" / name).stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (users[name], mode)
    # The unit runs as that user, in that directory.
    unit = (ROOT / "packaging/systemd/dicomward-enrolment.service").read_text()
    assert "User=dicomward-ca\n" in unit
    assert "StateDirectory=dicomward-ca\nStateDirectoryMode=0711\n" in unit
    run(["sh", SOURCES / "postrm", "purge"], environment={"DPKG_ROOT": str(tmp_path)})
    assert list((tmp_path / "var/lib").glob("dicomward*")) == []


class Machine:
    """A directory that dpkg takes for the root of a machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "etc", "var/log"):
            (root / name).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        (root / "etc/shadow").touch()
        (root / "etc/gshadow").touch()
        (root / "etc/login.defs").write_text("SYS_UID_MIN 100\nSYS_UID_MAX 999\nSYS_GID_MIN 100\nSYS_GID_MAX 999\n")

    def dpkg(self, *words: str | Path, **environment: str) -> str:
        # Dependencies are those of the machine that runs this, not of the empty one.
        forced = ["--force-script-chrootless", "--force-depends", "--force-not-root"]
        done = run(["dpkg", f"--root={self.root}", *forced, *words], environment=environment, seconds=120)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def dicomward(self, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        return run([self.root / "usr/bin/dicomward", *words])


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    if os.geteuid() != 0:
        pytest.skip("dpkg gives files to users, which needs root")
    made = Machine(tmp_path_factory.mktemp("machine"))
    told = made.dpkg("--install", PACKAGE)
    assert "dicomward init" in told
    return made


@built
def test_install_makes_user_and_directory_and_starts_nothing(machine: Machine) -> None:
    (line,) = [each for each in (machine.root / "etc/passwd").read_text().splitlines() if each.startswith("dicomward:")]
    assert line.endswith(":/var/lib/dicomward:/usr/sbin/nologin")
    status = (machine.root / HOME).stat()
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert status.st_uid == int(line.split(":")[2])
    assert list((machine.root / HOME).iterdir()) == []
    assert not list(machine.root.rglob("*.wants"))


@built
def test_files_belong_to_root_and_nobody_else_writes_them(machine: Machine) -> None:
    for path in (machine.root / "usr").rglob("*"):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (0, 0)
        assert stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o022, path


@built
def test_command_runs_from_its_own_packages(machine: Machine) -> None:
    done = machine.dicomward("--version")
    assert done.stdout.strip() == f"dicomward {__version__}"
    text = run(
        ["/usr/bin/python3", "-I", "-c", "import dicomward"], environment={"PYTHONPATH": str(machine.root)}
    ).stdout
    assert "No module named" in text


@built
def test_gateway_is_made_and_serves(machine: Machine) -> None:
    home, port = machine.root / HOME, free_port()
    done = machine.dicomward(
        "init", home, "--pacs", f"PACS@{LOOPBACK}:{free_port()}", "--listen", f"{LOOPBACK}:{port}",
        "--archive-listen", f"{LOOPBACK}:{free_port()}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert machine.dicomward("check-config", "--config", home / "dicomward.toml").returncode == 0
    command: list[str | Path] = [machine.root / "usr/bin/dicomward", "gateway", "--config", home / "dicomward.toml"]
    gateway = Child("dicomward", command, machine.root / "gateway.log")
    try:
        gateway.wait_until_it_says(re.compile(r"^listening on ", re.MULTILINE))
        gateway.wait_until_listening(port)
    finally:
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(timeout=60) == 0
    assert "good" in machine.dicomward("audit", "verify", "--config", home / "dicomward.toml").stdout


@built
def test_upgrade_keeps_settings_and_directory(machine: Machine) -> None:
    settings = machine.root / "etc/default/dicomward"
    settings.write_text(settings.read_text() + "# mine\n")
    before = (machine.root / HOME / "dicomward.toml").read_bytes()
    told = machine.dpkg("--install", PACKAGE)
    assert "dicomward init" not in told
    assert settings.read_text().endswith("# mine\n")
    assert (machine.root / HOME / "dicomward.toml").read_bytes() == before


@built
def test_remove_keeps_everything_that_is_yours_and_purge_the_audit_log(machine: Machine) -> None:
    machine.dpkg("--remove", "dicomward")
    assert not (machine.root / "usr/bin/dicomward").exists()
    assert not (machine.root / "usr/lib/dicomward").exists()
    assert (machine.root / "etc/default/dicomward").exists()
    told = machine.dpkg("--purge", "dicomward")
    assert "stays, with the audit log and the keys" in told
    assert not (machine.root / "etc/default/dicomward").exists()
    assert list((machine.root / HOME / "audit").glob("audit-*.jsonl"))


@built
def test_purge_removes_the_directory_when_it_is_told_so(machine: Machine) -> None:
    machine.dpkg("--install", PACKAGE)
    machine.dpkg("--purge", "dicomward", DICOMWARD_PURGE="yes")
    assert not (machine.root / HOME).exists()
    assert shutil.which("dicomward", path=str(machine.root / "usr/bin")) is None
