"""README.md can be followed: its commands are run in its order, in front of storescp, and say what the page says."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from dicomward.settings import parse_settings
from tests.docs.console import Site, Step, missing_line, steps_of
from tests.docs.pages import README, blocks_of
from tests.real.processes import LOOPBACK, free_port
from tests.real.servers import StoreScp

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Step, int, str]]]:
    directory = tmp_path_factory.mktemp("readme")
    archive = StoreScp("PACS", directory)
    try:
        site = Site(directory, {"104": archive.port, "2762": free_port(), "11113": free_port()})
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
