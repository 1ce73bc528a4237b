"""`dicomward audit search | tail | verify`: reading the audit log, also while a gateway writes it."""

import argparse
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    now,
    operator_of,
    print_json,
    require,
    warn,
)

if TYPE_CHECKING:
    from dicomward.audit.chain import Record
    from dicomward.audit.search import Query
    from dicomward.io.audit_read import Follower
    from dicomward.io.audit_verify import Verified

_FOLLOW_SECONDS: Final = 0.5
_CONTROL_SECONDS: Final = 5.0
_AGO: Final = re.compile(r"([0-9]{1,6})([smhdw])\Z")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = "Read and check the audit log. A running gateway isn't disturbed; each use is itself recorded."
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    search = commands.add_parser("search", help="print the records that match everything that is given")
    search.add_argument("--device", metavar="NAME", help="registered name")
    search.add_argument("--archive", metavar="NAME", help="registered name of the target")
    search.add_argument("--reason", metavar="CODE", help="reason code, as in docs/reason-codes.md")
    search.add_argument("--code", metavar="CODE", help="event code, as in docs/audit.md: DW-ASSOC-DENY")
    search.add_argument("--association", metavar="ID", help="all records of one association")
    search.add_argument("--aet", metavar="AET", help="calling or called AE title, or move destination")
    search.add_argument("--address", metavar="IP|CIDR", help="address of the peer, or its network")
    search.add_argument("--text", metavar="TEXT", help="part of any value, in either case")
    search.add_argument("--since", metavar="TIME", help="2026-01-31T14:00 (local, or with a zone), or 30m, 2h, 7d ago")
    search.add_argument("--until", metavar="TIME", help="the same; records of that moment aren't included")
    search.add_argument("--limit", metavar="N", type=_positive, help="only the newest N")
    _add_output_arguments(search)

    tail = commands.add_parser("tail", help="print the newest records")
    tail.add_argument("--limit", "-n", metavar="N", type=_positive, default=20, help="how many (default: 20)")
    tail.add_argument("--follow", "-f", action="store_true", help="go on with new ones until interrupted")
    _add_output_arguments(tail)

    verify = commands.add_parser("verify", help="check the chain of records and the signed checkpoints")
    verify.add_argument("--archived", action="store_true", help="older segments were moved away on purpose")
    verify.add_argument("--against", metavar="FILE", type=Path, help="a copy of checkpoints.jsonl from elsewhere")
    verify.add_argument("--public-key", metavar="FILE", type=Path, help="a copy of checkpoint.pub from elsewhere")
    _add_where_arguments(verify)


def _add_where_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    parser.add_argument("--directory", metavar="DIR", type=Path, help="read this directory (a copy of a log) instead")
    add_operator_argument(parser)
    add_json_argument(parser)


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--redact", action="store_true", help="mask what isn't public: for support tickets")
    _add_where_arguments(parser)


def _positive(text: str) -> int:
    """Read a number above zero, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a whole number above zero")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    args.operator = _require_reader(args)
    directory = _directory_of(args)
    if not directory.is_dir():
        raise RefusedError(f"there is no audit log in {directory}: the gateway makes it at its first start")
    match args.action:
        case "search":
            return _search(args, directory)
        case "tail":
            return _tail(args, directory)
        case _:
            return _verify(args, directory)


def _require_reader(args: argparse.Namespace) -> str:
    """Return who reads, if it may; a copy of a log elsewhere belongs to whoever has it."""
    if args.directory is not None:
        return operator_of(args)
    from dicomward.identity.operators import Permission

    return require(args, Permission.AUDIT_READ)


def _directory_of(args: argparse.Namespace) -> Path:
    chosen: Path | None = args.directory
    return chosen or load_settings_of(args).audit.directory


# --- search and tail -------------------------------------------------------------------------------------------------


def _search(args: argparse.Namespace, directory: Path) -> int:
    code, _last = _print_found(args, directory, _query_of(args))
    return code


def _tail(args: argparse.Namespace, directory: Path) -> int:
    from dicomward.audit.search import Query
    from dicomward.io.audit_read import Follower

    # Before the newest are read, so that none is passed over in between; `after` keeps any from being shown twice.
    follower = Follower(directory) if args.follow else None
    code, last = _print_found(args, directory, Query())
    if follower is not None:
        try:
            _follow(follower, last, _printer_of(args))
        except KeyboardInterrupt:
            pass  # this is how following ends
    return code


def _query_of(args: argparse.Namespace) -> "Query":
    from dicomward.audit.search import Query

    moment = now()
    try:
        return Query(
            device=args.device,
            archive=args.archive,
            reason=args.reason,
            code=args.code,
            association=args.association,
            aet=args.aet,
            address=args.address,
            text=args.text,
            since=None if args.since is None else parse_moment(args.since, moment),
            until=None if args.until is None else parse_moment(args.until, moment),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def parse_moment(text: str, moment: datetime) -> str:
    """Read a time that a person typed, and write it as the log does. Raises ValueError.

    It is ISO 8601 (without a zone: the zone of this machine), or how long before `moment`: 45s, 30m, 2h, 7d, 1w.
    """
    ago = _AGO.match(text)
    if ago is not None:
        then = moment - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    else:
        try:
            then = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"{text!r} isn't a time: write 2026-01-31T14:00, or 2h for two hours ago") from error
    return then.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _print_found(args: argparse.Namespace, directory: Path, query: "Query") -> tuple[int, int]:
    """Print the matching records, and return the exit code and the number of the last one.

    Damaged lines go to stderr and make the exit code 1.
    """
    from dicomward.io.audit_read import find_records

    print_one = _printer_of(args)
    shown = damaged = last = 0
    try:
        for each in find_records(directory, query, args.limit):
            if isinstance(each, str):
                warn(f"damaged: {each}")
                damaged += 1
            else:
                print_one(each)
                last = each.seq
                shown += 1
    finally:
        # Also where the reader of our output went away: what was shown was seen.
        _record_access(args, directory, shown)
    if damaged:
        warn("records may be missing: run `dicomward audit verify`")
    return (1 if damaged else 0), last


def _printer_of(args: argparse.Namespace) -> "Callable[[Record], None]":
    """Return what prints one record."""
    from dicomward.audit.search import format_record, redact

    def print_one(record: "Record") -> None:
        members = redact(record) if args.redact else dict(record.members)
        if args.json:
            print_json({"seq": record.seq, "time": record.time, **members, "prev": record.prev, "hash": record.hash})
        else:
            print(format_record(record, members), flush=args.action == "tail")

    return print_one


def _follow(follower: "Follower", after: int, print_one: "Callable[[Record], None]") -> None:
    """Print new records until interrupted."""
    from dicomward.audit.chain import Record
    from dicomward.audit.search import Query, search_lines

    everything = Query()
    while _pause():
        for each in search_lines(everything, follower.read()):
            if not isinstance(each, Record):
                warn(f"damaged: {each.detail}")
            elif each.seq > after:
                print_one(each)


def _pause() -> bool:
    """Wait a moment; False: that is enough."""
    time.sleep(_FOLLOW_SECONDS)
    return True


# --- verify ----------------------------------------------------------------------------------------------------------


def _verify(args: argparse.Namespace, directory: Path) -> int:
    from dicomward.io.audit_key import AuditKeyError
    from dicomward.io.audit_verify import verify_directory

    try:
        verified = verify_directory(directory, archived=args.archived, public_key=args.public_key, against=args.against)
    except AuditKeyError as error:
        raise RefusedError(str(error)) from error
    (_print_verified_json if args.json else _print_verified)(verified)
    if not verified.report.is_good:
        warn("this use isn't recorded, so that the log stays as it was found: copy it before anything else writes it")
        return 1
    _record_access(args, directory, verified.report.records)
    return 0


def _print_verified_json(verified: "Verified") -> None:
    report = verified.report
    print_json(
        {
            "ok": report.is_good,
            "records": report.records,
            "first": report.first,
            "last": report.last,
            "head": report.head_hash,
            "signed": report.signed,
            "checkpoints": report.checkpoints,
            "segments": verified.segments,
            "key": verified.key_id,
            "incomplete_bytes": report.incomplete_bytes,
            "findings": [
                {"problem": each.problem, "seq": each.seq, "place": each.place, "detail": each.detail}
                for each in report.findings
            ],
        }
    )


def _print_verified(verified: "Verified") -> None:
    report = verified.report
    span = f"{report.first} to {report.last}" if report.records else "none"
    print(f"records: {span} (segments: {verified.segments}); the last one has the hash {report.head_hash}")
    print(f"checkpoints: {report.checkpoints}, the newest good one for record {report.signed}; key {verified.key_id}")
    if report.incomplete_bytes:
        print(f"{report.incomplete_bytes} bytes at the end: a record being written, or torn by a crash")
    for each in report.findings:
        about = f"record {each.seq}" if each.seq is not None else "checkpoints"
        print(f"BAD {each.problem}: {about} ({each.place}): {each.detail}")
    print("good" if report.is_good else "NOT GOOD: nothing after the place named above is proven")


# --- the record of the use itself ------------------------------------------------------------------------------------


def _record_access(args: argparse.Namespace, directory: Path, count: int) -> None:
    """Record that somebody looked; in a copy of a log nothing is written."""
    if args.directory is not None:
        return
    from dicomward.audit.encode_json import event_members
    from dicomward.audit.event import AuditAccessed
    from dicomward.io.audit_log import AuditLogBusyError, AuditLogError, append_offline
    from dicomward.io.control import ControlError, call

    event = AuditAccessed(
        operator=operator_of(args), action=f"audit {args.action}", count=count, detail=_criteria_of(args)
    )
    try:
        append_offline(directory, event)
    except AuditLogBusyError:
        state_directory = load_settings_of(args).gateway.state_directory
        try:
            request: dict[str, object] = {"do": "audit-accessed", "audit": event_members(event)}
            answer = call(state_directory, request, _CONTROL_SECONDS)
        except ControlError as error:
            answer = {"error": str(error)}
        if answer is None or answer.get("ok") is not True:
            why = "no gateway answered" if answer is None else answer.get("error")
            warn(f"this use of the audit log could not be recorded: {why}")
    except (AuditLogError, OSError) as error:
        warn(f"this use of the audit log could not be recorded: {error}")


def _criteria_of(args: argparse.Namespace) -> str | None:
    """Return what was looked for, as it was typed."""
    names = ("device", "archive", "reason", "code", "association", "aet", "address", "text", "since", "until")
    given = [f"{name}={value}" for name in names if (value := getattr(args, name, None)) is not None]
    return " ".join(given) or None
