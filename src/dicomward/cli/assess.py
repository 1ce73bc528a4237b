"""`dicomward assess`: which DICOM services are open in networks that one may test, and what guards them."""

import argparse
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.assess.scope import Scope, ScopeError, is_public, parse_scope
from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_json_argument,
    add_operator_argument,
    operator_of,
    print_json,
    print_table,
    warn,
)

if TYPE_CHECKING:
    from dicomward.assess.sites import Sites
    from dicomward.assess.targets import Target
    from dicomward.io.assess.probe_proof import NameServer
    from dicomward.io.assess.run import Progress, RunSetup
    from dicomward.io.assess.shards import ShardStore
    from dicomward.io.assess.store import AssessStore

_MOST_SCOPE_BYTES: Final = 4 * 1024 * 1024
_MOST_TARGET_BYTES: Final = 256 * 1024 * 1024
_MOST_SITE_BYTES: Final = 64 * 1024 * 1024
_LEAST_PREFIX: Final = 8
_LEAST_LEASE: Final = 1
_MOST_LEASE: Final = 3600
# Where nobody looks on, a line now and then is enough.
_QUIET_SECONDS: Final = 30.0
_MOST_SHOWN: Final = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Assess which DICOM services can be reached in the networks of a scope, what guards them, and what would close "
        "them. Only what the scope names is touched; the scope is confirmed by its hash. Sends C-ECHO, queries that "
        "match nothing, and GETs; never C-STORE, C-GET, C-MOVE. See docs/assessment.md."
    )
    add_scope_arguments(parser, out="directory of the results")
    parser.add_argument("--resume", action="store_true", help="go on with the run that is in DIR")
    parser.add_argument(
        "--targets",
        metavar="FILE",
        action="append",
        type=Path,
        default=[],
        help="only these hosts of the scope: a list, nmap or masscan output, LDIF, Orthanc configuration (repeatable)",
    )
    parser.add_argument(
        "--database", metavar="URL", help="share the run with `assess worker`: postgresql://USER@HOST/NAME, or a file"
    )
    add_lease_argument(parser)


def add_lease_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--lease`."""
    parser.add_argument(
        "--lease",
        metavar="SECONDS",
        type=float,
        default=120.0,
        help="how long others wait for a worker that no longer answers (default: %(default)g)",
    )


def add_scope_arguments(parser: argparse.ArgumentParser, *, out: str) -> None:
    """Add what every process of an assessment needs: the scope, its confirmation, and a directory."""
    parser.add_argument("scope", metavar="SCOPE.toml", type=Path, help="who has authorised it, until when, and where")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help=out)
    parser.add_argument("--confirm", metavar="HASH", help="SHA-256 of the scope file (default: asked for)")
    parser.add_argument("--sites", metavar="FILE", type=Path, help="list of networks with their countries and sites")
    parser.add_argument("--dns", metavar="HOST[:PORT]", help="DNS server for proofs (default: the system's)")
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Assess; see main for exit codes."""
    scope, sites = read_scope(args)
    operator = operator_of(args)
    targets = _targets(args, scope)
    if targets is None:
        _verify_size(scope)
    authorise(args, scope)
    make_directory(args.out)
    if args.database:
        return _assess_with_others(args, scope, operator, targets, sites)
    return _assess(args, scope, operator, targets, sites)


def read_scope(args: argparse.Namespace) -> "tuple[Scope, Sites | None]":
    """Read the scope and the list of sites. Raises UsageError."""
    scope = _read_scope(args.scope)
    if scope.ca_file:
        scope = replace(scope, ca_file=str(args.scope.parent / scope.ca_file))
        _verify_ca_file(scope.ca_file)
    return scope, read_site_list(args.sites or (args.scope.parent / scope.sites if scope.sites else None))


def authorise(args: argparse.Namespace, scope: Scope) -> None:
    """See that the scope is valid, confirmed and proved, before anything is sent. Raises RefusedError, UsageError."""
    today = now().astimezone().date()
    if not scope.is_valid_on(today):
        raise RefusedError(
            f"the scope is valid from {scope.valid_from} to {scope.valid_until}, and today is {today}: nothing "
            "was sent. Ask its owner for a new authorisation"
        )
    _confirm(scope, args.confirm)
    _prove(scope, _name_server(args.dns))


def make_directory(path: Path) -> None:
    """Make the directory of the results. Raises UsageError, RefusedError."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"--out: {path} is no directory; name one that is new, or one of an earlier run with --resume")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise RefusedError(f"the directory {path} can't be made: {error.strerror}; name another one") from error


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.fromtimestamp(time.time(), UTC)


def _read_scope(path: Path) -> Scope:
    try:
        if path.stat().st_size > _MOST_SCOPE_BYTES:
            raise UsageError(f"{path} is larger than {_MOST_SCOPE_BYTES} bytes: this can't be a scope")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the scope {path} can't be read: {error.strerror}") from error
    try:
        return parse_scope(data, str(path))
    except ScopeError as error:
        raise UsageError(str(error)) from error


def _verify_ca_file(path: str) -> None:
    from dicomward.io.assess.probe_tls import trusting

    try:
        trusting(path)
    except OSError as error:
        raise UsageError(
            f"ca_file {path} can't be used: {error.strerror or error}; it must hold certificates of CAs in PEM"
        ) from error


def read_site_list(path: Path | None) -> "Sites | None":
    """Read a list of sites, where one is named. Raises UsageError."""
    from dicomward.assess.sites import SiteListError, read_sites

    if path is None:
        return None
    try:
        if path.stat().st_size > _MOST_SITE_BYTES:
            raise UsageError(f"{path} is larger than {_MOST_SITE_BYTES} bytes: this can't be a list of sites")
        return read_sites(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"the list of sites {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the list of sites {path} is not UTF-8 text") from error
    except SiteListError as error:
        raise UsageError(f"the list of sites {path}, {error}") from error


def _confirm(scope: Scope, confirmation: str | None) -> None:
    """Take the hash from the command line or a prompt. Raises RefusedError."""
    if confirmation is None:
        print(_summary(scope), file=sys.stderr)
        print(f"Confirm with the first {_LEAST_PREFIX} or more characters of the hash: ", file=sys.stderr, end="")
        sys.stderr.flush()
        confirmation = sys.stdin.readline()
    text = confirmation.strip().lower().removeprefix("sha256:")
    if not text:
        raise RefusedError(f"the scope was not confirmed, so nothing was sent; confirm it: --confirm {scope.sha256}")
    if len(text) < _LEAST_PREFIX or not scope.sha256.startswith(text):
        raise RefusedError(
            f"{text[:64]!r} is not the hash of this scope, so nothing was sent; has the file changed? "
            f"Read it again, then: --confirm {scope.sha256}"
        )


def _summary(scope: Scope) -> str:
    public = sum(is_public(each.network) for each in scope.networks)
    exceptions = [f"{each.network} ({each.reason})" for each in scope.do_not_probe]
    counting = [str(each.network) for each in scope.networks if each.counting]
    return "\n".join(
        (
            f"owner          {scope.owner}",
            f"authorisation  {scope.authorisation}",
            f"contact        {scope.contact}",
            f"valid          {scope.valid_from} to {scope.valid_until}",
            f"networks       {', '.join(str(each.network) for each in scope.networks[:8])}"
            f"{' …' if len(scope.networks) > 8 else ''}: {scope.count():,} addresses, {public} of them public lines",
            f"do not probe   {', '.join(exceptions) or 'nothing'}",
            f"counting       {', '.join(counting) or 'off'}",
            f"announces as   {scope.calling_ae_title}",
            f"hash           {scope.sha256}",
        )
    )


def _targets(args: argparse.Namespace, scope: Scope) -> "list[Target] | None":
    """Return the hosts that files name, None where the networks themselves are meant. Raises UsageError."""
    paths = [*args.targets, *(args.scope.parent / each for each in scope.targets)]
    if not paths:
        return None
    from dicomward.assess.targets import TargetsError, read_targets

    found = []
    for path in paths:
        try:
            if path.stat().st_size > _MOST_TARGET_BYTES:
                raise UsageError(f"{path} is larger than {_MOST_TARGET_BYTES} bytes; split it")
            found += read_targets(path.read_text(encoding="utf-8-sig"), path.name)
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not UTF-8 text") from error
        except TargetsError as error:
            raise UsageError(str(error)) from error
    if not found:
        raise UsageError(f"no host with an open port is named in {', '.join(map(str, paths))}")
    return found


def _verify_size(scope: Scope) -> None:
    from dicomward.assess.scope import MOST_ADDRESSES

    if scope.count() > MOST_ADDRESSES:
        raise UsageError(
            f"the networks have more than {MOST_ADDRESSES:,} addresses; name hosts of large networks by --targets FILE"
        )


def _name_server(text: str | None) -> "NameServer | None":
    from ipaddress import ip_address

    from dicomward.io.assess.probe_proof import NameServer

    if text is None:
        return None
    address, port = text, 53
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        port = int(rest[1:]) if rest[1:].isdigit() else 53
    elif text.count(":") == 1:
        address, _, rest = text.partition(":")
        port = int(rest) if rest.isdigit() else 0
    try:
        ip_address(address)
    except ValueError as error:
        raise UsageError(f"--dns: {address!r} is no address") from error
    if not 1 <= port <= 0xFFFF:
        raise UsageError(f"--dns: {text!r} has no port from 1 to 65535")
    return NameServer(address=address, port=port)


def _prove(scope: Scope, server: "NameServer | None") -> None:
    if not any(each.proof for each in scope.networks):
        return
    from dicomward.io.assess.probe_proof import ProofError, verify_proofs

    try:
        verify_proofs(scope, server)
    except ProofError as error:
        raise RefusedError(f"{error}. Nothing was sent") from error


def _assess(
    args: argparse.Namespace, scope: Scope, operator: str, targets: "list[Target] | None", sites: "Sites | None"
) -> int:
    import sqlite3

    from dicomward.io.assess.count_secrecy import NotSecret
    from dicomward.io.assess.run import AssessRun, fill_store
    from dicomward.io.assess.store import AssessStore, StoreError
    from dicomward.io.audit.log import AuditLogError

    try:
        with AssessStore(args.out, create=not args.resume) as store:
            _claim(store, scope, args, str(args.out))
            # A run that goes on keeps the hosts that it began with, whatever files are named now.
            if store.value("filled_at") is None:
                fill_store(store, scope, targets)
                store.set_value("filled_at", now().isoformat(timespec="seconds"))
            shown = ProgressLine()
            stopped = AssessRun(_setup(args, scope, operator, sites, shown), store).run()
            shown.end()
            _print(args, store, stopped)
    except (StoreError, AuditLogError, NotSecret) as error:
        raise RefusedError(str(error)) from error
    except sqlite3.Error as error:
        raise RefusedError(f"{args.out} can't be written: {error}; make room, then go on by --resume") from error
    return end_of_run(stopped)


def _assess_with_others(
    args: argparse.Namespace, scope: Scope, operator: str, targets: "list[Target] | None", sites: "Sites | None"
) -> int:
    """Fill the database, work on it like any worker until everybody is done, and collect the results."""
    from dicomward.io.assess.run import fill_store
    from dicomward.io.assess.shared_run import STOPPED_BY, collect
    from dicomward.io.assess.store import STORE_NAME, AssessStore, StoreError

    if (args.out / STORE_NAME).exists() and not args.resume:
        raise RefusedError(f"{args.out} holds an assessment already; go on by --resume, or name another directory")
    with open_database(args, scope) as store:
        if args.resume and store.value("scope_sha256") is None:
            raise RefusedError("the database holds no assessment; begin one without --resume")
        _claim(store, scope, args, "the database")
        if store.value("filled_at") is None:
            store.clear()
            fill_store(store, scope, targets)
            store.set_value("filled_at", now().isoformat(timespec="seconds"))
        store.drop_value(STOPPED_BY)
        stopped = work_on_shards(args, scope, operator, store, sites)
        collect(store, args.out)
    try:
        with AssessStore(args.out) as copy:
            _print(args, copy, stopped)
    except StoreError as error:
        raise RefusedError(str(error)) from error
    return end_of_run(stopped)


@contextmanager
def open_database(args: argparse.Namespace, scope: Scope) -> "Iterator[ShardStore]":
    """Open the database of a run that is shared, and close it. Raises UsageError; RefusedError where it fails."""
    from dicomward.io.assess.shards import ShardError, ShardStore

    if not _LEAST_LEASE <= args.lease <= _MOST_LEASE:
        raise UsageError(f"--lease must be {_LEAST_LEASE} to {_MOST_LEASE} seconds")
    try:
        store = ShardStore(database_url(args.database), lease_seconds=args.lease, alone_of=scope.fragile_network_of)
        try:
            yield store
        finally:
            store.close()
    except ShardError as error:
        raise RefusedError(f"{error}; nothing is lost: see to it, then go on (docs/assessment-classes.md)") from error


def database_url(text: str) -> str:
    """Return a URL of SQLAlchemy: any spelling of PostgreSQL's, or a file for SQLite."""
    if match := re.match(r"(?:postgresql|postgres)://", text):
        return f"postgresql+psycopg://{text[match.end() :]}"
    return text if "://" in text else f"sqlite:///{text}"


def work_on_shards(
    args: argparse.Namespace, scope: Scope, operator: str, store: "ShardStore", sites: "Sites | None"
) -> str:
    """Lease and work until no shard is left; return why it ended early. Raises RefusedError, ShardError."""
    from dicomward.io.assess.count_secrecy import NotSecret
    from dicomward.io.assess.shared_run import SharedRun
    from dicomward.io.audit.log import AuditLogError

    shown = ProgressLine()
    worker = f"{socket.gethostname()} {os.getpid()}"
    try:
        return SharedRun(_setup(args, scope, operator, sites, shown), store, worker).run()
    except (AuditLogError, NotSecret) as error:
        raise RefusedError(str(error)) from error
    finally:
        shown.end()


def _setup(
    args: argparse.Namespace, scope: Scope, operator: str, sites: "Sites | None", shown: "ProgressLine"
) -> "RunSetup":
    from dicomward.io.assess.run import RunSetup

    return RunSetup(scope=scope, directory=args.out, operator=operator, now=now, sites=sites, on_progress=shown.show)


def end_of_run(stopped: str) -> int:
    """Say if it was stopped, and return the exit code."""
    if stopped:
        warn(f"the assessment stopped: {stopped}")
    return 1 if stopped else 0


def _claim(store: "AssessStore | ShardStore", scope: Scope, args: argparse.Namespace, where: str) -> None:
    """Write down whose run it is. Raises RefusedError where another one is there already."""
    known = store.value("scope_sha256")
    if known is not None and not args.resume:
        take_part = "take part in it by `assess worker`, " if args.database else ""
        raise RefusedError(
            f"{where} holds an assessment already; {take_part}go on with it by --resume, or name another one"
        )
    if known not in (None, scope.sha256):
        raise RefusedError(
            f"the run in {where} was made with another scope ({known[:16] if known else ''}…); take that scope, or "
            "begin a new run elsewhere"
        )
    facts = {
        "scope_sha256": scope.sha256,
        "owner": scope.owner,
        "authorisation": scope.authorisation,
        "contact": scope.contact,
        "valid_from": str(scope.valid_from),
        "valid_until": str(scope.valid_until),
    }
    if known is None:
        facts["started_at"] = now().isoformat(timespec="seconds")
    for name, value in facts.items():
        store.set_value(name, value)


class ProgressLine:
    """Shows how far it is: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._is_terminal = sys.stderr.isatty()
        self._next = clock() + _QUIET_SECONDS
        self._is_open = False

    def show(self, progress: "Progress") -> None:
        """Show it, unless it is too early for the next line."""
        if self._is_terminal:
            self._is_open = True
            width = 24
            filled = width * progress.done // max(1, progress.total)
            bar = f"[{'#' * filled}{'.' * (width - filled)}] "
            print(f"\r{bar}{_progress_in_words(progress)}   ", end="", file=sys.stderr, flush=True)
        elif self._clock() >= self._next:
            self._next = self._clock() + _QUIET_SECONDS
            print(_progress_in_words(progress), file=sys.stderr, flush=True)

    def end(self) -> None:
        """End the line."""
        if self._is_open:
            print(file=sys.stderr)


def _progress_in_words(progress: "Progress") -> str:
    left = progress.seconds_left
    eta = "" if left is None else f", about {left:,.0f} s left"
    what = "counted" if progress.is_counting else "hosts"
    # None in this process: what was found before a break, or by others, is not known here.
    servers = f", {progress.servers:,} servers" if progress.servers else ""
    return f"{progress.done:,} of {progress.total:,} {what}{servers}{eta}"


def _print(args: argparse.Namespace, store: "AssessStore", stopped: str) -> None:
    from dicomward.assess.findings import CATALOGUE
    from dicomward.assess.observation import Reach

    done, total = store.progress()
    if args.json:
        print_json(
            {
                "run": store.values(),
                "hosts": {"done": done, "total": total},
                "stopped": stopped or None,
                "excluded": [{"address": address, "why": why} for address, why in store.excluded()],
                "servers": list(store.observations_as_json()),
            }
        )
        return
    rows = []
    closed = (Reach.REFUSED, Reach.SILENT, Reach.UNREACHABLE)
    found = [each for each in store.observations() if each.reach not in closed]
    for each in found:
        product = f"{each.product.product or each.product.vendor} {each.product.version}".strip()
        rows.append((each.address, str(each.port), each.protocol.value, each.reach.value, product or "-"))
    if rows:
        print_table(("address", "port", "protocol", "reach", "product"), rows)
    for each in found:
        for finding in each.findings:
            title = CATALOGUE[finding.id].title
            print(f"{each.address} port {each.port}: {finding.id} {title} ({finding.evidence})")
        for control in each.controls:
            print(
                f"  {each.address} port {each.port}  {control.verdict.value:12}  {control.control.value}: {control.why}"
            )
        if each.problem:
            print(f"  {each.address} port {each.port}: {each.problem}")
    _print_excluded(store.excluded())
    print(f"{done:,} of {total:,} hosts done, {len(found):,} servers, in {args.out}")


def _print_excluded(excluded: Sequence[tuple[str, str]]) -> None:
    """Say what was not touched, and why: a name that nobody knows must not look like a host without servers."""
    by_reason: dict[str, list[str]] = {}
    for address, why in excluded:
        by_reason.setdefault(why, []).append(address)
    for why, addresses in by_reason.items():
        more = f" and {len(addresses) - _MOST_SHOWN:,} more" if len(addresses) > _MOST_SHOWN else ""
        print(f"not touched: {', '.join(addresses[:_MOST_SHOWN])}{more} ({why})")
