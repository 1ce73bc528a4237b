"""Pages that can be followed: their console blocks are run in one shell, and what they show has to be printed."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.docs.pages import ROOT, blocks_of
from tests.real.samples import sample
from tests.real.servers import DCMTK, need

# Ends of jobs and lines of DCMTK that the page leaves out are no mistake; what the page shows has to come, in order.
_ANYTHING: Final = "…"
_DCMTK: Final = ("echoscu", "storescu", "findscu", "storescp", "dcmqrscp", "movescu", "getscu")
_MARK: Final = "@@@ command"


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the page, and the lines that the page shows below it."""

    command: str
    expected: tuple[str, ...]


def steps_of(text: str) -> list[Step]:
    """Return the commands of all console blocks of a page."""
    steps: list[Step] = []
    for block in blocks_of(text, "console"):
        command, shown = "", list[str]()
        for line in [*block.splitlines(), "$ "]:
            if not line.startswith("$ "):
                shown.append(line)
                continue
            if command:
                steps.append(Step(command, tuple(shown)))
            command, shown = line[2:], []
    return steps


def pattern_of(line: str) -> "re.Pattern[str]":
    """Return what a shown line stands for: … is anything."""
    return re.compile(".*".join(re.escape(part) for part in line.rstrip().split(_ANYTHING)) + r"\s*\Z")


def missing_line(shown: tuple[str, ...], printed: str) -> str | None:
    """Return the first shown line that wasn't printed after those before it."""
    lines = iter(printed.splitlines())
    for line in shown:
        pattern = pattern_of(line)
        if line.strip() != _ANYTHING and not any(pattern.match(each) for each in lines):
            return line
    return None


class Site:
    """A machine as a page assumes it: its ports (here other ones), DCMTK and dicomward on the path, an image.

    A job in the background has started when one of its ports in `serving` (by a word of its command) is open.
    """

    def __init__(
        self,
        directory: Path,
        ports: Mapping[str, int],
        *,
        tools: tuple[Path, ...] = (),
        serving: Mapping[str, str] | None = None,
        seconds: float = 240.0,
    ) -> None:
        self.directory = directory
        self._ports = {shown: str(port) for shown, port in ports.items()}
        self._serving = serving or {}
        self._seconds = seconds
        tools_directory = directory / "bin"
        tools_directory.mkdir()
        shim = tools_directory / "dicomward"
        shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m dicomward.cli.main "$@"\n')
        shim.chmod(0o755)
        for tool in (*(need(DCMTK / name, "dcmtk") for name in _DCMTK), *tools):
            (tools_directory / tool.name).symlink_to(tool)
        self.work = directory / "work"
        self.work.mkdir()
        (self.work / "image.dcm").write_bytes(sample("CT_small.dcm").path.read_bytes())
        self._tools = tools_directory

    def localised(self, text: str) -> str:
        """Return text with this machine's ports in place of the page's."""
        shown = "|".join(self._ports)
        return re.sub(rf"(?<=[: ])(?:{shown})(?!\d)", lambda match: self._ports[match[0]], text)

    def _started(self, command: str) -> str:
        """Return the test in the shell for a job that serves."""
        port = next((self._ports[shown] for word, shown in self._serving.items() if word in command), None)
        return 'grep -q "^listening" "$LOG"' if port is None else f"(: <>/dev/tcp/127.0.0.1/{port}) 2>/dev/null"

    def run(self, steps: list[Step]) -> list[tuple[int, str]]:
        """Run all commands in one shell; return the exit code and the output of each."""
        log = self.directory / "output"
        script = ["set -m"]
        for step in steps:
            command = self.localised(step.command)
            script.append(f"echo {shlex.quote(_MARK)}")
            script.append(command)
            script.append('code=$?; echo; echo "@@@ code $code"')
            if command.endswith("&"):
                script[-1] = f'until {self._started(command)} || ! kill -0 $!; do sleep 0.05; done; echo "@@@ code 0"'
        script += ["kill $(jobs -p) 2>/dev/null", "wait"]
        with log.open("wb") as output:
            subprocess.run(
                ["bash", "-c", "\n".join(script)],
                cwd=self.work,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=self._seconds,
                check=False,
                env={
                    **os.environ,
                    "PATH": f"{self._tools}:{os.environ['PATH']}",
                    "PYTHONPATH": str(ROOT / "src"),
                    "LOG": str(log),
                    "PYTHONUNBUFFERED": "1",
                    "TCP_NODELAY": "1",
                },
            )
        parts = log.read_text("utf-8", "replace").split(f"{_MARK}\n")[1:]
        results: list[tuple[int, str]] = []
        for part in parts:
            printed, _, rest = part.partition("@@@ code ")
            results.append((int(rest.split()[0]) if rest else -1, printed))
        return results
