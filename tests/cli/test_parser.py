"""The parser of all commands: what was meant is named, and common options may stand in front."""

import argparse

import pytest

from dicomward.cli.parser import Parser, common_options_last
from tests.cli.conftest import Run


@pytest.fixture
def parser() -> Parser:
    parser = Parser(prog="x")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add = actions.add_parser("add")
    add.add_argument("name", type=int, nargs="?")
    add.add_argument("--network", required=True)
    add.add_argument("--key", choices=("ecdsa", "rsa"))
    actions.add_parser("assess report")
    return parser


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ad"], "argument ACTION: there is no 'ad'; did you mean 'add'?"),
        (["asses"], "argument ACTION: there is no 'asses'; the known ones are add, assess report"),
        (["add", "--networks=x"], "required: --network; for --networks, did you mean --network?"),
        (["add", "--network=x", "--kye=rsa"], "unrecognized arguments: --kye=rsa; for --kye, did you mean --key?"),
        (["add", "--network=x", "--zzz"], "unrecognized arguments: --zzz\n"),
        (["add", "--network=x", "--key", "RSAA"], "there is no 'RSAA'; the known ones are ecdsa, rsa"),
        (["add", "--network=x", "--", "--nework"], "invalid int value: '--nework'\n"),
        (["add", "--net=x"], "required: --network; for --net, did you mean --network?"),
    ],
)
def test_what_is_wrong_is_said_with_what_was_meant(
    parser: Parser, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_what_is_right_passes(parser: Parser) -> None:
    assert parser.parse_args(["add", "3", "--network=x", "--key", "rsa"]) == argparse.Namespace(
        name=3, network="x", key="rsa"
    )


def test_the_process_gives_the_words_where_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x"])
    assert Parser(prog="x").parse_args() == argparse.Namespace()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config", "g", "device", "list"], ["device", "list", "--config", "g"]),
        (["--json", "--config=g", "--operator", "o", "a"], ["a", "--json", "--config=g", "--operator", "o"]),
        (["--config", "g", "device", "show", "--", "-x"], ["device", "show", "--config", "g", "--", "-x"]),
        (["device", "--config", "g"], ["device", "--config", "g"]),
        (["device", "--config", "g", "list"], ["device", "list", "--config", "g"]),
        (["--json", "device", "--config=g", "show", "x"], ["device", "show", "x", "--json", "--config=g"]),
        (
            ["audit", "--json", "--config", "g", "search", "--", "--json"],
            ["audit", "search", "--json", "--config", "g", "--", "--json"],
        ),
        (["device", "add", "--json", "n"], ["device", "add", "--json", "n"]),
        (["init", "--json", "d", "--pacs", "p"], ["init", "d", "--pacs", "p", "--json"]),
        (["echo", "-aet", "--json"], ["echo", "-aet", "--json"]),
        (["--version"], ["--version"]),
        (["--config", "g"], []),
        (["--config"], []),
        ([], []),
    ],
)
def test_common_options_may_stand_in_front_of_the_command_and_of_its_action(
    words: list[str], expected: list[str]
) -> None:
    assert common_options_last(words) == expected


def test_a_command_takes_the_directory_for_the_settings_in_it(run: Run, tmp_path: object) -> None:
    assert run("init", f"{tmp_path}/gw", "--pacs", "PACS@127.0.0.1:104").code == 0
    assert run("--config", f"{tmp_path}/gw", "check-config").code == 0
    assert run("check-config", "--config", f"{tmp_path}/gw").code == 0
    assert run("device", "--config", f"{tmp_path}/gw", "list").code == 0
