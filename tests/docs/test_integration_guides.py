"""The integration guides can be followed: their commands are run in their order, and say what the pages say."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from dicomward.cli.main import build_parser
from tests.docs.console import Site, Step, missing_line, steps_of
from tests.docs.pages import blocks_of, read
from tests.real.processes import free_port
from tests.real.servers import ORTHANC, need

pytestmark = pytest.mark.real

STUNNEL: Final = Path("/usr/bin/stunnel")


@dataclass(frozen=True, slots=True)
class Guide:
    """A page, the blocks of it that are files (language, number, name), its ports and what listens where."""

    page: str
    files: tuple[tuple[str, int, str], ...]
    ports: tuple[str, ...]
    serving: dict[str, str]
    tools: tuple[tuple[Path, str], ...]


GUIDES: Final = (
    Guide(
        page="integration-orthanc.md",
        files=(("json", 0, "orthanc.json"), ("ini", 0, "stunnel.conf")),
        ports=("2762", "4242", "8042", "10104", "11111", "11112", "11113"),
        serving={"Orthanc": "4242", "storescp": "11112", "stunnel": "10104"},
        tools=((ORTHANC, "orthanc"), (STUNNEL, "stunnel4")),
    ),
    Guide(
        page="integration-dcmtk.md",
        files=(("cfg", 0, "head.cfg"), ("cfg", 1, "tail.cfg"), ("ini", 0, "stunnel.conf")),
        ports=("2762", "4243", "10105", "11112", "11113"),
        serving={"dcmqrscp": "4243", "storescp": "11112", "stunnel": "10105"},
        tools=((STUNNEL, "stunnel4"),),
    ),
    Guide(
        page="integration-dcm4chee.md",
        files=(),
        ports=("2762", "11104", "11112", "11113"),
        serving={},
        tools=(),
    ),
)
STEPS: Final = [(guide, number) for guide in GUIDES for number in range(len(steps_of(read(guide.page))))]


def follow(guide: Guide, directory: Path) -> list[tuple[Step, int, str]]:
    site = Site(
        directory,
        {shown: free_port() for shown in guide.ports},
        tools=tuple(need(path, package) for path, package in guide.tools),
        serving=guide.serving,
    )
    text = read(guide.page)
    for language, number, name in guide.files:
        (site.work / name).write_text(site.localised(blocks_of(text, language)[number]), encoding="utf-8")
    steps = [Step(step.command, tuple(map(site.localised, step.expected))) for step in steps_of(text)]
    return [(step, *result) for step, result in zip(steps, site.run(steps), strict=True)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Step, int, str]]]:
    return {guide.page: follow(guide, tmp_path_factory.mktemp("guide")) for guide in GUIDES}


@pytest.mark.parametrize(("guide", "number"), STEPS, ids=[f"{guide.page}-{number}" for guide, number in STEPS])
def test_command_says_what_the_page_says(
    outcomes: dict[str, list[tuple[Step, int, str]]], guide: Guide, number: int
) -> None:
    step, code, printed = outcomes[guide.page][number]
    assert missing_line(step.expected, printed) is None, f"$ {step.command}\n{printed}"
    refused = any("rejected" in line.lower() or "Refused" in line for line in step.expected)
    assert (code != 0) == refused, f"$ {step.command}: {code}\n{printed}"


@pytest.mark.parametrize("page", [*(guide.page for guide in GUIDES), "cookbook.md", "policy.md"])
def test_commands_that_are_only_shown_exist(page: str) -> None:
    for block in blocks_of(read(page), "sh"):
        for line in block.splitlines():
            if line.startswith("dicomward "):
                words = shlex.split(line.partition(" > ")[0])[1:]
                build_parser(words[0]).parse_args(words)
