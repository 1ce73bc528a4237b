"""`dicomward device add | renew | list | show | suspend | resume | revoke`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    nearest,
    now,
    parse_endpoint,
    print_json,
    print_table,
    require,
    warn,
)
from dicomward.cli.registry_command import (
    StoredError,
    applied_to_json,
    change_to_json,
    describe_applied,
    describe_history,
    make_change,
    principal_to_json,
    read_history,
    read_registry,
    require_view,
    unknown_name,
)

if TYPE_CHECKING:
    from dicomward.identity.registry import CertificateRecord, Device, RegistrySnapshot
    from dicomward.io.registry_change import Applied
    from dicomward.io.registry_store import RegistryStore
    from dicomward.settings import Settings

_DEFAULT_DAYS: Final = 397
_STATUS_COMMANDS: Final = {
    "suspend": ("suspended", "suspend a device until it is resumed; its open associations are aborted"),
    "resume": ("active", "let a suspended device work again"),
    "revoke": ("revoked", "end a device and its certificates for good; its open associations are aborted"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = "Register devices, and end them. A command returns when its change is in force."
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _describe_add(actions.add_parser("add", help="register a device", description="Register a device."))
    text = "give a device a new key and certificate"
    child = actions.add_parser("renew", help=text, description=f"{text[0].upper()}{text[1:]}.")
    child.add_argument("name", metavar="NAME", help="its registered name")
    _describe_credential(child)
    child.add_argument("--revoke-old", action="store_true", help="revoke the certificates that it has now")
    _describe_common(child)
    for action, (_status, text) in _STATUS_COMMANDS.items():
        child = actions.add_parser(action, help=text, description=f"{text[0].upper()}{text[1:]}.")
        child.add_argument("name", metavar="NAME", help="its registered name")
        _describe_common(child)
    for action, text in (("list", "list all devices"), ("show", "show one device and its history")):
        child = actions.add_parser(action, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if action == "show":
            child.add_argument("name", metavar="NAME", help="its registered name")
        _describe_common(child)


def _describe_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name for rules, limits and the audit log")
    parser.add_argument(
        "--aet", metavar="AET", action="append", required=True, help="AE title that it calls with, and is called by"
    )
    parser.add_argument(
        "--role",
        metavar="ROLE",
        required=True,
        help="modality, uploader, workstation, archive, teleradiology, research, or a role that the policy names",
    )
    parser.add_argument(
        "--network",
        metavar="CIDR",
        action="append",
        required=True,
        help='where it may call from, as 10.1.2.0/24; everywhere only if you type "any"',
    )
    parser.add_argument("--site", metavar="SITE", default="", help="where it stands, for rules and the audit log")
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="where it listens as an SCP: C-MOVE destination, reports"
    )
    parser.add_argument("--plain", action="store_true", help="it can't do TLS at --address")
    _describe_credential(parser)
    _describe_common(parser)


def _describe_credential(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument(
        "--out", metavar="DIR", type=Path, help="make a key and write key.pem, cert.pem and ca.pem there"
    )
    group.add_argument(
        "--certificate", metavar="FILE", type=Path, help="bind this certificate of your own PKI instead (PEM or DER)"
    )
    parser.add_argument(
        "--key",
        choices=("ecdsa", "rsa"),
        default="ecdsa",
        help="kind of key for --out: rsa for old DCMTK (default: ecdsa)",
    )
    parser.add_argument(
        "--days",
        metavar="N",
        type=int,
        default=_DEFAULT_DAYS,
        help="life of the certificate for --out (default: %(default)s)",
    )


def _describe_common(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    settings = load_settings_of(args)
    match args.action:
        case "add":
            return _add(args, settings)
        case "renew":
            return _renew(args, settings)
        case "list":
            return _list(args, settings)
        case "show":
            return _show(args, settings)
        case _:
            return _set_status(args, settings)


# --- add and renew ---------------------------------------------------------------------------------------------------


def _add(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission
    from dicomward.identity.registry import Device, RegistryError

    _check_role(args.role, settings)
    if args.plain and args.address is None:
        raise UsageError("--plain is about the place where the device listens; add --address HOST:PORT")
    address = parse_endpoint(args.address) if args.address is not None else None

    def describe(*certificates: "CertificateRecord") -> Device:
        try:
            return Device(
                name=args.name,
                ae_titles=tuple(args.aet),
                role=args.role,
                site=args.site,
                networks=tuple(args.network),
                address=address,
                plain=args.plain,
                certificates=certificates,
            )
        except RegistryError as error:
            raise UsageError(str(error)) from error

    # Before a key is made for something that can't be registered.
    draft = describe()
    evidence = [args.certificate] if args.certificate is not None else []
    operator = require(args, Permission.DEVICE_CHANGE, settings=settings, evidence=evidence)

    def register(record: "CertificateRecord") -> "Applied":
        device = describe(record)
        return make_change(settings, lambda store: store.add_device(device, by=operator, at=now()))

    record, applied = _with_credential(args, settings, draft, register)
    if args.plain and address is not None:
        _warn_of_plaintext(address.host)
    if "any" in args.network:
        warn(f'{args.name} may call from every address, because you typed "any"; name its network if you can')
    _report_credential(args, "registered", describe(record), record, applied)
    return 0


def _renew(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission

    snapshot = read_registry(settings)
    device = snapshot.device_by_name(args.name)
    if device is None:
        raise unknown_name("device", args.name, [each.name for each in snapshot.devices])

    evidence = [args.certificate] if args.certificate is not None else []
    operator = require(args, Permission.DEVICE_CHANGE, settings=settings, evidence=evidence)

    def bind(record: "CertificateRecord") -> "Applied":
        return make_change(
            settings,
            lambda store: store.add_certificate(
                args.name, record, revoke_others=args.revoke_old, by=operator, at=now()
            ),
        )

    record, applied = _with_credential(args, settings, device, bind)
    renewed = applied.snapshot.device_by_name(args.name) or device
    _report_credential(args, "renewed", renewed, record, applied)
    return 0


def _with_credential(
    args: argparse.Namespace,
    settings: "Settings",
    device: "Device",
    register: "Callable[[CertificateRecord], Applied]",
) -> "tuple[CertificateRecord, Applied]":
    """Make or read the device's certificate and register it; what was written goes if that is refused."""
    if args.certificate is not None:
        record = _read_certificate(args.certificate, settings)
        return record, register(record)

    from dicomward.io.credential_files import CredentialFilesError, credential_files
    from dicomward.io.local_ca import KeyKind, LocalCa, LocalCaError, load_certificates

    try:
        authority = LocalCa.load(settings.tls.client_ca.parent)
        if authority.certificate not in load_certificates(settings.tls.client_ca):
            raise LocalCaError(
                f"{settings.tls.client_ca} does not hold the local CA, so the gateway would refuse its certificates; "
                "add the local CA there, or bind a certificate of your own PKI with --certificate FILE"
            )
        host = device.address.host if device.address is not None and not device.plain else None
        issued = authority.issue_device(
            device.name, device.ae_titles, KeyKind(args.key), now(), host=host, days=args.days
        )
        with credential_files(args.out, issued, authority.certificate_pem, keep_on=StoredError):
            return issued.record, register(issued.record)
    except (CredentialFilesError, LocalCaError) as error:
        raise RefusedError(str(error)) from error


def _read_certificate(path: Path, settings: "Settings") -> "CertificateRecord":
    """Return the record of a certificate of the hospital's own PKI. Raises RefusedError."""
    from dicomward.io.local_ca import LocalCaError, certificate_record, is_issued_by, load_certificates, verify_strength

    try:
        certificate = load_certificates(path)[0]
        authorities = load_certificates(settings.tls.client_ca)
        verify_strength(certificate)
    except LocalCaError as error:
        raise RefusedError(f"{path}: {error}") from error
    if certificate.not_valid_after_utc <= now():
        raise RefusedError(f"{path}: it ended at {certificate.not_valid_after_utc:%Y-%m-%d}; bind one that is valid")
    if not is_issued_by(certificate, authorities):
        warn(
            f"{path} is not issued directly by a CA in {settings.tls.client_ca}; the gateway takes it only if the "
            "device sends the certificates in between, or if you add its CA there"
        )
    return certificate_record(certificate)


def _check_role(role: str, settings: "Settings") -> None:
    """Raise UsageError for a role that no rule is about."""
    from dicomward.policy import PolicyError, load_policy
    from dicomward.vocab.principal import Role

    known = {each.value for each in Role}
    if role in known:
        return
    path = settings.policy.file
    try:
        policy = load_policy(path.read_text(encoding="utf-8"), source=path.name)
    except (OSError, UnicodeDecodeError, PolicyError) as error:
        raise UsageError(f"{role!r} is no ready role, and the policy can't be read to look for it: {error}") from error
    known.update(*(rule.roles for rule in policy.rules if rule.roles is not None))
    if role not in known:
        raise UsageError(f"no rule of {path} names the role {role!r}; {nearest(role, sorted(known))}")


def _warn_of_plaintext(host: str) -> None:
    from dicomward.io.archive_link import is_loopback

    if not is_loopback(host):
        warn(f"images will go to {host} in plaintext; make sure that nobody else is on that link, or give it TLS")


def _report_credential(
    args: argparse.Namespace, done: str, device: "Device", record: "CertificateRecord", applied: "Applied"
) -> None:
    files = [] if args.out is None else [str(args.out / name) for name in ("key.pem", "cert.pem", "ca.pem")]
    if args.json:
        print_json({**principal_to_json(device), "files": files, **applied_to_json(applied)})
        return
    print(f"device {device.name} {done}; {describe_applied(applied)}")
    print(f"certificate {record.sha256[:16]} is valid until {record.not_after:%Y-%m-%d}")
    if files:
        print(f"give these to the device, then delete key.pem here: {' '.join(files)}")


# --- the others ------------------------------------------------------------------------------------------------------


def _set_status(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission
    from dicomward.identity.registry import DeviceStatus

    status = DeviceStatus(_STATUS_COMMANDS[args.action][0])
    permission = Permission.DEVICE_RESUME if status is DeviceStatus.ACTIVE else Permission.DEVICE_SUSPEND
    operator = require(args, permission, settings=settings)

    def change(store: "RegistryStore") -> "RegistrySnapshot":
        return store.set_device_status(args.name, status, by=operator, at=now())

    applied = make_change(settings, change)
    if args.json:
        print_json({"name": args.name, "status": status.value, **applied_to_json(applied)})
    else:
        print(f"device {args.name} is {status.value}; {describe_applied(applied)}")
    return 0


def _list(args: argparse.Namespace, settings: "Settings") -> int:
    require_view(args, settings)
    devices = read_registry(settings).devices
    if args.json:
        print_json([principal_to_json(device) for device in devices])
        return 0
    rows = [
        (
            device.name,
            ",".join(device.ae_titles),
            device.role,
            device.site or "-",
            ",".join(device.networks),
            device.status.value,
            _ends(device),
        )
        for device in devices
    ]
    print_table(("NAME", "AE TITLES", "ROLE", "SITE", "NETWORKS", "STATUS", "CERTIFICATE UNTIL"), rows)
    return 0


def _ends(device: "Device") -> str:
    """Return the day on which its last certificate ends."""
    ends = [record.not_after for record in device.certificates if record.status == "active"]
    return f"{max(ends):%Y-%m-%d}" if ends else "-"


def _show(args: argparse.Namespace, settings: "Settings") -> int:
    require_view(args, settings)
    snapshot = read_registry(settings)
    device = snapshot.device_by_name(args.name)
    if device is None:
        raise unknown_name("device", args.name, [each.name for each in snapshot.devices])
    history = read_history(settings, device.name)
    if args.json:
        print_json({**principal_to_json(device), "history": [change_to_json(change) for change in history]})
        return 0
    from dicomward.settings import ListenAddress

    address = device.address
    where = str(ListenAddress(host=address.host, port=address.port)) if address else "-"
    print(f"device {device.name}: {device.status.value}")
    print(f"  AE titles    {', '.join(device.ae_titles)}")
    print(f"  role         {device.role}")
    print(f"  site         {device.site or '-'}")
    print(f"  calls from   {', '.join(device.networks)}")
    print(f"  listens at   {where}{' (plaintext)' if device.plain else ''}")
    for record in device.certificates:
        print(f"  certificate  {record.sha256}")
        print(f"               {record.status}, {record.not_before:%Y-%m-%d} to {record.not_after:%Y-%m-%d}")
    print("history")
    print("\n".join(describe_history(history)))
    return 0
