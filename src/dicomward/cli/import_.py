"""`dicomward import`: another system's configuration becomes a registry draft. Registers nothing."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.cli.common import RefusedError, UsageError, add_json_argument, print_json, warn

if TYPE_CHECKING:
    from dicomward.identity.draft import Draft

_MOST_BYTES = 64 * 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Read the devices of an Orthanc configuration or of a dcm4chee LDIF into a registry draft, which you correct "
        "and load with `dicomward device import`. Registers nothing. See docs/import-export.md."
    )
    kinds = parser.add_subparsers(dest="action", metavar="KIND", required=True)
    orthanc = kinds.add_parser("orthanc", help="read orthanc.json, several of them, or Orthanc's folder")
    orthanc.add_argument("--host", metavar="HOST", default="127.0.0.1", help="where Orthanc runs (default: 127.0.0.1)")
    dcm4chee = kinds.add_parser("dcm4chee", help="read LDIF with cn=Devices and what is below it")
    for kind, name in ((orthanc, "JSON"), (dcm4chee, "LDIF")):
        kind.add_argument("files", metavar=name, nargs="+", type=Path, help="files, or folders of them")
        kind.add_argument("--out", metavar="DRAFT", type=Path, help="write the draft there (default: stdout)")
        kind.add_argument("--force", action="store_true", help="replace a draft that is there")
        add_json_argument(kind)


def run(args: argparse.Namespace) -> int:
    """Read, and write the draft; see main for exit codes."""
    from dicomward.identity.draft import draft_text, draft_to_json

    draft = _read(args)
    if args.out is not None:
        _write(args.out, draft_text(draft), force=args.force)
    if args.json:
        print_json(draft_to_json(draft))
    elif args.out is None:
        sys.stdout.write(draft_text(draft))
    for note in draft.notes:
        warn(f"note: {note}")
    if args.out is not None and not args.json:
        print(
            f"{args.out}: {len(draft.devices)} devices, {len(draft.archives)} archives, {len(draft.notes)} notes; "
            f"correct it, then: dicomward device import {args.out} --dry-run"
        )
    return 0


def _read(args: argparse.Namespace) -> "Draft":
    from dicomward.identity.dcm4chee import Dcm4cheeError, read_dcm4chee
    from dicomward.identity.ldif import LdifError
    from dicomward.identity.orthanc import OrthancError, read_orthanc

    pattern = "*.json" if args.action == "orthanc" else "*.ldif"
    files = [(path.name, _text_of(path)) for each in args.files for path in _expanded(each, pattern)]
    try:
        return read_orthanc(files, host=args.host) if args.action == "orthanc" else read_dcm4chee(files)
    except (OrthancError, Dcm4cheeError, LdifError) as error:
        raise UsageError(str(error)) from error


def _expanded(path: Path, pattern: str) -> list[Path]:
    """Return the files of a folder, in the order of their names, or the file itself."""
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.glob(pattern) if each.is_file())
    if not found:
        raise UsageError(f"the folder {path} has no {pattern}")
    return found


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} is larger than {_MOST_BYTES} bytes: this can't be a configuration")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text") from error


def _write(path: Path, text: str, *, force: bool) -> None:
    if path.exists() and not force:
        raise RefusedError(f"{path} is there already; name another file, or write --force to replace it")
    path.write_text(text, encoding="utf-8")
