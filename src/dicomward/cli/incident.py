"""`dicomward incident`: whose images a device has sent, received, queried or had moved, and what isn't known."""

import argparse
from typing import TYPE_CHECKING

from dicomward.cli.audit_common import add_where_arguments, directory_of, parse_moment, record_access, require_reader
from dicomward.cli.common import RefusedError, UsageError, load_settings_of, nearest, now, print_json, print_table

if TYPE_CHECKING:
    from dicomward.audit.incident import IncidentReport, Touched

_EPILOG = (
    "TIME is 2026-01-31T14:00 (local, or with a zone), or 30m, 2h, 7d ago. The log itself isn't checked here: run "
    "`dicomward audit verify` as well."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "List the patients and studies that a device touched, in which direction, and gaps in the evidence."
    )
    parser.epilog = _EPILOG
    parser.add_argument("--device", metavar="NAME", required=True, help="registered name of the device")
    parser.add_argument("--from", metavar="TIME", dest="since", help="from this time on (default: the whole log)")
    parser.add_argument("--to", metavar="TIME", dest="until", help="up to this time (default: now)")
    add_where_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report; see main for exit codes."""
    from dicomward.io.audit.incident import investigate

    args.operator = require_reader(args)
    moment = now()
    try:
        since = None if args.since is None else parse_moment(args.since, moment)
        until = None if args.until is None else parse_moment(args.until, moment)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if since is not None and until is not None and since >= until:
        raise UsageError(f"--from ({since}) must be before --to ({until})")
    directory = directory_of(args)
    report = investigate(directory, args.device, since=since, until=until)
    if not report.records:
        _require_known(args)
    (_print_json if args.json else _print)(args.device, since, until, report)
    record_access(args, directory, "incident", report.records)
    return 0


def _require_known(args: argparse.Namespace) -> None:
    """Refuse a name that neither the log nor the registry knows: an empty answer to a typing error would mislead."""
    if args.directory is not None:
        return
    from dicomward.cli.registry_command import read_registry

    registry = read_registry(load_settings_of(args))
    names = [*(each.name for each in registry.devices), *(each.name for each in registry.archives)]
    if args.device not in names:
        raise RefusedError(f"there is no device {args.device!r}, nor any record of it; {nearest(args.device, names)}")


def _members(each: "Touched") -> dict[str, object]:
    return {
        "patient_id": each.patient_id or None,
        "issuer_of_patient_id": each.issuer_of_patient_id or None,
        "study_instance_uid": each.study_instance_uid or None,
        "direction": each.direction,
        "to": each.to or None,
        "operations": each.operations,
        "refused": each.refused,
        "instances": len(each.instances),
        "matches": each.matches,
        "bytes": each.bytes,
        "first": each.first,
        "last": each.last,
    }


def _print_json(device: str, since: str | None, until: str | None, report: "IncidentReport") -> None:
    print_json(
        {
            "device": device,
            "from": since,
            "to": until,
            "patients": len(
                {(each.patient_id, each.issuer_of_patient_id) for each in report.touched if each.patient_id}
            ),
            "studies": len({each.study_instance_uid for each in report.touched if each.study_instance_uid}),
            "touched": [_members(each) for each in report.touched],
            "complete": not report.gaps,
            "gaps": [
                {"kind": each.kind, "from": each.since or None, "to": each.until or None, "detail": each.detail}
                for each in report.gaps
            ],
        }
    )


def _print(device: str, since: str | None, until: str | None, report: "IncidentReport") -> None:
    print(f"{device}, from {since or 'the beginning of the log'} to {until or 'now'}")
    rows = [
        [
            each.patient_id + (f"^^^{each.issuer_of_patient_id}" if each.issuer_of_patient_id else "") or "(unknown)",
            each.study_instance_uid or "(unknown)",
            each.direction + (f" to {each.to}" if each.to else ""),
            str(len(each.instances)),
            str(each.operations),
            str(each.refused),
            each.first,
            each.last,
        ]
        for each in report.touched
    ]
    if rows:
        header = ["PATIENT ID", "STUDY", "DIRECTION", "INSTANCES", "OPERATIONS", "REFUSED", "FIRST", "LAST"]
        print_table(header, rows)
    else:
        print("nothing on record")
    print("gaps in the evidence:" if report.gaps else "no gap in the evidence is known")
    for gap in report.gaps:
        span = f" ({gap.since or '?'} to {gap.until or '?'})" if gap.since or gap.until else ""
        print(f"  {gap.kind}{span}: {gap.detail}")
