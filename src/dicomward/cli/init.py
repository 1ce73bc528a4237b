"""`dicomward init`: a new gateway directory."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.cli.common import (
    CONFIG_DEFAULT,
    RefusedError,
    UsageError,
    add_json_argument,
    add_operator_argument,
    now,
    operator_of,
    print_json,
    warn,
)

if TYPE_CHECKING:
    from dicomward.identity.registry import Archive
    from dicomward.settings import ListenAddress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Make a new gateway directory: settings, local CA, gateway certificates, policy, registry with one archive. "
        "Nothing is overwritten, and a failure leaves nothing behind."
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory to make")
    parser.add_argument("--pacs", metavar="AET@HOST:PORT", required=True, help="the archive behind the gateway")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", default="127.0.0.1:11112", help="where devices connect (default: %(default)s)"
    )
    parser.add_argument(
        "--archive-listen",
        metavar="HOST:PORT",
        default="127.0.0.1:11113",
        help="where archives connect (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        metavar="NAME",
        action="append",
        default=[],
        help="one more name or address under which devices reach the gateway, for its certificates",
    )
    parser.add_argument("--pacs-tls", action="store_true", help="speak mutual TLS with the archive; needs --pacs-pin")
    parser.add_argument("--pacs-pin", metavar="CERT", type=Path, help="the archive's own certificate (PEM or DER)")
    parser.add_argument(
        "--pacs-network",
        metavar="CIDR",
        action="append",
        default=[],
        help="where the archive calls from (default: its own address)",
    )
    parser.add_argument(
        "--dedicated-link",
        action="store_true",
        help="nobody else is on the link to the archive, so plaintext to another machine is allowed",
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help=f"as every command has it; here it can only be DIR/{CONFIG_DEFAULT}"
    )
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Make the directory; see main for exit codes."""
    operator = operator_of(args)
    directory: Path = args.directory
    config = directory / CONFIG_DEFAULT
    if args.config is not None and args.config.absolute() not in (directory.absolute(), config.absolute()):
        raise UsageError(f"the settings of {directory} will be in {config}, not in {args.config}; leave --config out")
    listen, archive_listen = _listen_address(args.listen), _listen_address(args.archive_listen)
    if listen == archive_listen and listen.port:
        raise UsageError(f"devices and archives can't both connect to {listen}; give --archive-listen another port")
    archive = _archive(args)
    for own in (listen, archive_listen):
        if (own.host, own.port) == (archive.endpoint.host, archive.endpoint.port):
            raise UsageError(f"the archive is at {own}, where the gateway is to listen; give one of them another port")

    from dicomward.identity.operators import OperatorError
    from dicomward.identity.registry import RegistryError
    from dicomward.io.ca.local import LocalCaError
    from dicomward.io.installation.new_directory import DirectoryTakenError, NewGateway, make_gateway_directory
    from dicomward.io.people.operators import unix_caller
    from dicomward.io.registry.change import NotInForceError
    from dicomward.io.registry.store import RegistryStoreError
    from dicomward.policy import default_policy_text

    new = NewGateway(
        archive=archive,
        listen=listen,
        archive_listen=archive_listen,
        hosts=tuple(args.host),
        policy=default_policy_text(),
        operator=operator,
        unix_user=unix_caller(directory.parent, os.environ).unix_user,
    )
    try:
        make_gateway_directory(directory, new, now())
    except (
        DirectoryTakenError,
        LocalCaError,
        NotInForceError,
        OperatorError,
        RegistryError,
        RegistryStoreError,
    ) as error:
        raise RefusedError(str(error)) from error
    _report(args, directory, archive.name)
    return 0


def _report(args: argparse.Namespace, directory: Path, archive: str) -> None:
    config = directory / "dicomward.toml"
    if args.json:
        print_json({"directory": str(directory.absolute()), "config": str(config.absolute()), "archive": archive})
        return
    print(f"made {directory}: settings, CA, certificates, policy, registry with the archive {archive}")
    print("next:")
    print(f"  dicomward device add NAME --aet AET --role modality --network CIDR --out DIR --config {config}")
    print(f"  dicomward gateway --config {config}")
    warn(f"keep {directory / 'ca'} and {directory / 'tls'} secret and backed up: who has ca.key.pem can be any device")


def _listen_address(text: str) -> "ListenAddress":
    from dicomward.settings import parse_host_port

    try:
        return parse_host_port(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _archive(args: argparse.Namespace) -> "Archive":
    """Return the archive that `--pacs` and its companions describe. Raises UsageError."""
    from dicomward.cli.archive import build_archive, name_for, parse_target

    ae_title, endpoint = parse_target(args.pacs)
    return build_archive(
        name=name_for(ae_title),
        ae_title=ae_title,
        endpoint=endpoint,
        networks=tuple(args.pacs_network),
        tls=args.pacs_tls,
        pin=args.pacs_pin,
        dedicated_link=args.dedicated_link,
        prefix="--pacs-",
    )
