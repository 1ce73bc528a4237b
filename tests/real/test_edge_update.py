"""An update of the agent as the documentation has it: two releases side by side, a link, and the way back."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.clients import Dcmtk
from tests.real.edge import Edge, Site, edge_site
from tests.real.line import Line
from tests.real.processes import REPOSITORY
from tests.real.test_edge_spool import SPOOL, copies, files, wait_for, wait_until_empty

SCRIPT = REPOSITORY / "packaging" / "edge-update"
PROGRAM = '#!/bin/sh\nPYTHONPATH="{lib}" exec "{python}" -m dicomward.cli.main "$@"\n'
RESTART = """#!/bin/sh
if [ -s "{pid}" ]; then
    old=$(cat "{pid}"); rm "{pid}"; kill "$old"
    while kill -0 "$old" 2>/dev/null; do sleep 0.05; done
fi
setsid "{base}/current/bin/dicomward" edge --config "{config}" >>"{log}" 2>&1 </dev/null &
echo $! >"{pid}"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("update")) as here:
        yield here


class Installed:
    """A directory of releases, and an agent that runs from it."""

    def __init__(self, base: Path, edge: Edge) -> None:
        self.base, self.edge = base, edge
        self._pid = base / "pid"
        (base / "releases").mkdir(parents=True)
        restart = base / "restart"
        text = RESTART.format(pid=self._pid, base=base, config=edge.configuration, log=base / "log")
        restart.write_text(text, "utf-8")
        restart.chmod(0o755)

    def release(self, version: str, *, breaks: str = "") -> None:
        """Install a release; `breaks` is what its agent does first."""
        lib = self.base / "releases" / version / "lib"
        shutil.copytree(REPOSITORY / "src", lib, ignore=shutil.ignore_patterns("__pycache__"))
        start = lib / "dicomward" / "__init__.py"
        start.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', start.read_text("utf-8")), "utf-8")
        if breaks:
            agent = lib / "dicomward" / "io" / "edge" / "agent.py"
            agent.write_text(agent.read_text("utf-8") + f"\n\n{breaks}\n", "utf-8")
        program = lib.parent / "bin" / "dicomward"
        program.parent.mkdir()
        program.write_text(PROGRAM.format(lib=lib, python=sys.executable), "utf-8")
        program.chmod(0o755)

    def update(self, *arguments: str, seconds: int = 30) -> "subprocess.CompletedProcess[str]":
        environment = {
            **os.environ,
            "BASE": str(self.base),
            "CONFIG": str(self.edge.configuration),
            "RESTART": str(self.base / "restart"),
            "SECONDS_TO_SERVE": str(seconds),
        }
        return subprocess.run(
            [str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def stop(self) -> None:
        if self._pid.exists():
            try:
                os.kill(int(self._pid.read_text()), signal.SIGTERM)
            except ProcessLookupError:
                pass


@pytest.fixture
def installed(site: Site, tmp_path: Path) -> Iterator[tuple[Installed, Line]]:
    line = Line(site.gateway.port)
    (tmp_path / "spool-key").write_bytes(bytes(range(32)))
    edge = Edge(tmp_path / "edge", line.port, site.credentials, store="spool", more=SPOOL.format(alarm=15))
    made = Installed(tmp_path / "opt", edge)
    yield made, line
    made.stop()
    line.close()


def test_update_and_way_back_lose_nothing(site: Site, installed: tuple[Installed, Line], tmp_path: Path) -> None:
    agent, line = installed
    for version in ("1.0", "1.1"):
        agent.release(version)
    (agent.base / "current").symlink_to("releases/1.0")
    assert agent.update("switch", "1.0").returncode == 0
    samples = copies(tmp_path / "images", 3)
    assert Dcmtk().store(agent.edge.route(), samples[:1]).succeeded
    wait_for(site, samples[:1])
    wait_until_empty(agent.edge)
    line.cut()
    assert Dcmtk().store(agent.edge.route(), samples[1:2]).succeeded
    done = agent.update("switch", "1.1")
    assert (done.returncode, done.stderr) == (0, "edge-update: 1.1 runs; 1.0 is kept for: edge-update back\n")
    assert Dcmtk().store(agent.edge.route(), samples[2:]).succeeded
    assert len(files(agent.edge, "ready")) == 2
    assert agent.update("back").returncode == 0
    assert (agent.base / "current").readlink() == Path("releases/1.0")
    line.mend()
    wait_for(site, samples)
    wait_until_empty(agent.edge)


def test_release_that_does_not_serve_goes_by_itself(site: Site, installed: tuple[Installed, Line]) -> None:
    agent, _line = installed
    agent.release("1.0")
    agent.release("1.1", breaks='raise SystemExit("a defect")')
    (agent.base / "current").symlink_to("releases/1.0")
    assert agent.update("switch", "1.0").returncode == 0
    done = agent.update("switch", "1.1", seconds=3)
    assert done.returncode == 1
    assert "1.1 does not serve; back to 1.0" in done.stderr
    assert "1.0 runs again" in done.stderr
    assert Dcmtk().echo(agent.edge.route()).succeeded
    assert agent.update("switch", "2.0").returncode == 2
    assert agent.update("forward").returncode == 2
