"""The front of the command line: light, helpful, with the exit codes of its contract."""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tools.generate_reference_docs import CLI_PAGE, render_cli, replace_generated

import dicomward
from dicomward.cli import main as module
from dicomward.cli.common import (
    CommandError,
    RefusedError,
    UsageError,
    nearest,
    operator_of,
    parse_endpoint,
    print_json,
    print_table,
)
from dicomward.cli.main import COMMANDS, build_parser, main
from dicomward.identity.registry import Endpoint
from tests.cli.conftest import Run

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(dicomward.__file__).parents[1])}


def python(*arguments: str, stdout: int = subprocess.PIPE) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=ENVIRONMENT
    )


def test_help_lists_every_command(run: Run) -> None:
    done = run("--help")
    assert done.code == 0
    for name, command in COMMANDS.items():
        assert name in done.out
        assert command.help.split()[0] in done.out
    assert "Exit codes: 0 done, 1 refused or failed, 2 usage or configuration error." in done.out


def test_version_is_printed(run: Run) -> None:
    done = run("--version")
    assert (done.code, done.out) == (0, f"dicomward {dicomward.__version__}\n")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(run: Run, name: str) -> None:
    done = run(name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"usage: dicomward {name}")


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["--no-such-option"], ["device", "list", "--jso"]])
def test_usage_error_is_2_and_on_stderr(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert "usage: dicomward" in done.err


def test_arguments_come_from_the_process_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["dicomward", "--version"])
    assert main() == 0


def with_command(monkeypatch: pytest.MonkeyPatch, run: object) -> None:
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--name")

    monkeypatch.setitem(COMMANDS, "fake", module.Command("dicomward.cli.fake", "fake it"))
    monkeypatch.setitem(sys.modules, "dicomward.cli.fake", SimpleNamespace(add_arguments=add_arguments, run=run))


def test_command_gets_its_arguments_and_gives_its_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with_command(monkeypatch, lambda args: 7 if args.name == "x" else 8)
    assert run("fake", "--name", "x").code == 7


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RefusedError("no"), 1, "dicomward: no\n"),
        (UsageError("wrong"), 2, "dicomward: wrong\n"),
        (CommandError("failed"), 1, "dicomward: failed\n"),
        (OSError(28, "No space left on device"), 1, "dicomward: [Errno 28] No space left on device\n"),
        (
            PermissionError(13, "Permission denied", "/x"),
            1,
            "dicomward: /x: Permission denied; check the path, its rights and the space on its disk, then repeat\n",
        ),
        (KeyboardInterrupt(), 1, "dicomward: interrupted\n"),
    ],
)
def test_errors_become_exit_codes(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def fail(_args: argparse.Namespace) -> int:
        raise error

    with_command(monkeypatch, fail)
    done = run("fake")
    assert (done.code, done.out, done.err) == (code, "", message)


def test_defect_of_ours_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_args: argparse.Namespace) -> int:
        raise ZeroDivisionError

    with_command(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError):
        run("fake")


def test_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    code = (
        "import sys, types, argparse\n"
        "from dicomward.cli import main\n"
        "fake = types.SimpleNamespace(add_arguments=lambda parser: None, run=lambda args: print('x' * 10**6) or 0)\n"
        "sys.modules['fake'] = fake\n"
        "main.COMMANDS['fake'] = main.Command('fake', 'fake it')\n"
        "sys.exit(main.main(['fake']))\n"
    )
    read, write = os.pipe()
    os.close(read)
    try:
        done = python("-c", code, stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_what_is_left_for_a_reader_that_went_away_is_dropped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_args: argparse.Namespace) -> int:
        raise BrokenPipeError

    dropped: list[bool] = []
    with_command(monkeypatch, fail)
    monkeypatch.setattr(module, "_drop_output", lambda: dropped.append(True))
    done = run("fake")
    assert (done.code, done.err) == (1, "")
    assert dropped == [True]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["echo", "--help"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from dicomward.cli.main import main\n"
        f"main({arguments})\n"
        "heavy = ('sqlalchemy', 'alembic', 'cryptography', 'pydicom', 'asyncio', 'dicomward.settings')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = python("-c", code)
    assert done.stdout.endswith("\n[]\n"), done.stdout


def test_runs_as_a_module() -> None:
    done = python("-m", "dicomward.cli.main", "--version")
    assert (done.returncode, done.stdout) == (0, f"dicomward {dicomward.__version__}\n")


def test_only_the_chosen_command_is_described() -> None:
    assert "--archive-listen" not in build_parser(None).format_help()


# --- what commands share ---


@pytest.mark.parametrize("kind", ["argument", "environment", "here"])
def test_settings_file_is_found(
    run: Run, settings: object, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "gateway"
    if kind != "environment":
        monkeypatch.setenv("DICOMWARD_CONFIG", "" if kind == "here" else "/nowhere/dicomward.toml")
    if kind == "here":
        monkeypatch.chdir(directory)
    options = ["--config", directory / "dicomward.toml"] if kind == "argument" else []
    assert run("device", "list", *options).code == 0


def test_missing_settings_file_is_a_configuration_error(run: Run, tmp_path: Path) -> None:
    done = run("device", "list", "--config", tmp_path / "dicomward.toml")
    assert done.code == 2
    assert "there is no such file; name it with --config FILE, or make one with: dicomward init" in done.err


def operator(name: str | None = None) -> str:
    return operator_of(argparse.Namespace(operator=name))


def test_operator_is_who_typed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    assert operator("bert") == "bert"
    assert operator() == "anna"
    monkeypatch.delenv("SUDO_USER")
    monkeypatch.setenv("USER", "somebody-else")
    import pwd

    assert operator() == pwd.getpwuid(os.getuid()).pw_name


def test_operator_without_a_login_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)

    def unknown(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert operator() == f"uid {os.getuid()}"


@pytest.mark.parametrize("name", ["", "a" * 65, "two\nlines"])
def test_operator_that_cannot_be_recorded_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="1 to 64 printable characters; write it with --operator"):
        operator(name)


def test_endpoint_is_read() -> None:
    assert parse_endpoint("[2001:db8::1]:104") == Endpoint(host="2001:db8::1", port=104)


@pytest.mark.parametrize("text", ["host", "host:0", "host:70000"])
def test_endpoint_that_cannot_be_dialled_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_endpoint(text)


def test_nearest_name_is_named() -> None:
    assert nearest("ct", ["ct1", "ws1"]) == "did you mean 'ct1'?"
    assert nearest("CT1", ["ct1", "ws1"]) == "did you mean 'ct1'?"
    assert nearest("zzz", ["ct1", "ws1"]) == "the known ones are ct1, ws1"
    hint = nearest("zzz", [f"ct{number}" for number in range(25)])
    assert hint.endswith("ct18, ct19 and 5 more")
    assert nearest("zzz", []) == "there is none yet"


def test_table_columns_are_as_wide_as_they_must_be(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "LONG"), [("aaa", "b"), ("a", "b")])
    assert capsys.readouterr().out == "A    LONG\naaa  b\na    b\n"


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "Röntgen"})
    assert capsys.readouterr().out == '{"name": "Röntgen"}\n'


def test_docs_list_every_argument() -> None:
    page = CLI_PAGE.read_text(encoding="utf-8")
    assert page == replace_generated(page, render_cli()), "run: python tools/generate_reference_docs.py"
