"""`dicomward assess --compare`: what has been closed since an earlier assessment."""

import argparse
from pathlib import Path

from dicomward.cli.common import RefusedError, add_json_argument, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Compare two assessments: what is closed (it answered and refused), new, changed, still open, or INCONCLUSIVE "
        "(what does not answer proves nothing). Exit code 0: every finding is closed; 1: one is not, or not certainly."
    )
    parser.add_argument("old", metavar="OLD", type=Path, help="the directory of the earlier assessment")
    parser.add_argument("new", metavar="NEW", type=Path, help="the directory of the later one")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, print; see main for exit codes."""
    from dicomward.assess.report_compare import comparison_lines, comparison_to_json
    from dicomward.io.assess.report_run import compare_directories
    from dicomward.io.assess.store import StoreError

    try:
        comparison = compare_directories(args.old, args.new)
    except StoreError as error:
        raise RefusedError(str(error)) from error
    if args.json:
        print_json(comparison_to_json(comparison))
    else:
        for line in comparison_lines(comparison):
            print(line)
    return 0 if comparison.all_closed else 1
