"""`dicomward policy suggest`: the least rules that a device needs, from what the audit log has seen it do."""

import argparse
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.cli.audit_common import record_access, require_reader
from dicomward.cli.common import (
    RefusedError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    now,
    parse_when,
    print_json,
    warn,
)

if TYPE_CHECKING:
    from dicomward.audit.chain import Record
    from dicomward.policy.suggest import Seen, Suggestion

_ALLOWED: Final = "DW-OP-ALLOW"
_ENDED: Final = "DW-OP-END"
_REPORT: Final = "n-event-report"


def add_arguments(suggest: argparse.ArgumentParser) -> None:
    """Describe the command."""
    suggest.add_argument("--device", metavar="NAME", required=True, help="its registered name")
    suggest.add_argument("--from", metavar="TIME", dest="since", help="only from then on: 2027-01-31, or 14d for ago")
    suggest.add_argument("--to", metavar="TIME", dest="until", help="only until then, the same")
    suggest.add_argument("--out", metavar="FILE", type=Path, help="write the rules there; a file is never replaced")
    add_config_argument(suggest)
    add_operator_argument(suggest)
    add_json_argument(suggest)


def run(args: argparse.Namespace) -> int:
    """Suggest; see main for exit codes."""
    from dicomward.cli.policy_files import registry_of
    from dicomward.cli.registry_command import unknown_name
    from dicomward.policy.suggest import missing_times, suggest, suggestion_text

    settings = load_settings_of(args)
    args.directory = None
    args.operator = require_reader(args)
    registry = registry_of(settings)
    device = registry.device_by_name(args.device)
    if device is None:
        raise unknown_name("device", args.device, [each.name for each in registry.devices])
    suggestion = suggest(device.name, _seen(args, settings.audit.directory), device.ae_titles)
    record_access(args, settings.audit.directory, "policy suggest", suggestion.operations)
    if not suggestion.rules:
        raise RefusedError(
            f"the audit log has no operation of {device.name} in that time, so there is nothing to suggest; "
            f"observe it first: dicomward device observe {device.name}"
        )
    text = suggestion_text(suggestion)
    if args.out is not None:
        try:
            with args.out.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError as error:
            raise RefusedError(f"{args.out} exists already; name another file") from error
    if args.json:
        print_json(_to_json(suggestion, text))
        return 0
    if args.out is None:
        print(text, end="")
    else:
        print(f"{args.out}: {len(suggestion.rules)} rules for {device.name}; nothing is activated")
    for line in (*missing_times(suggestion), *(f"Left out: {each}." for each in suggestion.strange)):
        warn(line)
    return 0


def _seen(args: argparse.Namespace, directory: Path) -> "Iterator[Seen]":
    """Yield what the log has of the device's operations; damaged lines are warned about."""
    from dicomward.audit.search import Query
    from dicomward.io.audit.read import find_records

    moment = now()
    query = Query(
        device=args.device,
        since=_as_logged(args.since, moment),
        until=_as_logged(args.until, moment, whole_day=True),
    )
    # The identifier of a query is in its last record.
    open_: dict[tuple[object, ...], Seen] = {}
    for found in find_records(directory, query, None) if directory.is_dir() else ():
        if isinstance(found, str):
            warn(f"damaged: {found}")
            continue
        members = found.members
        key = (members.get("association"), members.get("message_id"), members.get("operation"))
        code = members.get("code")
        if code == _ENDED and key in open_:
            yield replace(open_.pop(key), keys=_keys_of(found))
        elif code == _ALLOWED and (seen := _operation_of(found)) is not None:
            if key in open_:
                yield open_.pop(key)
            open_[key] = seen
    yield from open_.values()


def _keys_of(record: "Record") -> "frozenset[int] | None":
    """Return the filled keys of the identifier that the record has; None where it has none that can be read."""
    from dicomward.dicom.head import HeadUnreadable, scan_head
    from dicomward.relay.identifiers import END_OF_DATA_SET, query_facts

    identifier, transfer_syntax = record.members.get("identifier"), record.members.get("transfer_syntax_uid")
    if not isinstance(identifier, str) or not isinstance(transfer_syntax, str):
        return None
    try:
        data = b64decode(identifier, validate=True)
        return query_facts(scan_head(data, transfer_syntax, stop_after=END_OF_DATA_SET, complete=True).values)[1]
    except (HeadUnreadable, ValueError):
        return None


def _as_logged(text: str | None, moment: datetime, *, whole_day: bool = False) -> str | None:
    """Return a time as the log writes it; spans count back, and a day that ends something is part of it."""
    if text is None:
        return None
    when = parse_when(text, moment, ahead=whole_day and text[-1:].isdigit())
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _operation_of(record: "Record") -> "Seen | None":
    """Return the operation, if a rule about the device has to allow it."""
    from dicomward.policy.suggest import Seen
    from dicomward.vocab.dimse import OPERATION_BY_LABEL

    members = record.members
    label, direction = members.get("operation"), members.get("direction")
    operation = OPERATION_BY_LABEL.get(label) if isinstance(label, str) else None
    # What an archive invokes on a device's association belongs to a C-GET, but for reports.
    if operation is None or (direction == "acceptor" and label != _REPORT):
        return None
    sop_class, archive = members.get("sop_class_uid"), members.get("archive")
    level, destination = members.get("query_level"), members.get("move_destination")
    if not isinstance(sop_class, str) or not isinstance(archive, str):
        return None
    return Seen(
        operation=operation,
        sop_class_uid=sop_class,
        archive=archive,
        at=datetime.fromisoformat(record.time).astimezone(),
        query_level=level if isinstance(level, str) else None,
        move_destination=destination if isinstance(destination, str) else None,
    )


def _to_json(suggestion: "Suggestion", text: str) -> dict[str, object]:
    return {
        "device": suggestion.device,
        "operations": suggestion.operations,
        "days": suggestion.days,
        "first": suggestion.first.isoformat() if suggestion.first else None,
        "last": suggestion.last.isoformat() if suggestion.last else None,
        "not_observed": {"weekdays": suggestion.missing_weekdays, "hours": suggestion.missing_hours},
        "left_out": suggestion.strange,
        "rules": [asdict(rule) for rule in suggestion.rules],
        "policy": text,
    }
