"""`dicomward policy check`: say if the policy is sound."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.cli.common import add_config_argument, add_json_argument, load_settings_of, print_json
from dicomward.cli.policy_files import count, names_of, read_file, registry_of

if TYPE_CHECKING:
    from dicomward.policy.model import Policy, Problem
    from dicomward.settings import Settings


def add_arguments(check: argparse.ArgumentParser) -> None:
    """Describe the command."""
    check.add_argument("file", metavar="FILE", type=Path, nargs="?", help="the policy (default: that of the settings)")
    add_config_argument(check)
    add_json_argument(check)


def run(args: argparse.Namespace) -> int:
    """Check; see main for exit codes."""
    from dicomward.policy.lint import find_unknown_names, find_void_rules
    from dicomward.policy.load import PolicyError, load_policy

    settings: Settings | None = None
    path: Path | None = args.file
    # A file that is named stands alone, so that a draft can be checked anywhere.
    if path is None or args.config is not None:
        settings = load_settings_of(args)
        path = path or settings.policy.file
    try:
        policy = load_policy(read_file(path), source=path.name)
    except PolicyError as error:
        _print_check(args, path, None, error.problems, ())
        return 1
    warnings = policy.warnings + find_void_rules(policy)
    if settings is not None and settings.registry.snapshot.exists():
        warnings += find_unknown_names(policy, names_of(registry_of(settings)))
    _print_check(args, path, policy, (), warnings)
    return 0


def _print_check(
    args: argparse.Namespace,
    path: Path,
    policy: "Policy | None",
    problems: "tuple[Problem, ...]",
    warnings: "tuple[Problem, ...]",
) -> None:
    if args.json:
        print_json(
            {
                "file": str(path),
                "valid": policy is not None,
                "rules": 0 if policy is None else len(policy.rules),
                "revision": None if policy is None else policy.revision,
                "problems": [problem._asdict() for problem in problems],
                "warnings": [warning._asdict() for warning in warnings],
            }
        )
        return
    for warning in warnings:
        print(f"warning: {warning}")
    for problem in problems:
        print(f"error: {problem}")
    if policy is None:
        print(f"{path}: {count(len(problems), 'error')}; the gateway would not take this policy")
    else:
        print(f"{path}: sound, {count(len(policy.rules), 'rule')}, revision {policy.revision}")
