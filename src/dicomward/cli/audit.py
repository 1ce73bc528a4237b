"""`dicomward audit`: reading, checking, sending on and pruning the audit log, also while a gateway writes it."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.cli.audit_common import add_where_arguments, directory_of, parse_moment, record_access, require_reader
from dicomward.cli.common import (
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    nearest,
    now,
    print_json,
    warn,
)

if TYPE_CHECKING:
    from dicomward.audit.chain import Record
    from dicomward.audit.search import Query
    from dicomward.io.audit.read import Follower

_FOLLOW_SECONDS: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = "Read and check the audit log. A running gateway isn't disturbed; each use is itself recorded."
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    search = commands.add_parser("search", help="print the records that match everything that is given")
    _add_query_arguments(search)
    _add_output_arguments(search)

    tail = commands.add_parser("tail", help="print the newest records")
    tail.add_argument("--limit", "-n", metavar="N", type=_positive, default=20, help="how many (default: 20)")
    tail.add_argument("--follow", "-f", action="store_true", help="go on with new ones until interrupted")
    _add_output_arguments(tail)

    verify = commands.add_parser("verify", help="check the chain of records and the signed checkpoints")
    verify.add_argument("--archived", action="store_true", help="older segments were moved away on purpose")
    verify.add_argument("--against", metavar="FILE", type=Path, help="a copy of checkpoints.jsonl from elsewhere")
    verify.add_argument("--public-key", metavar="FILE", type=Path, help="a copy of checkpoint.pub from elsewhere")
    verify.add_argument("--heads", metavar="FILE", type=Path, help="signed heads that were kept on another machine")
    add_where_arguments(verify)

    export = commands.add_parser("export", help="print the matching records as messages, one a line")
    export.add_argument(
        "--format", choices=("dicom", "fhir", "ecs", "json"), default="dicom", help="encoding (default: dicom)"
    )
    _add_query_arguments(export)
    add_where_arguments(export)

    prune = commands.add_parser("prune", help="remove records that are older than the retention")
    prune.add_argument("--days", metavar="N", type=_days, help="keep this many (default: retention_days of [audit])")
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    status = commands.add_parser("status", help="headroom of the disk, and how far each syslog receiver has the log")
    for child in (prune, status):
        add_config_argument(child)
        add_operator_argument(child)
        add_json_argument(child)


def _add_query_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="NAME", help="registered name")
    parser.add_argument("--archive", metavar="NAME", help="registered name of the target")
    parser.add_argument("--reason", metavar="CODE", help="reason code, as in docs/reason-codes.md")
    parser.add_argument("--code", metavar="CODE", help="event code, as in docs/audit.md: DW-ASSOC-DENY")
    parser.add_argument("--association", metavar="ID", help="all records of one association")
    parser.add_argument("--operation", metavar="OPERATION", help="c-store, c-find, n-create, ...")
    parser.add_argument("--aet", metavar="AET", help="calling or called AE title, or move destination")
    parser.add_argument("--address", metavar="IP|CIDR", help="address of the peer, or its network")
    parser.add_argument("--text", metavar="TEXT", help="part of any value, in either case")
    parser.add_argument("--since", metavar="TIME", help="2026-01-31T14:00 (local, or with a zone), or 30m, 2h, 7d ago")
    parser.add_argument("--until", metavar="TIME", help="the same; records of that moment aren't included")
    parser.add_argument("--limit", metavar="N", type=_positive, help="only the newest N")


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--redact", action="store_true", help="mask what isn't public: for support tickets")
    add_where_arguments(parser)


def _days(text: str) -> float:
    """Read a number of days above zero, for argparse."""
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a number of days above zero")
    return days


def _positive(text: str) -> int:
    """Read a number above zero, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a whole number above zero")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    if args.action in ("prune", "status"):
        from dicomward.cli import audit_keep

        return audit_keep.prune(args) if args.action == "prune" else audit_keep.status(args)
    args.operator = require_reader(args)
    directory = directory_of(args)
    match args.action:
        case "search":
            return _search(args, directory)
        case "tail":
            return _tail(args, directory)
        case "export":
            from dicomward.cli.audit_export import export

            return export(args, directory, _query_of(args))
        case _:
            from dicomward.cli.audit_verify import verify

            return verify(args, directory)


# --- search and tail -------------------------------------------------------------------------------------------------


def _search(args: argparse.Namespace, directory: Path) -> int:
    code, _last = _print_found(args, directory, _query_of(args))
    return code


def _tail(args: argparse.Namespace, directory: Path) -> int:
    from dicomward.audit.search import Query
    from dicomward.io.audit.read import Follower

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

    _check_codes(args)
    moment = now()
    try:
        query = Query(
            device=args.device,
            archive=args.archive,
            reason=args.reason,
            code=args.code,
            association=args.association,
            operation=args.operation,
            aet=args.aet,
            address=args.address,
            text=args.text,
            since=None if args.since is None else parse_moment(args.since, moment),
            until=None if args.until is None else parse_moment(args.until, moment),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    if query.since is not None and query.until is not None and query.since >= query.until:
        raise UsageError(f"--until {args.until} is not after --since {args.since}; nothing could be found")
    return query


def _check_codes(args: argparse.Namespace) -> None:
    """Put codes as the log has them, and refuse misspelt ones. Raises UsageError.

    That nothing is found must not look as if nothing had happened.
    """
    from dicomward.audit import event
    from dicomward.vocab.dimse import OPERATION_BY_LABEL
    from dicomward.vocab.reason import ReasonCode

    kinds = [each for each in vars(event).values() if isinstance(each, type) and issubclass(each, event.AuditEvent)]
    codes = sorted({each.code for each in kinds if each.code})
    reasons = sorted(each.value for each in ReasonCode)
    args.code = args.code and args.code.upper()
    args.reason = args.reason and args.reason.lower()
    args.operation = args.operation and args.operation.lower()
    if args.code is not None and args.code not in codes:
        raise UsageError(f"no event has the code {args.code!r}; {nearest(args.code, codes)} (docs/audit.md)")
    if args.reason is not None and args.reason not in reasons:
        raise UsageError(f"there is no reason {args.reason!r}; {nearest(args.reason, reasons)} (docs/reason-codes.md)")
    if args.operation is not None and args.operation not in OPERATION_BY_LABEL:
        raise UsageError(f"{args.operation!r} is not an operation; {nearest(args.operation, list(OPERATION_BY_LABEL))}")


def _print_found(args: argparse.Namespace, directory: Path, query: "Query") -> tuple[int, int]:
    """Print the matching records, and return the exit code and the number of the last one.

    Damaged lines go to stderr and make the exit code 1.
    """
    from dicomward.io.audit.read import find_records

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
        record_access(args, directory, f"audit {args.action}", shown)
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
