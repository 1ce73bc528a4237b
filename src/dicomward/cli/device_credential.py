"""`dicomward device add` and `renew`: a device gets its key and certificate, or brings a certificate of its own."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.cli.common import (
    RefusedError,
    UsageError,
    nearest,
    now,
    parse_where_called,
    print_json,
    require,
    warn,
)
from dicomward.cli.registry_command import (
    StoredError,
    applied_to_json,
    describe_applied,
    make_change,
    principal_to_json,
    read_registry,
    unknown_name,
)

if TYPE_CHECKING:
    from dicomward.identity.registry import CertificateRecord, Device
    from dicomward.io.registry.change import Applied
    from dicomward.settings import Settings

_DEFAULT_DAYS: Final = 397


def describe_add(parser: argparse.ArgumentParser) -> None:
    """Describe `device add`."""
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
        "--address",
        metavar="HOST:PORT",
        help="where it listens as an SCP: C-MOVE destination, reports; `reverse`: over connections of its edge agent",
    )
    parser.add_argument("--plain", action="store_true", help="it can't do TLS at --address")
    group = _describe_credential(parser)
    group.add_argument(
        "--legacy",
        metavar="ZONE",
        help="it can't do TLS yet: let it call in plaintext in this legacy zone of the settings",
    )


def describe_renew(parser: argparse.ArgumentParser) -> None:
    """Describe `device renew`."""
    _describe_credential(parser)
    parser.add_argument("--revoke-old", action="store_true", help="revoke the certificates that it has now")
    parser.add_argument(
        "--keep-plaintext",
        action="store_true",
        help="a device of a legacy zone stays accepted in plaintext after its first association over TLS",
    )


def _describe_credential(parser: argparse.ArgumentParser) -> "argparse._MutuallyExclusiveGroup":
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
    return group


def add(args: argparse.Namespace, settings: "Settings") -> int:
    """Register a device."""
    from dicomward.identity.registry import Device, RegistryError

    check_role(args.role, settings)
    if args.plain and args.address is None:
        raise UsageError("--plain is about the place where the device listens; add --address HOST:PORT")
    address, is_reverse = parse_where_called(args.address) if args.address is not None else (None, False)

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
                reverse=is_reverse,
                certificates=certificates,
                legacy_zone=args.legacy or "",
            )
        except RegistryError as error:
            raise UsageError(str(error)) from error

    # Before a key is made for something that can't be registered.
    draft = describe()
    if args.legacy is not None:
        check_zone(args.legacy, settings, draft.networks)
    operator = _require_change(args, settings)

    def register(record: "CertificateRecord") -> "Applied":
        device = describe(record)
        return make_change(settings, lambda store: store.add_device(device, by=operator, at=now()))

    if args.legacy is not None:
        return _add_to_zone(args, settings, draft, operator)
    record, applied = _with_credential(args, settings, draft, register)
    if args.plain and address is not None:
        warn_of_plaintext(address.host)
    if "any" in args.network:
        warn(f'{args.name} may call from every address, because you typed "any"; name its network if you can')
    _report_credential(args, "registered", describe(record), record, applied)
    return 0


def _require_change(args: argparse.Namespace, settings: "Settings") -> str:
    from dicomward.identity.operators import Permission

    evidence = [args.certificate] if args.certificate is not None else []
    permission = Permission.LEGACY_ZONE if getattr(args, "legacy", None) else Permission.DEVICE_CHANGE
    return require(args, permission, settings=settings, evidence=evidence)


def _add_to_zone(args: argparse.Namespace, settings: "Settings", device: "Device", operator: str) -> int:
    """Register a device without a certificate."""
    applied = make_change(settings, lambda store: store.add_device(device, by=operator, at=now()))
    if args.json:
        print_json({**principal_to_json(device), "files": [], **applied_to_json(applied)})
        return 0
    print(
        f"device {device.name} registered for plaintext in the legacy zone {args.legacy}; {describe_applied(applied)}"
    )
    print(f"when it can do TLS: dicomward device renew {device.name} --out DIR")
    return 0


def check_zone(name: str, settings: "Settings", networks: tuple[str, ...]) -> None:
    """Raise UsageError for a legacy zone that the settings don't have, or that can't hold the device."""
    from dicomward.identity.zone import is_one_address

    zone = next((each.zone for each in settings.legacy_zones if each.zone.name == name), None)
    if zone is None:
        known = [each.zone.name for each in settings.legacy_zones]
        raise UsageError(f"the settings have no legacy zone {name!r}; {nearest(name, known)} (docs/moving-over.md)")
    outside = [network for network in networks if not zone.holds(network)]
    if outside:
        raise UsageError(
            f"{', '.join(outside)} is not inside the networks of the zone {name!r} ({', '.join(zone.networks)}); "
            "correct one of them"
        )
    if any(not is_one_address(network) for network in networks):
        warn("its address is what a device in plaintext is known by; name a single address, as 10.1.2.3, if you can")


def renew(args: argparse.Namespace, settings: "Settings") -> int:
    """Give a device a new certificate."""
    snapshot = read_registry(settings)
    device = snapshot.device_by_name(args.name)
    if device is None:
        raise unknown_name("device", args.name, [each.name for each in snapshot.devices])
    operator = _require_change(args, settings)

    def bind(record: "CertificateRecord") -> "Applied":
        return make_change(
            settings,
            lambda store: store.add_certificate(
                args.name,
                record,
                revoke_others=args.revoke_old,
                keep_plaintext=args.keep_plaintext,
                by=operator,
                at=now(),
            ),
        )

    record, applied = _with_credential(args, settings, device, bind)
    renewed = applied.snapshot.device_by_name(args.name) or device
    _report_credential(args, "renewed", renewed, record, applied)
    if renewed.legacy_zone and not args.json:
        until = "also after that" if renewed.legacy_always else "until its first association over TLS"
        print(f"it is accepted in plaintext in the legacy zone {renewed.legacy_zone} {until}")
    return 0


def _with_credential(
    args: argparse.Namespace,
    settings: "Settings",
    device: "Device",
    register: "Callable[[CertificateRecord], Applied]",
) -> "tuple[CertificateRecord, Applied]":
    """Make or read the device's certificate and register it; what was written goes if that is refused."""
    if args.certificate is not None:
        record = _read_certificate(args.certificate, args.name, settings)
        return record, register(record)

    from dicomward.io.ca.local import MAX_LEAF_DAYS, KeyKind, LocalCa, LocalCaError, load_certificates
    from dicomward.io.enrolment.credential_files import CredentialFilesError, credential_files

    if not 1 <= args.days <= MAX_LEAF_DAYS:
        raise UsageError(f"--days {args.days}: a life of so many days is not possible; choose 1 to {MAX_LEAF_DAYS}")
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


def _read_certificate(path: Path, name: str, settings: "Settings") -> "CertificateRecord":
    """Return the record of a certificate of the hospital's own PKI. Raises RefusedError."""
    from dicomward.io.ca.local import (
        CA_CERTIFICATE_NAME,
        LocalCaError,
        certificate_record,
        is_issued_by,
        load_certificates,
        verify_for_clients,
        verify_strength,
    )

    try:
        certificate = load_certificates(path)[0]
        authorities = load_certificates(settings.tls.client_ca)
        verify_strength(certificate)
        verify_for_clients(certificate)
        ours = [pair.certificate for pair in settings.tls.certificates]
        for own in (settings.directory / "ca" / CA_CERTIFICATE_NAME, *ours):
            if own.exists() and certificate in load_certificates(own):
                raise LocalCaError(f"that is the gateway's own {own.name}, no device's; name the certificate of {name}")
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


def check_role(role: str, settings: "Settings") -> None:
    """Raise UsageError for a role that no rule is about."""
    from dicomward.policy import PolicyError, load_policy
    from dicomward.vocab.principal import Role

    known = {each.value for each in Role}
    if role in known:
        return
    path = settings.policy.file
    try:
        policy = load_policy(path.read_text(encoding="utf-8-sig"), source=path.name)
    except (OSError, UnicodeDecodeError, PolicyError) as error:
        raise UsageError(f"{role!r} is no ready role, and the policy can't be read to look for it: {error}") from error
    known.update(*(rule.roles for rule in policy.rules if rule.roles is not None))
    if role not in known:
        raise UsageError(f"no rule of {path} names the role {role!r}; {nearest(role, sorted(known))}")


def warn_of_plaintext(host: str) -> None:
    """Warn of a device that gets images without TLS."""
    from dicomward.io.gateway.archive_link import is_loopback

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
