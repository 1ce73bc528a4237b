"""README.md can be followed: its commands are run in its order, in front of storescp, and say what the page says."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from dicomward.settings import parse_settings
from tests.docs.pages import README, ROOT, blocks_of
from tests.real.processes import LOOPBACK, free_port
from tests.real.samples import sample
from tests.real.servers import DCMTK, StoreScp, need

pytestmark = pytest.mark.real

# Ends of jobs and lines of DCMTK that the page leaves out are no mistake; what the page shows has to come, in order.
_ANYTHING: Final = "…"
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
    """A machine as the page assumes it: a PACS on its own port, DCMTK and dicomward on the path, an image."""

    def __init__(self, directory: Path, pacs_port: int) -> None:
        self.directory = directory
        self._ports = {"104": str(pacs_port), "2762": str(free_port()), "11113": str(free_port())}
        tools = directory / "bin"
        tools.mkdir()
        shim = tools / "dicomward"
        shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m dicomward.cli.main "$@"\n')
        shim.chmod(0o755)
        for name in ("storescu", "findscu"):
            (tools / name).symlink_to(need(DCMTK / name, "dcmtk"))
        self.work = directory / "work"
        self.work.mkdir()
        (self.work / "image.dcm").write_bytes(sample("CT_small.dcm").path.read_bytes())
        self._tools = tools

    def localised(self, text: str) -> str:
        """Return text with this machine's ports in place of the page's."""
        return re.sub(r"(?<=[: ])(?:104|2762|11113)(?!\d)", lambda match: self._ports[match[0]], text)

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
                script[-1] = 'until grep -q "^listening" "$LOG" || ! kill -0 %1; do sleep 0.05; done; echo "@@@ code 0"'
        script.append("wait")
        with log.open("wb") as output:
            subprocess.run(
                ["bash", "-c", "\n".join(script)],
                cwd=self.work,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=90,
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


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Step, int, str]]]:
    directory = tmp_path_factory.mktemp("readme")
    archive = StoreScp("PACS", directory)
    try:
        site = Site(directory, archive.port)
        steps = [Step(step.command, tuple(map(site.localised, step.expected))) for step in steps_of(README)]
        yield [(step, *result) for step, result in zip(steps, site.run(steps), strict=True)]
    finally:
        archive.stop()


STEPS: Final = steps_of(README)


def test_page_shows_commands_with_their_answers() -> None:
    assert len(STEPS) > 15
    assert sum(bool(step.expected) for step in STEPS) > 12


@pytest.mark.parametrize("number", range(len(STEPS)), ids=[step.command[:40] for step in STEPS])
def test_command_says_what_the_page_says(outcome: list[tuple[Step, int, str]], number: int) -> None:
    step, _code, printed = outcome[number]
    assert missing_line(step.expected, printed) is None, f"$ {step.command}\n{printed}"


def test_exit_codes_are_those_of_the_page(outcome: list[tuple[Step, int, str]]) -> None:
    """What the page shows as refused ends with 1 (findscu: with a code of its own), everything else with 0."""
    for step, code, printed in outcome:
        refused = any("rejected" in line.lower() or "closed the connection" in line for line in step.expected)
        assert (code != 0) == refused, f"$ {step.command}: {code}\n{printed}"
        if step.command.startswith("dicomward") and refused:
            assert code == 1


def test_settings_of_the_page_are_settings(tmp_path: Path) -> None:
    (block,) = blocks_of(README, "toml")
    assert parse_settings(block, path=tmp_path / "dicomward.toml").gateway.listen.port == 2762
    assert tomllib.loads(block)["gateway"]


def test_nothing_of_the_page_listens_beyond_loopback() -> None:
    """Only directories that are made and never served may name other addresses."""
    started = [step.command for step in STEPS if step.command.startswith("dicomward gateway")]
    assert len(started) == 1
    assert f"--listen {LOOPBACK}:2762" in STEPS[0].command
