"""`dicomward assess`: which DICOM services are open in networks that one may test, and what guards them."""

import argparse
import sys
import time
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
    from dicomward.assess.targets import Target
    from dicomward.io.assess.probe_proof import NameServer
    from dicomward.io.assess.run import Progress
    from dicomward.io.assess.store import AssessStore

_MOST_SCOPE_BYTES: Final = 4 * 1024 * 1024
_MOST_TARGET_BYTES: Final = 256 * 1024 * 1024
_LEAST_PREFIX: Final = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Assess which DICOM services can be reached in the networks of a scope, what guards them, and what would close "
        "them. Only what the scope names is touched; the scope is confirmed by its hash. Sends C-ECHO, queries that "
        "match nothing, and GETs; never C-STORE, C-GET, C-MOVE. See docs/assessment.md."
    )
    parser.add_argument("scope", metavar="SCOPE.toml", type=Path, help="who has authorised it, until when, and where")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="directory of the results")
    parser.add_argument("--confirm", metavar="HASH", help="SHA-256 of the scope file (default: asked for)")
    parser.add_argument("--resume", action="store_true", help="go on with the run that is in DIR")
    parser.add_argument(
        "--targets",
        metavar="FILE",
        action="append",
        type=Path,
        default=[],
        help="only these hosts of the scope: a list, nmap or masscan output, LDIF, Orthanc configuration (repeatable)",
    )
    parser.add_argument("--dns", metavar="HOST[:PORT]", help="DNS server for proofs (default: the system's)")
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Assess; see main for exit codes."""
    scope = _read_scope(args.scope)
    operator = operator_of(args)
    today = _now().date()
    if not scope.is_valid_on(today):
        raise RefusedError(
            f"the scope is valid from {scope.valid_from} to {scope.valid_until}, and today is {today}: nothing "
            "was sent. Ask its owner for a new authorisation"
        )
    _confirm(scope, args.confirm)
    targets = _targets(args, scope)
    if targets is None:
        _verify_size(scope)
    _prove(scope, _name_server(args.dns))
    return _assess(args, scope, operator, targets)


def _now() -> datetime:
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
    from dicomward.assess.targets import TargetsError, read_targets

    paths = [*args.targets, *(args.scope.parent / each for each in scope.targets)]
    if not paths:
        return None
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
    from dicomward.io.assess.probe_proof import ProofError, verify_proofs

    try:
        verify_proofs(scope, server)
    except ProofError as error:
        raise RefusedError(f"{error}. Nothing was sent") from error


def _assess(args: argparse.Namespace, scope: Scope, operator: str, targets: "list[Target] | None") -> int:
    from dicomward.io.assess.run import AssessRun, fill_store
    from dicomward.io.assess.store import AssessStore, StoreError
    from dicomward.io.audit.log import AuditLogError

    args.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with AssessStore(args.out, create=not args.resume) as store:
            _claim(store, scope, args)
            # A run that goes on keeps the hosts that it began with, whatever files are named now.
            if store.value("filled_at") is None:
                fill_store(store, scope, targets)
                store.set_value("filled_at", _now().isoformat(timespec="seconds"))
            progress = _progress_line if sys.stderr.isatty() else None
            run_of = AssessRun(scope, args.out, store, operator=operator, now=_now, on_progress=progress)
            stopped = run_of.run()
            if progress is not None:
                print(file=sys.stderr)
            _print(args, store, stopped)
    except (StoreError, AuditLogError) as error:
        raise RefusedError(str(error)) from error
    if stopped:
        warn(f"the assessment stopped: {stopped}")
    return 1 if stopped else 0


def _claim(store: "AssessStore", scope: Scope, args: argparse.Namespace) -> None:
    """Write down whose run it is. Raises RefusedError where the directory holds another one."""
    known = store.value("scope_sha256")
    if known is not None and not args.resume:
        raise RefusedError(
            f"{args.out} holds an assessment already; go on with it by --resume, or name another directory"
        )
    if known not in (None, scope.sha256):
        raise RefusedError(
            f"the run in {args.out} was made with another scope ({known[:16] if known else ''}…); take that scope, or "
            "begin a new run in another directory"
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
        facts["started_at"] = _now().isoformat(timespec="seconds")
    for name, value in facts.items():
        store.set_value(name, value)


def _progress_line(progress: "Progress") -> None:
    left = progress.seconds_left
    eta = "" if left is None else f", about {left:,.0f} s left"
    width = 24
    filled = width * progress.done // max(1, progress.total)
    print(
        f"\r[{'#' * filled}{'.' * (width - filled)}] {progress.done:,} of {progress.total:,} hosts, "
        f"{progress.servers:,} servers{eta}   ",
        end="",
        file=sys.stderr,
        flush=True,
    )


def _print(args: argparse.Namespace, store: "AssessStore", stopped: str) -> None:
    from dicomward.assess.findings import CATALOGUE
    from dicomward.assess.observation import Reach, observation_to_json

    done, total = store.progress()
    if args.json:
        print_json(
            {
                "run": store.values(),
                "hosts": {"done": done, "total": total},
                "stopped": stopped or None,
                "excluded": [{"address": address, "why": why} for address, why in store.excluded()],
                "servers": [observation_to_json(each) for each in store.observations()],
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
    print(f"{done:,} of {total:,} hosts done, {len(found):,} servers, in {args.out}")
