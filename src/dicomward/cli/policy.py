"""`dicomward policy`: check, explain, test and compare policies; one module for each action."""

import argparse
from importlib import import_module
from typing import Final

_ACTIONS: Final = {
    "check": "say if the policy is sound; exit 1 if the gateway would not take it",
    "explain": "say what the policy decides, why, and what would have to change",
    "test": "run files of requests with expected decisions; exit 1 if one is decided otherwise",
    "suggest": "write the least rules that an observed device needs; activates nothing",
    "diff": "say what becomes allowed or denied by a new policy; exit 1 if anything becomes allowed",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = "Check, explain, test and compare policies. None of it needs a running gateway."
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, about in _ACTIONS.items():
        import_module(f"dicomward.cli.policy_{action}").add_arguments(commands.add_parser(action, help=about))


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    code: int = import_module(f"dicomward.cli.policy_{args.action}").run(args)
    return code
