"""`dicomward archive add | list | show | remove`."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.cli.common import (
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    now,
    parse_endpoint,
    print_json,
    print_table,
    require,
    warn,
)
from dicomward.cli.registry_command import (
    applied_to_json,
    change_to_json,
    describe_applied,
    describe_history,
    make_change,
    principal_to_json,
    read_history,
    read_registry,
    require_view,
    unknown_name,
)

if TYPE_CHECKING:
    from dicomward.identity.registry import Archive, Endpoint
    from dicomward.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = (
        "Register archives (PACS, worklist broker, dose registry): what devices reach by a called AE title."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _describe_add(actions.add_parser("add", help="register an archive", description="Register an archive."))
    for name, text in (("list", "list all archives"), ("show", "show one archive and its history")):
        child = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == "show":
            child.add_argument("name", metavar="NAME", help="its registered name")
        add_config_argument(child)
        add_operator_argument(child)
        add_json_argument(child)
    text = "remove an archive; a running gateway aborts its open associations"
    child = actions.add_parser("remove", help=text, description=f"{text[0].upper()}{text[1:]}.")
    child.add_argument("name", metavar="NAME", help="its registered name")
    add_config_argument(child)
    add_operator_argument(child)
    add_json_argument(child)


def _describe_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name for rules, limits and the audit log")
    parser.add_argument("target", metavar="AET@HOST:PORT", help="its own AE title, and where it listens")
    parser.add_argument(
        "--called",
        metavar="AET",
        action="append",
        default=[],
        help="called AE title that devices type to reach it (default: its own)",
    )
    parser.add_argument(
        "--calling",
        metavar="AET",
        action="append",
        default=[],
        help="AE title that it calls us with (default: its own)",
    )
    parser.add_argument(
        "--network",
        metavar="CIDR",
        action="append",
        default=[],
        help="where it calls from (default: its own address)",
    )
    parser.add_argument("--tls", action="store_true", help="speak mutual TLS with it; needs --pin")
    parser.add_argument(
        "--pin", metavar="CERT", type=Path, help="its own certificate (PEM or DER), without --tls unused"
    )
    parser.add_argument(
        "--dedicated-link",
        action="store_true",
        help="nobody else is on the link to it, so plaintext to another machine is allowed",
    )
    parser.add_argument(
        "--replica-of",
        metavar="NAME",
        default="",
        help="it holds what this archive holds, and stands in for it while that one does not answer",
    )
    parser.add_argument("--site", metavar="SITE", default="", help="where it stands, for rules and the audit log")
    parser.add_argument(
        "--max-associations",
        metavar="N",
        type=int,
        help="cap on associations towards it; written into the settings file, in force at the next start",
    )
    add_config_argument(parser)
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    settings = load_settings_of(args)
    match args.action:
        case "add":
            return _add(args, settings)
        case "list":
            return _list(args, settings)
        case "show":
            return _show(args, settings)
        case _:
            return _remove(args, settings)


# --- what the arguments mean, also for `init` ------------------------------------------------------------------------


def parse_target(text: str) -> "tuple[str, Endpoint]":
    """Read `AET@HOST:PORT`. Raises UsageError."""
    from dicomward.vocab.ae_title import AeTitleError, parse_ae_title

    # An AE title may hold an @, a host can't.
    ae_title, at, address = text.rpartition("@")
    if not at:
        raise UsageError(f"{text!r} is not AET@HOST:PORT; write it as PACS@10.0.0.5:104")
    try:
        return parse_ae_title(ae_title), parse_endpoint(address)
    except AeTitleError as error:
        raise UsageError(f"{ae_title!r}: {error}") from error


def name_for(ae_title: str) -> str:
    """Return the AE title as a name: what names can't hold becomes a dash."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", ae_title).lstrip("._-") or "archive"


def build_archive(
    *,
    name: str,
    ae_title: str,
    endpoint: "Endpoint",
    called: tuple[str, ...] = (),
    calling: tuple[str, ...] = (),
    networks: tuple[str, ...],
    tls: bool,
    pin: Path | None,
    dedicated_link: bool,
    site: str = "",
    replica_of: str = "",
    prefix: str = "--",
) -> "Archive":
    """Return the archive; what isn't said is derived. `prefix` names the options in messages. Raises UsageError."""
    from dicomward.identity.registry import Archive, RegistryError
    from dicomward.io.gateway.archive_link import ArchiveLinkError, networks_of, pin_of, verify_link

    if tls != (pin is not None):
        raise UsageError(f"{prefix}tls and {prefix}pin CERT go together: the archive is known by its own certificate")
    try:
        verify_link(endpoint.host, tls=tls, dedicated_link=dedicated_link, prefix=prefix)
        return Archive(
            name=name,
            ae_title=ae_title,
            called_ae_titles=called,
            calling_ae_titles=calling or (ae_title,),
            endpoint=endpoint,
            networks=networks or networks_of(endpoint.host, prefix=prefix),
            tls=tls,
            dedicated_link=dedicated_link,
            certificate_sha256=pin_of(pin) if pin is not None else None,
            site=site,
            replica_of=replica_of,
        )
    except (ArchiveLinkError, RegistryError) as error:
        raise UsageError(str(error)) from error


# --- actions ---------------------------------------------------------------------------------------------------------


def _add(args: argparse.Namespace, settings: "Settings") -> int:
    ae_title, endpoint = parse_target(args.target)
    archive = build_archive(
        name=args.name,
        ae_title=ae_title,
        endpoint=endpoint,
        called=tuple(args.called),
        calling=tuple(args.calling),
        networks=tuple(args.network),
        tls=args.tls,
        pin=args.pin,
        dedicated_link=args.dedicated_link,
        site=args.site,
        replica_of=args.replica_of,
    )
    capped = _capped(settings, archive.name, args.max_associations)
    evidence = [args.pin] if args.pin is not None else []
    operator = _require_change(args, settings, evidence)
    applied = make_change(settings, lambda store: store.add_archive(archive, by=operator, at=now()))
    if capped is not None:
        _replace_text(settings.path, capped)
        warn(
            f"the cap of {args.max_associations} associations is in {settings.path}; "
            "a running gateway takes it with: dicomward reload"
        )
    if args.json:
        print_json({**principal_to_json(archive), **applied_to_json(applied)})
    else:
        titles = ", ".join(archive.called_ae_titles)
        print(f"archive {archive.name} registered: devices reach it as {titles}; {describe_applied(applied)}")
    return 0


def _require_change(args: argparse.Namespace, settings: "Settings", evidence: Sequence[Path]) -> str:
    from dicomward.identity.operators import Permission

    return require(args, Permission.ARCHIVE_CHANGE, settings=settings, evidence=evidence)


def _capped(settings: "Settings", name: str, maximum: int | None) -> str | None:
    """Return the settings file's text with the cap in it. Raises UsageError."""
    from dicomward.settings import SettingsError, parse_settings

    if maximum is None:
        return None
    if name in settings.limits.archives:
        raise UsageError(f'{settings.path} has [limits.archive."{name}"] already; change the number there')
    text = settings.path.read_text(encoding="utf-8").rstrip("\n")
    text = f'{text}\n\n[limits.archive."{name}"]\nassociations = {maximum}\n'
    try:
        parse_settings(text, path=settings.path)
    except SettingsError as error:
        raise UsageError(f"--max-associations {maximum}: {error}") from error
    return text


def _replace_text(path: Path, text: str) -> None:
    """Replace the settings file whole; it keeps its rights."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(path.stat().st_mode & 0o777)
    temporary.replace(path)


def _list(args: argparse.Namespace, settings: "Settings") -> int:
    require_view(args, settings)
    archives = read_registry(settings).archives
    if args.json:
        print_json([principal_to_json(archive) for archive in archives])
        return 0
    rows = [
        (
            archive.name,
            ",".join(archive.called_ae_titles),
            f"{archive.ae_title}@{_address(archive)}",
            _link(archive),
            archive.site or "-",
        )
        for archive in archives
    ]
    print_table(("NAME", "CALLED AS", "TARGET", "LINK", "SITE"), rows)
    return 0


def _show(args: argparse.Namespace, settings: "Settings") -> int:
    require_view(args, settings)
    snapshot = read_registry(settings)
    archive = snapshot.archive_by_name(args.name)
    if archive is None:
        raise unknown_name("archive", args.name, [each.name for each in snapshot.archives])
    history = read_history(settings, archive.name)
    if args.json:
        print_json({**principal_to_json(archive), "history": [change_to_json(change) for change in history]})
        return 0
    print(f"archive {archive.name}")
    print(f"  AE title         {archive.ae_title}")
    print(f"  listens at       {_address(archive)} ({_link(archive)})")
    print(f"  called as        {', '.join(archive.called_ae_titles)}")
    print(f"  calls us with    {', '.join(archive.calling_ae_titles) or '-'}")
    print(f"  calls from       {', '.join(archive.networks) or '-'}")
    print(f"  pinned           {archive.certificate_sha256 or '-'}")
    print(f"  site             {archive.site or '-'}")
    print(f"  stands in for    {archive.replica_of or '-'}")
    print(f"  associations     at most {settings.limits.for_archive(archive.name).associations}")
    print("history")
    print("\n".join(describe_history(history)))
    return 0


def _remove(args: argparse.Namespace, settings: "Settings") -> int:
    operator = _require_change(args, settings, [])
    applied = make_change(settings, lambda store: store.remove_archive(args.name, by=operator, at=now()))
    if args.json:
        print_json({"name": args.name, **applied_to_json(applied)})
    else:
        print(f"archive {args.name} removed; {describe_applied(applied)}")
    return 0


def _address(archive: "Archive") -> str:
    from dicomward.settings import ListenAddress

    return str(ListenAddress(host=archive.endpoint.host, port=archive.endpoint.port))


def _link(archive: "Archive") -> str:
    if archive.tls:
        return "mutual TLS"
    return "plaintext, dedicated link" if archive.dedicated_link else "plaintext, loopback"
