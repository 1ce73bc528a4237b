"""`dicomward audit verify`: is the log what the gateway wrote."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.cli.audit_common import record_access
from dicomward.cli.common import RefusedError, print_json, warn

if TYPE_CHECKING:
    from dicomward.io.audit.verify import Verified


def verify(args: argparse.Namespace, directory: Path) -> int:
    """Check the log, print what was found; 1 if something is wrong."""
    from dicomward.io.audit.key import AuditKeyError
    from dicomward.io.audit.verify import verify_directory

    try:
        verified = verify_directory(
            directory, archived=args.archived, public_key=args.public_key, against=args.against, heads=args.heads
        )
    except AuditKeyError as error:
        raise RefusedError(str(error)) from error
    (_print_json if args.json else _print)(verified)
    if not verified.report.is_good:
        warn("this use isn't recorded, so that the log stays as it was found: copy it before anything else writes it")
        return 1
    record_access(args, directory, "audit verify", verified.report.records)
    return 0


def _print_json(verified: "Verified") -> None:
    report, pruned, heads = verified.report, verified.pruned, verified.heads
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
            "pruned": None if pruned is None else {"last": pruned.seq, "time": pruned.time},
            "heads": None if heads is None else {"count": heads.heads, "vouched": heads.vouched},
            "findings": [
                {"problem": each.problem, "seq": each.seq, "place": each.place, "detail": each.detail}
                for each in report.findings
            ],
        }
    )


def _print(verified: "Verified") -> None:
    report, pruned, heads = verified.report, verified.pruned, verified.heads
    span = f"{report.first} to {report.last}" if report.records else "none"
    print(f"records: {span} (segments: {verified.segments}); the last one has the hash {report.head_hash}")
    print(f"checkpoints: {report.checkpoints}, the newest good one for record {report.signed}; key {verified.key_id}")
    if pruned is not None:
        print(f"pruned: records up to {pruned.seq} were removed on purpose at {pruned.time}; the statement is signed")
    if heads is not None:
        print(f"heads: {heads.heads} kept elsewhere; they vouch for the log up to record {heads.vouched}")
    if report.incomplete_bytes:
        print(f"{report.incomplete_bytes} bytes at the end: a record being written, or torn by a crash")
    for each in report.findings:
        about = f"record {each.seq}" if each.seq is not None else each.place
        print(f"BAD {each.problem}: {about} ({each.place}): {each.detail}")
    print("good" if report.is_good else "NOT GOOD: nothing after the place named above is proven")
