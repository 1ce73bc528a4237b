"""`dicomward audit export`: the local log in the encodings that are sent to receivers, one message a line."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.cli.audit_common import record_access
from dicomward.cli.common import load_settings_of, warn

if TYPE_CHECKING:
    from dicomward.audit.search import Query
    from dicomward.audit.standard import AuditSource


def export(args: argparse.Namespace, directory: Path, query: "Query") -> int:
    """Print the messages of the matching records; 1 if records are damaged."""
    from dicomward.audit.translate import Translator
    from dicomward.io.audit.read import find_records
    from dicomward.io.audit.ship import encode_messages, encode_record

    translator = Translator(_source_of(args))
    count = damaged = 0
    out = sys.stdout
    try:
        for each in find_records(directory, query, args.limit):
            if isinstance(each, str):
                warn(f"damaged: {each}")
                damaged += 1
                continue
            count += 1
            for body, _severity in encode_record(each, args.format, translator):
                out.write(body.decode() + "\n")
        if args.format in ("dicom", "fhir"):
            for body, _severity in encode_messages(translator.flush(), args.format):
                out.write(body.decode() + "\n")
    finally:
        # Also where the reader of our output went away: what was shown was seen.
        record_access(args, directory, "audit export", count)
    if damaged:
        warn("records may be missing: run `dicomward audit verify`")
    return 1 if damaged else 0


def _source_of(args: argparse.Namespace) -> "AuditSource":
    """Return who reports, as the settings say; a copy of a log may have none beside it."""
    from dicomward.audit.standard import AuditSource

    if args.directory is not None and args.config is None:
        return AuditSource("dicomward")
    audit = load_settings_of(args).audit
    return AuditSource(audit.source_id, audit.enterprise_site_id)
