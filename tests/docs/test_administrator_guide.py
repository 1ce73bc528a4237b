"""docs/administrator-guide.md can be followed: its commands are run in their order, in front of DCMTK's dcmqrscp."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from dicomward.settings import parse_settings
from tests.docs.console import Site, Step, missing_line, steps_of
from tests.docs.pages import blocks_of, read
from tests.real.clients import Dcmtk, Route
from tests.real.processes import free_port
from tests.real.samples import sample
from tests.real.servers import DcmQrScp
from tests.real.test_capture import captured

pytestmark = pytest.mark.real

PAGE: Final = read("administrator-guide.md")
STEPS: Final = steps_of(PAGE)
PORTS: Final = ("2762", "9762", "10104", "11112", "11113")
# The blocks that the page gives a name; the third is for a receiver that a test can't have.
FILES: Final = {"zone.toml": 0, "budget.toml": 1}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Step, int, str]]]:
    directory: Path = tmp_path_factory.mktemp("guide")
    archive = DcmQrScp("PACS", directory / "archive", destinations={"READ1": free_port()})
    try:
        site = Site(directory, {"104": archive.port, **{shown: free_port() for shown in PORTS}})
        with captured(site.work / "day.pcap", archive.port):
            before = Route(port=archive.port, calling_ae_title="US1", called_ae_title="PACS")
            assert Dcmtk().store(before, [sample("CT_small.dcm")]).succeeded
        for name, number in FILES.items():
            (site.work / name).write_text(site.localised(blocks_of(PAGE, "toml")[number]), encoding="utf-8")
        steps = [Step(step.command, tuple(map(site.localised, step.expected))) for step in STEPS]
        yield [(step, *result) for step, result in zip(steps, site.run(steps), strict=True)]
    finally:
        archive.stop()


@pytest.mark.parametrize("number", range(len(STEPS)), ids=[step.command[:50] for step in STEPS])
def test_command_says_what_the_page_says(outcome: list[tuple[Step, int, str]], number: int) -> None:
    step, code, printed = outcome[number]
    assert missing_line(step.expected, printed) is None, f"$ {step.command}\n{printed}"
    refused = any("Rejected" in line for line in step.expected)
    assert (code != 0) == refused, f"$ {step.command}: {code}\n{printed}"


def test_settings_of_the_page_are_settings(tmp_path: Path) -> None:
    for block in blocks_of(PAGE, "toml"):
        assert tomllib.loads(block)
        parse_settings(block, path=tmp_path / "dicomward.toml")


def test_every_section_of_the_table_is_there() -> None:
    for number in range(1, 15):
        assert f"\n## {number}. " in PAGE
