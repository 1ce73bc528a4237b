"""The service by Windows' own Python and Wine's service manager: installed, used, updated, put back, removed.

`make windows-test` prepares that (DICOMWARD_WINDOWS). Without it nothing here runs: Wine takes 700 MB of a machine.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from dicomward import __version__
from tests.real.clients import Dcmtk
from tests.real.edge import Edge, Site, edge_site
from tests.real.processes import REPOSITORY, Child
from tests.real.test_edge_spool import copies, wait_for

WINDOWS: Final = Path(os.environ.get("DICOMWARD_WINDOWS", ""))
pytestmark = pytest.mark.skipif(
    "DICOMWARD_WINDOWS" not in os.environ, reason="no Windows' Python here; make windows-test prepares one"
)
SCRIPT: Final = REPOSITORY / "packaging" / "windows" / "edge_service.py"
SPOOL: Final = """
[spool]
directory = "spool"
key = "dpapi:spool.key"
free_bytes = 0
"""


def python(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [WINDOWS / "python", *arguments], capture_output=True, text=True, errors="replace", timeout=180, check=False
    )


def service(place: Edge, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return python(SCRIPT, *arguments, "--base", WINDOWS, "--state", place.directory)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("windows")) as here:
        yield here


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep Wine's session open: it ends its services when the last other process has ended."""
    command: list[str | Path] = [WINDOWS / "python", "-c", "import time; print('open', flush=True); time.sleep(900)"]
    child = Child("wine", command, tmp_path_factory.mktemp("session") / "session.log")
    child.wait_until_it_says(re.compile("open"))
    yield
    child.stop()


@pytest.fixture
def place(site: Site, session: None, tmp_path: Path) -> Iterator[Edge]:
    edge = Edge(tmp_path / "edge", site.gateway.port, site.credentials, store="spool", more=SPOOL)
    yield edge
    service(edge, "remove")
    for release in (WINDOWS / "releases").iterdir():
        if release.name.startswith("9."):
            shutil.rmtree(release)


def other_release(version: str, *, works: bool = True) -> None:
    """Make a release of another version."""
    shutil.copytree(WINDOWS / "releases" / __version__, WINDOWS / "releases" / version)
    package = WINDOWS / "releases" / version / "lib" / "dicomward"
    init = package / "__init__.py"
    init.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', init.read_text("utf-8")), "utf-8")
    if not works:
        (package / "io" / "edge" / "agent.py").write_text("raise SystemExit(3)\n", "utf-8")


def test_service_is_installed_used_updated_put_back_and_removed(site: Site, place: Edge, tmp_path: Path) -> None:
    release = __version__
    samples = copies(tmp_path / "images", 4)
    # Settings are looked at before anything is made.
    right = place.configuration.read_text("utf-8")
    place.configuration.write_text(right + "nonsense = 1\n", "utf-8")
    refused = service(place, "install", release)
    assert (refused.returncode, "spool.nonsense" in refused.stderr) == (1, True), refused.stderr
    place.configuration.write_text(right, "utf-8")
    sealed = python(SCRIPT, "seal", place.directory / "spool.key")
    assert sealed.returncode == 0, sealed.stderr
    assert len((place.directory / "spool.key").read_bytes()) > 32

    installed = service(place, "install", release)
    assert f"{release} runs" in installed.stderr, installed.stderr + log(place)
    assert service(place, "install", release).returncode == 1
    assert Dcmtk().echo(place.route()).succeeded
    assert Dcmtk().store(place.route(), samples[:2]).succeeded
    wait_for(site, samples[:2])
    assert "listening on" in log(place)

    other_release("9.1")
    switched = service(place, "switch", "9.1")
    assert "9.1 runs" in switched.stderr, switched.stderr + log(place)
    assert Dcmtk().store(place.route(), samples[2:3]).succeeded

    other_release("9.2", works=False)
    broken = service(place, "switch", "9.2")
    assert (broken.returncode, "9.1 runs again" in broken.stderr) == (1, True), broken.stderr
    assert Dcmtk().store(place.route(), samples[3:]).succeeded

    back = service(place, "back")
    assert f"{release} runs" in back.stderr, back.stderr
    wait_for(site, samples)
    removed = service(place, "remove")
    assert (removed.returncode, "removed" in removed.stderr) == (0, True)
    assert not Dcmtk().echo(place.route()).succeeded


def test_agent_in_a_console_is_no_service(place: Edge) -> None:
    done = python("-m", "dicomward.cli.main", "edge", "service", "--config", place.configuration)
    assert (done.returncode, "only Windows' service manager" in done.stderr) == (1, True), done.stderr


def log(place: Edge) -> str:
    path = place.directory / "edge.log"
    return path.read_text("utf-8", "replace") if path.exists() else ""
