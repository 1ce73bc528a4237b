"""`dicomward device sync`: brings into force what an enrolment server elsewhere has stored in the database."""

import argparse
import signal
import threading
from typing import TYPE_CHECKING

from dicomward.cli.common import RefusedError, print_json, require, warn

if TYPE_CHECKING:
    from dicomward.settings import Settings


def describe(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.add_argument("--follow", action="store_true", help="go on, once a second, until it is stopped")


def run(args: argparse.Namespace, settings: "Settings") -> int:
    """Do it once, or until SIGTERM or SIGINT."""
    from dicomward.identity.operators import Permission
    from dicomward.io.ca.publish import bring_into_force, follow

    require(args, Permission.RELOAD, settings=settings)
    if args.follow:
        over = threading.Event()
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda _number, _frame: over.set())
        follow(settings, over.wait, warn)
        return 0
    if (problem := bring_into_force(settings)) is not None:
        raise RefusedError(problem)
    if args.json:
        print_json({"in_force": True})
    else:
        print("everything that is stored is in force, or will be with the next start of the gateway")
    return 0
