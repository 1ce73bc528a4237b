"""`dicomward inventory`: a registry draft from a capture or from the audit log, and who still talks in plaintext."""

import argparse
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    now,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from dicomward.identity.draft import Draft
    from dicomward.identity.inventory import Inventory
    from dicomward.identity.registry import RegistrySnapshot
    from dicomward.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Draft a registry from who was heard: in a capture file (--pcap, needs no gateway), or in the audit log "
        "(--observed). Or list who still talks in plaintext (--plaintext). Nothing is registered."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--pcap", metavar="FILE", type=Path, action="append", help="a capture, pcap or pcapng; more than one is joined"
    )
    what.add_argument("--observed", action="store_true", help="who called the gateway, as its audit log has it")
    what.add_argument("--plaintext", action="store_true", help="devices in legacy zones, and links without TLS")
    parser.add_argument("--out", metavar="DRAFT", type=Path, help="write the draft there; a file is never replaced")
    add_config_argument(parser)
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Do it; see main for exit codes."""
    if args.plaintext:
        if args.out is not None:
            raise UsageError("--out is for a draft, and --plaintext makes none")
        return _plaintext(args)
    draft, counts = _from_captures(args.pcap) if args.pcap else _from_log(args)
    if args.out is not None:
        _write(args.out, draft)
    _report(args, draft, counts)
    return 0


# --- drafts ----------------------------------------------------------------------------------------------------------


def _from_captures(paths: list[Path]) -> "tuple[Draft, Counter[str]]":
    from dicomward.identity.inventory import Inventory
    from dicomward.io.capture.inventory import overhear
    from dicomward.io.capture.pcap import CaptureError

    inventory = Inventory()
    counts: Counter[str] = Counter()
    for path in paths:
        try:
            counts.update(overhear(path, inventory))
        except CaptureError as error:
            raise UsageError(str(error)) from error
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    return _drafted(inventory, f"capture {', '.join(path.name for path in paths)}", counts), counts


def _from_log(args: argparse.Namespace) -> "tuple[Draft, Counter[str]]":
    from dicomward.cli.audit_common import record_access, require_reader
    from dicomward.cli.inventory_log import overhear_log
    from dicomward.identity.inventory import Inventory

    settings = load_settings_of(args)
    args.directory = None
    args.operator = require_reader(args)
    directory = settings.audit.directory
    if not directory.is_dir():
        raise RefusedError(f"there is no audit log in {directory}: the gateway makes it at its first start")
    inventory = Inventory()
    counts = overhear_log(directory, inventory)
    record_access(args, directory, "inventory", inventory.associations)
    return _drafted(inventory, "audit log", counts), counts


def _drafted(inventory: "Inventory", source: str, counts: Counter[str]) -> "Draft":
    return inventory.draft(source, [f"{what}: {count}" for what, count in sorted(counts.items()) if count])


def _write(path: Path, draft: "Draft") -> None:
    from dicomward.identity.draft import draft_text

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(draft_text(draft))
    except FileExistsError as error:
        raise RefusedError(f"{path} exists already; name another file") from error


def _report(args: argparse.Namespace, draft: "Draft", counts: Counter[str]) -> None:
    from dicomward.identity.draft import draft_text, draft_to_json

    if args.json:
        print_json({**draft_to_json(draft), "counts": {what: count for what, count in counts.items() if count}})
        return
    if args.out is None:
        print(draft_text(draft), end="")
        return
    print(f"{args.out}: {len(draft.archives)} archives and {len(draft.devices)} devices; review every line, then:")
    print(f"  dicomward device import {args.out} --dry-run")
    print(f"  dicomward device import {args.out}")
    for note in draft.notes:
        print(f"  {note}")


# --- plaintext -------------------------------------------------------------------------------------------------------


def _plaintext(args: argparse.Namespace) -> int:
    from dicomward.cli.registry_command import read_registry, require_view

    settings = load_settings_of(args)
    require_view(args, settings)
    links = _plain_links(settings, read_registry(settings), now())
    if args.json:
        print_json(links)
        return 0
    if not links:
        print("nobody talks in plaintext")
        return 0
    header = ("NAME", "KIND", "HOW", "END DATE", "DAYS LEFT", "LAST SEEN", "LAST SEEN IN PLAINTEXT")
    keys = ("name", "kind", "how", "end_date", "days_left", "last_seen", "last_seen_plaintext")
    print_table(header, [["-" if link[key] is None else str(link[key]) for key in keys] for link in links])
    return 0


def _plain_links(settings: "Settings", registry: "RegistrySnapshot", moment: datetime) -> list[dict[str, object]]:
    """Return everybody who may talk in plaintext, each with how, until when, and when it was last heard."""
    from dicomward.io.gateway.archive_link import is_loopback

    zones = {each.zone.name: each.zone for each in settings.legacy_zones}
    directory = settings.audit.directory
    links: list[dict[str, object]] = []
    for device in registry.devices:
        if not device.is_active:
            continue
        if device.legacy_zone:
            zone = zones.get(device.legacy_zone)
            how = f"calls in the legacy zone {device.legacy_zone}" + ("" if zone else ", which the settings don't have")
            links.append(
                {
                    "name": device.name,
                    "kind": "device",
                    "how": how,
                    "zone": device.legacy_zone,
                    "end_date": zone.end_date.isoformat() if zone else None,
                    "days_left": zone.days_left(moment.astimezone()) if zone else None,
                    **_last_seen(directory, device=device.name),
                }
            )
        if device.address is not None and device.plain:
            how = f"is called at {device.address.host} port {device.address.port} without TLS"
            links.append(_open_link(device.name, "device", how, _last_seen(directory, archive=device.name)))
    for archive in registry.archives:
        if not archive.tls:
            kind = "on this machine" if is_loopback(archive.endpoint.host) else "on a dedicated link"
            how = f"is called at {archive.endpoint.host} port {archive.endpoint.port} without TLS, {kind}"
            links.append(_open_link(archive.name, "archive", how, _last_seen(directory, archive=archive.name)))
    return links


def _open_link(name: str, kind: str, how: str, seen: dict[str, object]) -> dict[str, object]:
    return {"name": name, "kind": kind, "how": how, "zone": None, "end_date": None, "days_left": None, **seen}


def _last_seen(directory: Path, *, device: str | None = None, archive: str | None = None) -> dict[str, object]:
    """Return when an association was last allowed, and when one was in plaintext."""
    from dicomward.audit.chain import Record
    from dicomward.audit.search import Query
    from dicomward.io.audit.read import find_records

    seen: dict[str, object] = {"last_seen": None, "last_seen_plaintext": None}
    if not directory.is_dir():
        return seen
    for text, key in ((None, "last_seen"), ("network-pin", "last_seen_plaintext")):
        if device is None and text is not None:
            # Of whom we call the link itself is plain.
            seen[key] = seen["last_seen"]
            continue
        query = Query(device=device, archive=archive, code="DW-ASSOC-ALLOW", text=text)
        found = [each for each in find_records(directory, query, 1) if isinstance(each, Record)]
        if found:
            seen[key] = found[-1].time
    return seen
