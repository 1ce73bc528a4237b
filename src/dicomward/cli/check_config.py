"""`dicomward check-config`: everything that can be checked without starting the gateway."""

import argparse
import sys

from dicomward.cli.common import add_config_argument, add_json_argument, config_path, now, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Check settings, policy, registry, certificates and directories, and say for each problem what to do. "
        "Reads only. Exit code 0 without errors (there may be warnings), else 2."
    )
    add_config_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Check; see main for exit codes."""
    from dicomward.settings import SettingsError, load_settings

    path = config_path(args)
    try:
        settings = load_settings(path)
    except SettingsError as error:
        problems = [("error", problem.location, problem.message, problem.hint) for problem in error.problems]
    else:
        from dicomward.io.installation.check import check_configuration

        found = check_configuration(settings, now())
        problems = [(finding.severity.value, finding.location, finding.message, finding.hint) for finding in found]
    errors = sum(severity == "error" for severity, *_rest in problems)
    if args.json:
        keys = ("severity", "location", "message", "hint")
        print_json({"ok": not errors, "problems": [dict(zip(keys, problem, strict=True)) for problem in problems]})
    else:
        for severity, location, message, hint in problems:
            print(f"{severity}: {location}: {message}{f'; {hint}' if hint else ''}", file=sys.stderr)
        print(f"{path}: {errors} errors, {len(problems) - errors} warnings")
    return 2 if errors else 0
