"""`dicomward device import | legacy | observe | enforce | rollback`: moving over from plaintext, device by device."""

import argparse
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomward.cli.common import RefusedError, UsageError, now, parse_when, print_json, require, warn
from dicomward.cli.device_credential import check_role, check_zone
from dicomward.cli.registry_command import (
    applied_to_json,
    describe_applied,
    make_change,
    principal_to_json,
    read_registry,
    require_view,
    unknown_name,
)

if TYPE_CHECKING:
    from dicomward.identity.registry import Archive, Device, RegistrySnapshot
    from dicomward.io.registry.change import Applied
    from dicomward.io.registry.store import RegistryStore
    from dicomward.settings import Settings

OBSERVE_DAYS: Final = 30


class Action(NamedTuple):
    """One action of `dicomward device`."""

    help: str
    describe: Callable[[argparse.ArgumentParser], None]
    run: "Callable[[argparse.Namespace, Settings], int]"


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="its registered name")


# --- import ----------------------------------------------------------------------------------------------------------


def _describe_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("draft", metavar="DRAFT", type=Path, help="a registry draft (docs/registry-draft.md)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be registered, and register nothing")
    parser.add_argument(
        "--legacy", metavar="ZONE", help="let the devices of the draft call in plaintext in this legacy zone"
    )


def _import(args: argparse.Namespace, settings: "Settings") -> int:
    from dataclasses import replace

    from dicomward.identity.draft import DraftError, parse_draft, principals_of
    from dicomward.identity.operators import Permission
    from dicomward.identity.registry import RegistryError

    try:
        draft = parse_draft(args.draft.read_text(encoding="utf-8"))
        if args.legacy is not None:
            zoned = (each if each.legacy_zone else replace(each, legacy_zone=args.legacy) for each in draft.devices)
            draft = replace(draft, devices=tuple(zoned))
        devices_of_draft, archives_of_draft = principals_of(draft)
    except OSError as error:
        raise UsageError(f"{args.draft} can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{args.draft} is not UTF-8 text; save it as UTF-8") from error
    except DraftError as error:
        raise UsageError("\n".join(f"{args.draft}: {problem}" for problem in error.problems)) from error
    for device in devices_of_draft:
        check_role(device.role, settings)
        if device.legacy_zone:
            check_zone(device.legacy_zone, settings, device.networks)
    snapshot = read_registry(settings)
    archives = [each for each in archives_of_draft if not _is_registered(snapshot, each)]
    devices = [each for each in devices_of_draft if not _is_registered(snapshot, each)]
    try:
        _try_out(snapshot, devices, archives)
    except RegistryError as error:
        raise RefusedError(f"{args.draft}: {error}; nothing is registered") from error
    applied: list[Applied] = []
    if args.dry_run:
        require_view(args, settings)
    else:
        operator = require(args, Permission.DEVICE_CHANGE, settings=settings, evidence=[args.draft])
        for archive in archives:
            applied.append(make_change(settings, _adding_archive(archive, operator)))
        for device in devices:
            applied.append(make_change(settings, _adding_device(device, operator)))
    skipped = [each.name for each in archives_of_draft if each not in archives]
    skipped += [each.name for each in devices_of_draft if each not in devices]
    _report_import(args, devices, archives, skipped, applied)
    return 0


def _adding_archive(archive: "Archive", operator: str) -> "Callable[[RegistryStore], RegistrySnapshot]":
    return lambda store: store.add_archive(archive, by=operator, at=now())


def _adding_device(device: "Device", operator: str) -> "Callable[[RegistryStore], RegistrySnapshot]":
    return lambda store: store.add_device(device, by=operator, at=now())


def _is_registered(snapshot: "RegistrySnapshot", drafted: "Device | Archive") -> bool:
    """Say if it is registered as the draft has it, but for what a draft can't know: its certificates and standing."""
    from dataclasses import replace

    from dicomward.identity.registry import Device

    if not isinstance(drafted, Device):
        known = snapshot.archive_by_name(drafted.name)
        return known is not None and replace(known, sends_move_originator=drafted.sends_move_originator) == drafted
    device = snapshot.device_by_name(drafted.name)
    return device is not None and drafted == replace(
        device,
        certificates=(),
        status=drafted.status,
        observe_until=None,
        legacy_zone=drafted.legacy_zone,
        legacy_always=False,
    )


def _try_out(snapshot: "RegistrySnapshot", devices: "list[Device]", archives: "list[Archive]") -> None:
    """Raise RegistryError for whatever the registry would refuse, before anything is registered."""
    from dicomward.identity.registry import RegistryError, RegistrySnapshot

    after = RegistrySnapshot(
        devices=(*snapshot.devices, *devices), archives=(*snapshot.archives, *archives), revision=snapshot.revision
    )
    for archive in after.archives:
        for title in (archive.ae_title, *archive.called_ae_titles, *archive.calling_ae_titles):
            if (device := after.device_by_ae_title(title)) is not None:
                raise RegistryError(
                    f"AE title {title!r} belongs to the archive {archive.name!r} and to the device {device.name!r}; "
                    "take it from one"
                )


def _report_import(
    args: argparse.Namespace,
    devices: "list[Device]",
    archives: "list[Archive]",
    skipped: list[str],
    applied: "list[Applied]",
) -> None:
    if args.json:
        print_json(
            {
                "dry_run": args.dry_run,
                "devices": [principal_to_json(each) for each in devices],
                "archives": [principal_to_json(each) for each in archives],
                "already_registered": skipped,
                **(applied_to_json(applied[-1]) if applied else {}),
            }
        )
        return
    done = "would be registered" if args.dry_run else "registered"
    for archive in archives:
        print(f"archive {archive.name} {done}: {archive.ae_title}")
    for device in devices:
        how = f"plaintext in the legacy zone {device.legacy_zone}" if device.legacy_zone else "without a certificate"
        print(f"device {device.name} {done}: {', '.join(device.ae_titles)}; {device.role}; {how}")
    for name in skipped:
        print(f"{name} is registered already, as the draft has it")
    if applied:
        print(describe_applied(applied[-1]))
    from dicomward.io.gateway.archive_link import is_loopback

    for archive in archives:
        if not (archive.tls or archive.dedicated_link or is_loopback(archive.endpoint.host)):
            warn(
                f"archive {archive.name}: the gateway refuses plaintext to another machine; "
                "set certificate_sha256, or dedicated_link = true if nobody else is on that link"
            )
    bare = [device.name for device in devices if not device.legacy_zone]
    if bare:
        warn(
            f"no certificate yet, so they can't connect: {', '.join(bare)}; run: dicomward device renew NAME --out DIR"
        )


# --- legacy, observe, enforce, rollback ------------------------------------------------------------------------------


def _describe_legacy(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--zone", metavar="ZONE", help="the legacy zone of the settings in which it may call")
    group.add_argument("--off", action="store_true", help="no plaintext any more")
    parser.add_argument(
        "--keep-plaintext", action="store_true", help="also after it has been seen with TLS (with --zone)"
    )


def _legacy(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission

    device = _device(args, settings)
    if args.off and args.keep_plaintext:
        raise UsageError("--off and --keep-plaintext exclude each other")
    zone: str = args.zone or ""
    if zone:
        check_zone(zone, settings, device.networks)
    # What takes a right away is for every operator, at once.
    operator = require(args, Permission.LEGACY_ZONE if zone else Permission.DEVICE_SUSPEND, settings=settings)
    applied = make_change(
        settings,
        lambda store: store.set_legacy_zone(args.name, zone, always=args.keep_plaintext, by=operator, at=now()),
    )
    done = f"may call in plaintext in the legacy zone {zone}" if zone else "may not call in plaintext any more"
    return _report(args, done, applied)


def _describe_observe(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument(
        "--until",
        metavar="TIME",
        help=f"when observing ends and the rules hold: 2027-03-31, 2027-03-31T18:00, or 14d, 12h "
        f"(default: {OBSERVE_DAYS}d)",
    )


def _observe(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission

    until = now() + timedelta(days=OBSERVE_DAYS) if args.until is None else parse_when(args.until, now())
    if until <= now():
        raise UsageError(f"--until {args.until} has passed; name a time to come")
    operator = require(args, Permission.OBSERVE, settings=settings)
    applied = make_change(settings, lambda store: store.observe_device(args.name, until, by=operator, at=now()))
    return _report(
        args,
        f"is observed until {until.astimezone():%Y-%m-%d %H:%M%z}: what policy, limits and validation would refuse "
        "is let through and recorded",
        applied,
    )


def _enforce(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission

    operator = require(args, Permission.DEVICE_SUSPEND, settings=settings)
    applied = make_change(settings, lambda store: store.enforce_device(args.name, by=operator, at=now()))
    return _report(args, "is observed no more: policy, limits and validation hold", applied)


def _describe_rollback(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument(
        "--changes", metavar="N", type=int, default=1, help="how many changes to undo (default: %(default)s)"
    )


def _rollback(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission

    if args.changes < 1:
        raise UsageError(f"--changes {args.changes} undoes nothing; write 1 or more")
    operator = require(args, Permission.DEVICE_CHANGE, settings=settings)
    applied = make_change(
        settings, lambda store: store.rollback_device(args.name, changes=args.changes, by=operator, at=now())
    )
    return _report(args, f"is as it was before its last {_changes(args.changes)}", applied)


def _changes(number: int) -> str:
    return "change" if number == 1 else f"{number} changes"


def _device(args: argparse.Namespace, settings: "Settings") -> "Device":
    snapshot = read_registry(settings)
    device = snapshot.device_by_name(args.name)
    if device is None:
        raise unknown_name("device", args.name, [each.name for each in snapshot.devices])
    return device


def _report(args: argparse.Namespace, done: str, applied: "Applied") -> int:
    device = applied.snapshot.device_by_name(args.name)
    if args.json and device is not None:
        print_json({**principal_to_json(device), **applied_to_json(applied)})
    else:
        print(f"device {args.name} {done}; {describe_applied(applied)}")
    return 0


ACTIONS: Final[dict[str, Action]] = {
    "import": Action("register what a reviewed registry draft holds", _describe_import, _import),
    "legacy": Action("let a device call in plaintext in a legacy zone, or no more", _describe_legacy, _legacy),
    "observe": Action("only record what would be refused to a device, until a time", _describe_observe, _observe),
    "enforce": Action("end the observing of a device", _name, _enforce),
    "rollback": Action("bring a device back as it was before its last change", _describe_rollback, _rollback),
}
