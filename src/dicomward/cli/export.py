"""`dicomward export`: what an archive must know of the gateway and its devices, in the archive's own format."""

import argparse
import ipaddress
import sys
from typing import TYPE_CHECKING

from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_operator_argument,
    load_settings_of,
    nearest,
    require,
    warn,
)
from dicomward.identity.dcm4chee import DEFAULT_BASE
from dicomward.identity.operators import Permission

if TYPE_CHECKING:
    from dicomward.identity.registry import Device, Endpoint, RegistrySnapshot
    from dicomward.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Print what the archive needs: every device under its own AE title, at the gateway's archive side. "
        "See docs/import-export.md."
    )
    kinds = parser.add_subparsers(dest="action", metavar="KIND", required=True)
    orthanc = kinds.add_parser("orthanc", help="DicomModalities and the security settings, JSON with comments")
    dcm4chee = kinds.add_parser("dcm4chee", help="LDIF with a device and its AEs for each device")
    dcm4chee.add_argument(
        "--base", metavar="DN", default=DEFAULT_BASE, help=f"root of the DICOM configuration (default: {DEFAULT_BASE})"
    )
    dcmtk = kinds.add_parser("dcmtk", help="the HostTable of dcmqrscp.cfg")
    for kind in (orthanc, dcm4chee, dcmtk):
        kind.add_argument(
            "--device", metavar="NAME", action="append", help="only this one (repeatable; default: all that are active)"
        )
        kind.add_argument(
            "--gateway-host",
            metavar="HOST",
            help="the gateway as the archive reaches it (default: the host of gateway.archive_listen)",
        )
        add_operator_argument(kind)
        add_config_argument(kind)


def run(args: argparse.Namespace) -> int:
    """Print the snippet; see main for exit codes."""
    from dicomward.identity.dcm4chee import write_dcm4chee
    from dicomward.identity.dcmtk import write_dcmtk
    from dicomward.identity.orthanc import write_orthanc
    from dicomward.identity.registry import RegistryError
    from dicomward.io.registry.file import read_registry

    settings = load_settings_of(args)
    require(args, Permission.VIEW, settings=settings)
    try:
        registry = read_registry(settings.registry.snapshot)
    except (OSError, RegistryError) as error:
        raise RefusedError(f"the registry can't be read: {error}") from error
    devices = _devices(registry, args.device)
    gateway = _archive_side(args, settings)
    tls = settings.gateway.archive_listen_tls
    match args.action:
        case "orthanc":
            text = write_orthanc(devices, gateway, tls=tls)
        case "dcm4chee":
            text = write_dcm4chee(devices, gateway, tls=tls, base=args.base)
        case _:
            text = write_dcmtk(devices, gateway)
            if tls:
                warn("gateway.archive_listen_tls is true, and dcmqrscp can't do TLS there")
    silent = [device.name for device in devices if not device.is_destination]
    if silent:
        warn(f"no address, so nothing can be sent there (dicomward device add --address): {', '.join(silent)}")
    sys.stdout.write(text)
    return 0


def _devices(registry: "RegistrySnapshot", names: list[str] | None) -> "list[Device]":
    if not names:
        return [device for device in registry.devices if device.is_active]
    found = []
    for name in names:
        device = registry.device_by_name(name)
        if device is None:
            raise RefusedError(
                f"there is no device {name!r}; {nearest(name, [each.name for each in registry.devices])}"
            )
        found.append(device)
    return found


def _archive_side(args: argparse.Namespace, settings: "Settings") -> "Endpoint":
    from dicomward.identity.registry import Endpoint, RegistryError

    listen = settings.gateway.archive_listen
    host = args.gateway_host or listen.host
    if args.gateway_host is None and _is_unspecified(host):
        raise UsageError(
            f"the archive side listens on every address ({listen}): name the one that the archive reaches it at, "
            "with --gateway-host HOST"
        )
    try:
        return Endpoint(host=host, port=listen.port)
    except RegistryError as error:
        raise UsageError(str(error)) from error


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
