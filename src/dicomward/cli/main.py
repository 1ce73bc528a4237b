"""`dicomward`: picks the command and imports only its module, so that help and the light commands start at once.

Exit codes: 0 done, 1 refused or failed, 2 usage or configuration error. Data to stdout, logs to stderr.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from dicomward import __version__
from dicomward.cli.common import CommandError
from dicomward.cli.parser import Parser, common_options_last


class Command(NamedTuple):
    """A command: the module with `add_arguments(parser)` and `run(args) -> int`, and one line of help."""

    module: str
    help: str


COMMANDS: Final[dict[str, Command]] = {
    "init": Command("dicomward.cli.init", "make a new gateway directory: configuration, CA, registry, policy"),
    "gateway": Command("dicomward.cli.gateway", "run the gateway"),
    "reload": Command("dicomward.cli.reload", "let the running gateway load its files again"),
    "check-config": Command("dicomward.cli.check_config", "check settings, policy, registry and certificates"),
    "enrolment": Command("dicomward.cli.enrolment", "run the enrolment server; invitations and waiting requests"),
    "enroll": Command("dicomward.cli.enroll", "at a device: get a certificate with a code, and renew it"),
    "device": Command("dicomward.cli.device", "register, list, suspend, resume and revoke devices"),
    "ca": Command("dicomward.cli.ca", "the certificate authority: make it, roll it over, CRLs, progress of the fleet"),
    "archive": Command("dicomward.cli.archive", "register, list and remove archives"),
    "inventory": Command("dicomward.cli.inventory", "draft a registry from a capture; list who talks in plaintext"),
    "renew-gateway": Command("dicomward.cli.renew_gateway", "give the gateway new certificates before they end"),
    "budget": Command("dicomward.cli.budget", "show and reset what devices have taken out"),
    "policy": Command("dicomward.cli.policy", "check and explain the rules"),
    "import": Command("dicomward.cli.import_", "read an Orthanc or dcm4chee configuration into a registry draft"),
    "export": Command("dicomward.cli.export", "print what an archive must know of the devices"),
    "verify-isolation": Command("dicomward.cli.verify_isolation", "see whether an archive answers others"),
    "assess": Command("dicomward.cli.assess", "see which DICOM services are open in networks that you may test"),
    "assess report": Command(
        "dicomward.cli.assess_report", "make the report, the plan, the advisories of an assessment"
    ),
    "assess worker": Command("dicomward.cli.assess_worker", "take part in an assessment that several processes share"),
    "assess --compare": Command("dicomward.cli.assess_compare", "see what has been closed between two assessments"),
    "bypass": Command("dicomward.cli.bypass", "lift policy and limits in an emergency, on record"),
    "audit": Command("dicomward.cli.audit", "search, verify, export and prune the audit log"),
    "incident": Command("dicomward.cli.incident", "list whose images a device has touched"),
    "lockdown": Command("dicomward.cli.lockdown", "leave only the clinical floor to a site"),
    "operator": Command("dicomward.cli.operator", "name the operators and give them roles"),
    "approval": Command("dicomward.cli.approval", "approve what needs a second operator"),
    "backup": Command(
        "dicomward.cli.backup", "write everything that a gateway is made of into one file, and check such a file"
    ),
    "restore": Command("dicomward.cli.restore", "make a gateway's directory from a backup"),
    "user": Command("dicomward.cli.user", "persons at devices, with passcodes of the gateway's own"),
    "edge": Command("dicomward.cli.edge", "run the agent beside a device that can speak only plaintext"),
    "echo": Command("dicomward.cli.echo", "send a C-ECHO over mutual TLS"),
}


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """Return the parser, with the arguments of one command only; the modules of the others aren't imported."""
    parser = Parser(
        prog="dicomward",
        description="An authenticated, least-privilege door in front of any DICOM archive.",
        epilog="Exit codes: 0 done, 1 refused or failed, 2 usage or configuration error.",
    )
    parser.add_argument("--version", action="version", version=f"dicomward {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, entry in COMMANDS.items():
        child = commands.add_parser(name, help=entry.help, description=f"{entry.help[0].upper()}{entry.help[1:]}.")
        if name == command:
            module = importlib.import_module(entry.module)
            module.add_arguments(child)
            child.set_defaults(run=module.run)
    return parser


def join_command(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a command of two words as one: `assess report`, or `assess … --compare`."""
    joined = list(arguments)
    first = next((number for number, word in enumerate(joined) if not word.startswith("-")), None)
    if first is None:
        return joined
    for name in COMMANDS:
        command, _, second = name.partition(" ")
        rest = joined[first + 1 :]
        if second and joined[first] == command and second in (rest if second.startswith("-") else rest[:1]):
            rest.remove(second)
            return [*joined[:first], name, *rest]
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = join_command(common_options_last(sys.argv[1:] if argv is None else argv))
    # The options in front of the command take no value, so the first other word is the command.
    command = next((word for word in arguments if not word.startswith("-")), None)
    try:
        args = build_parser(command).parse_args(arguments)
    except SystemExit as stop:
        # argparse has printed what is wrong (2), or the help (0).
        return stop.code if isinstance(stop.code, int) else 2
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except CommandError as error:
        print(f"dicomward: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        _drop_output()
        return 1
    except OSError as error:
        print(f"dicomward: {_described(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dicomward: interrupted", file=sys.stderr)
        return 1


def _described(error: OSError) -> str:
    """Return what the system said, of what, and what to do about it."""
    if error.filename is None:
        return str(error)
    return f"{error.filename}: {error.strerror}; check the path, its rights and the space on its disk, then repeat"


def _drop_output() -> None:
    """Let what is left of the output go nowhere: it must not fail once more when the process ends (`| head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
