"""`dicomward assess worker`: one more process that works on an assessment, on this machine or on another one."""

import argparse

from dicomward.cli.assess import (
    add_lease_argument,
    add_scope_arguments,
    authorise,
    end_of_run,
    make_directory,
    open_database,
    read_scope,
    work_on_shards,
)
from dicomward.cli.common import RefusedError, operator_of, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Take part in an assessment that was begun with `dicomward assess … --database URL`. Any number of workers may "
        "run, with the same scope and each with a directory of its own; one that dies loses nothing and counts nothing "
        "twice: start it again. See docs/assessment.md."
    )
    add_scope_arguments(parser, out="directory of this worker: its audit log, and where STOP stops the whole run")
    parser.add_argument(
        "--database", metavar="URL", required=True, help="that of the run: postgresql://USER@HOST/NAME, or a file"
    )
    add_lease_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Work until nothing is left; see main for exit codes."""
    from dicomward.io.assess.shared_run import STOPPED_BY

    scope, sites = read_scope(args)
    operator = operator_of(args)
    authorise(args, scope)
    make_directory(args.out)
    with open_database(args, scope) as store:
        facts = store.values()
        if facts.get("filled_at") is None:
            raise RefusedError(
                "the database holds no assessment yet; begin it with `dicomward assess SCOPE.toml --out DIR --database "
                "URL`, then start workers"
            )
        if facts["scope_sha256"] != scope.sha256:
            raise RefusedError(
                f"the run in the database was made with another scope ({facts['scope_sha256'][:16]}…); take that file"
            )
        if why := facts.get(STOPPED_BY):
            raise RefusedError(
                f"the run was stopped by {why}; go on with it by `dicomward assess … --database URL --resume`"
            )
        stopped = work_on_shards(args, scope, operator, store, sites)
        done, total = store.progress()
    if args.json:
        print_json({"hosts": {"done": done, "total": total}, "stopped": stopped or None})
    else:
        print(f"{done:,} of {total:,} hosts done by all workers")
    return end_of_run(stopped)
