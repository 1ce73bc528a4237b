"""`dicomward assess report`: the report of a run, its plan, and its advisories."""

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.cli.common import RefusedError, UsageError, add_json_argument, now, print_json

if TYPE_CHECKING:
    from dicomward.assess.observation import ServerObservation
    from dicomward.assess.report_model import Report, RunFacts
    from dicomward.identity.draft import Draft

FORMATS: Final = ("html", "pdf", "json", "csv", "csaf", "plan")
# JSON and CSV are for other programs, so they go to stdout; the rest are files beside the run.
_DEFAULT_NAMES: Final = {"html": "report.html", "pdf": "report.pdf", "csaf": "csaf", "plan": "plan"}
_NAMESPACE: Final = "https://publisher.invalid"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Make the report of an assessment: a page for a browser, a PDF, JSON, CSV, advisories for vendors (CSAF 2.0), "
        "or the hardening plan with the files of its gateways. See docs/assessment-report.md."
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory of the assessment")
    parser.add_argument("--format", choices=FORMATS, default="html", help="what to make (default: %(default)s)")
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="file, or directory for csaf and plan; - for stdout (default: in DIR; json and csv: stdout)",
    )
    parser.add_argument(
        "--shared",
        action="store_true",
        help="to be shown to others: counts below 5 as <5, without evidence and addresses",
    )
    parser.add_argument("--addresses", action="store_true", help="with addresses, in advisories and shared reports too")
    parser.add_argument("--sites", metavar="FILE", type=Path, help="list of networks with their countries and sites")
    parser.add_argument("--devices", metavar="DRAFT", type=Path, help="plan: a registry draft with the known devices")
    parser.add_argument("--publisher", metavar="NAME", help="csaf: who publishes (default: the owner of the scope)")
    parser.add_argument(
        "--namespace", metavar="URI", default=_NAMESPACE, help="csaf: the publisher's URI (default: %(default)s)"
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Make what is asked for; see main for exit codes."""
    from dicomward.cli.assess import read_site_list
    from dicomward.io.assess.report_render import RendererMissingError
    from dicomward.io.assess.report_run import read_run
    from dicomward.io.assess.store import StoreError

    if args.devices is not None and args.format != "plan":
        raise UsageError("--devices belongs to --format plan")
    try:
        facts, observations = read_run(args.directory, read_site_list(args.sites))
        written = _make(args, facts, observations, now())
    except (StoreError, RendererMissingError) as error:
        raise RefusedError(str(error)) from error
    if args.json and written:
        print_json({"files": [str(path) for path in written]})
    elif args.format == "plan" and written:
        print(f"{written[0]}: {len(written)} files")
    else:
        for path in written:
            print(path)
    return 0


def _make(
    args: argparse.Namespace, facts: "RunFacts", observations: "list[ServerObservation]", made_at: datetime
) -> list[Path]:
    match args.format:
        case "plan":
            from dicomward.assess.report_plan import build_plan
            from dicomward.io.assess.report_run import write_plan

            return write_plan(_directory(args), build_plan(facts, observations), _devices(args), made_at)
        case "csaf":
            from dicomward.assess.report_csaf import Publisher, build_advisories
            from dicomward.io.assess.report_run import write_advisories

            publisher = Publisher(
                name=args.publisher or facts.owner or "not named", namespace=args.namespace, contact=facts.contact
            )
            advisories = build_advisories(observations, publisher, made_at, addresses=args.addresses)
            if not advisories:
                print("dicomward: no product was recognised that has a finding for its vendor", file=sys.stderr)
            return write_advisories(_directory(args), advisories)
        case _:
            return _write(args, _document(args, facts, observations, made_at))


def _document(
    args: argparse.Namespace, facts: "RunFacts", observations: "list[ServerObservation]", made_at: datetime
) -> bytes:
    from dicomward.assess.report_data import report_to_csv, report_to_json
    from dicomward.assess.report_model import Options, build_report
    from dicomward.io.assess.report_render import read_world, render_html, render_pdf

    world = read_world()
    options = Options(shared=args.shared, addresses=args.addresses or not args.shared)
    report: Report = build_report(facts, observations, world, options)
    match args.format:
        case "html":
            return render_html(report, world, made_at).encode()
        case "pdf":
            return render_pdf(report, world, made_at)
        case "csv":
            return report_to_csv(report).encode()
        case _:
            return (json.dumps(report_to_json(report), indent=2, ensure_ascii=False) + "\n").encode()


def _write(args: argparse.Namespace, content: bytes) -> list[Path]:
    """Write to where it belongs; return the file, nothing for stdout."""
    default = _DEFAULT_NAMES.get(args.format)
    if args.out == "-" or (args.out is None and default is None):
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return []
    path = Path(args.out) if args.out is not None else args.directory / str(default)
    if path.is_dir():
        path = path / (default or f"report.{args.format}")
    path.write_bytes(content)
    return [path]


def _directory(args: argparse.Namespace) -> Path:
    if args.out == "-":
        raise UsageError(f"--format {args.format} makes several files: --out needs a directory")
    path = Path(args.out) if args.out is not None else args.directory / _DEFAULT_NAMES[args.format]
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is not a directory, and --format {args.format} makes several files")
    return path


def _devices(args: argparse.Namespace) -> "Draft":
    """Read the draft of the known devices. Raises UsageError."""
    from dicomward.identity.draft import Draft, DraftError, parse_draft

    if args.devices is None:
        return Draft()
    try:
        return parse_draft(args.devices.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{args.devices} can't be read: {error}") from error
    except DraftError as error:
        raise UsageError(f"{args.devices}: {error}") from error
