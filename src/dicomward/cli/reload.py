"""`dicomward reload`: the running gateway loads settings, policy, certificates and registry again."""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    config_path,
    print_json,
    require,
)

if TYPE_CHECKING:
    from dicomward.settings import Settings

_SECONDS = 30.0
_KEPT = "kept-old"
_STATE_DIRECTORY = re.compile(r"""^\s*state_directory\s*=\s*["'](.+?)["']""", re.MULTILINE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Let the running gateway load settings, policy, certificates and registry again, as SIGHUP does; no "
        "association is dropped for it. Prints what is in force, what has changed, and what needs a restart. What is "
        "broken is kept in its old version, and the exit code is 1."
    )
    add_config_argument(parser)
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Ask the gateway; see main for exit codes."""
    from dicomward.identity.operators import Permission
    from dicomward.io.control import ControlError, call

    settings, problem = _settings(config_path(args))
    permission = Permission.POLICY_CHANGE if _has_new_policy(settings) else Permission.RELOAD
    operator = require(args, permission, settings=settings, evidence=_evidence(settings))
    directory = settings.gateway.state_directory
    try:
        answer = call(directory, {"do": "reload", "audit": {"operator": operator}}, _SECONDS)
    except ControlError as error:
        raise RefusedError(f"it is not known what is in force: {error}. See the log of the gateway") from error
    if answer is None:
        if problem is not None:
            raise UsageError(problem)
        raise RefusedError(
            f"no gateway runs on {directory}, so there is nothing to reload. It loads everything when it starts: "
            "dicomward gateway"
        )
    if args.json:
        print_json(answer)
    else:
        parts = {name: said for name, said in answer.items() if isinstance(said, dict)}
        for name, said in parts.items():
            print(f"{name}: {', '.join(_facts(said))}")
        for name, said in parts.items():
            if said.get("state") == _KEPT:
                print(f"dicomward: {name}: the old version is kept: {said.get('problem')}", file=sys.stderr)
    if "error" in answer:
        print(f"dicomward: {answer['error']}", file=sys.stderr)
    return 0 if answer.get("ok") is True else 1


def _settings(path: Path) -> tuple["Settings", str | None]:
    """Return the settings, and what is wrong with them: a broken file must not hide the gateway that runs.

    Then all but the state directory is as by default.
    """
    from dicomward.settings import SettingsError, load_settings, parse_settings

    try:
        return load_settings(path), None
    except SettingsError as error:
        problem = str(error)
    try:
        named = _STATE_DIRECTORY.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        named = None
    text = f"[gateway]\nstate_directory = {json.dumps(named[1])}\n" if named else ""
    return parse_settings(text, path=path.absolute()), problem


def _has_new_policy(settings: "Settings") -> bool:
    """Say if the file holds another policy than the one that is on record as in force; a broken one changes nothing."""
    from dicomward.io.gateway.policy_file import read_policy, recorded_revision
    from dicomward.policy import PolicyError

    try:
        revision = read_policy(settings.policy.file).revision
    except (OSError, PolicyError):
        return False
    return revision != recorded_revision(settings.gateway.state_directory)


def _evidence(settings: "Settings") -> list[Path]:
    """Return what a second operator approves: the files that are loaded, as they are now."""
    return [path for path in (settings.path, settings.policy.file) if path.exists()]


def _facts(said: Mapping[str, object]) -> Iterator[str]:
    """Describe a part: its state first, then each fact."""
    yield "kept the old version" if said.get("state") == _KEPT else str(said.get("state"))
    for key, value in said.items():
        if key in ("state", "problem") or value in ({}, []):
            continue
        label = key.replace("_", " ")
        if isinstance(value, Mapping):
            yield from (f"{name} {label} {each}" for name, each in value.items())
        elif isinstance(value, Iterable) and not isinstance(value, str):
            yield f"{label}: {' '.join(map(str, value))}"
        else:
            yield f"{label} {value}"
