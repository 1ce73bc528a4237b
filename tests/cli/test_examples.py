"""Examples at the end of each command's help: every command has some, and its own parser takes them."""

import argparse
import shlex
from collections.abc import Iterator

import pytest

from dicomward.cli.examples import EXAMPLES, examples_of
from dicomward.cli.main import COMMANDS, build_parser, join_command
from tests.cli.conftest import Run


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    choices = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not choices:
        yield parser
    for action in choices:
        for child in action.choices.values():
            yield from leaves(child)


def programs(command: str) -> list[str]:
    (top,) = (each for each in build_parser(command)._actions if isinstance(each, argparse._SubParsersAction))
    return [leaf.prog.removeprefix("dicomward ") for leaf in leaves(top.choices[command])]


def test_every_command_has_examples_and_no_example_is_of_nothing() -> None:
    assert sorted(EXAMPLES) == sorted(name for command in COMMANDS for name in programs(command))


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_is_taken(line: str) -> None:
    words = join_command(shlex.split(line))
    assert build_parser(words[0]).parse_args(words).command == words[0]


def test_examples_stand_in_the_help_line_by_line(run: Run) -> None:
    done = run("device", "add", "--help")
    assert (
        "examples:\n  dicomward device add ct1 --aet CT1 --role modality --network 10.1.4.20/32 --out ct1\n" in done.out
    )
    assert "Exit codes: 0 done, 1 refused or failed, 2 usage or configuration error." in run("--help").out


def test_a_command_of_several_actions_has_none_of_its_own() -> None:
    assert examples_of("dicomward device") is None
    assert examples_of("dicomward") is None
