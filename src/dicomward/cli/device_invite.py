"""`dicomward device invite`: a one-time code for a device, or for all of a CSV file."""

import argparse
import csv
import io
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.cli.common import RefusedError, UsageError, now, parse_when, print_json, require, warn
from dicomward.cli.grant_arguments import describe_grant, grant_from, several
from dicomward.cli.registry_command import read_registry

if TYPE_CHECKING:
    from datetime import datetime

    from dicomward.io.enrolment.inviting import Handed, Wish
    from dicomward.settings import Settings

_COLUMNS: Final = ("name", "aet", "role", "site", "network", "address", "plain", "key", "days", "expires")
_HEADINGS: Final = {
    "device": "name",
    "devicename": "name",
    "aetitle": "aet",
    "aetitles": "aet",
    "networks": "network",
    "expiry": "expires",
}
_OUT_COLUMNS: Final = ("name", "aet", "code", "expires_at", "server", "uri", "cmp_reference", "cmp_secret")
_MOST_ROWS: Final = 10_000
_TRUE: Final = frozenset({"1", "yes", "true", "x"})


@dataclass(frozen=True, slots=True)
class Offer:
    """What is shown of an invitation."""

    handed: "Handed"
    server: str

    def to_json(self) -> dict[str, object]:
        """Return it as an object."""
        grant = self.handed.invitation.grant
        return {
            "name": grant.device,
            "invitation": self.handed.invitation.id,
            "code": self.handed.code.text,
            "uri": self.handed.uri(self.server),
            "server": self.server,
            "expires_at": self.handed.invitation.expires_at.isoformat(),
            "ae_titles": grant.ae_titles,
            "role": grant.role,
            "site": grant.site,
            "networks": grant.networks,
            "cmp": {"reference": grant.device, "secret": self.handed.cmp_secret},
        }

    def to_row(self) -> dict[str, str]:
        """Return it as a row of a CSV file."""
        invitation = self.handed.invitation
        return {
            "name": invitation.grant.device,
            "aet": ";".join(invitation.grant.ae_titles),
            "code": self.handed.code.text,
            "expires_at": invitation.expires_at.isoformat(),
            "server": self.server,
            "uri": self.handed.uri(self.server),
            "cmp_reference": invitation.grant.device,
            "cmp_secret": self.handed.cmp_secret,
        }

    def to_text(self, *, qr: bool) -> str:
        """Return it for people."""
        invitation, grant = self.handed.invitation, self.handed.invitation.grant
        where = ", ".join(grant.networks) or "the one address that it enrols from"
        lines = [
            f"device {grant.device} is invited until {invitation.expires_at.astimezone():%Y-%m-%d %H:%M}, from {where}",
            f"  code    {self.handed.code.text}",
            f"  server  {self.server}",
            f"  EST     name {grant.device}, password: the code",
            f"  CMP     reference {grant.device}, secret {self.handed.cmp_secret}",
            "at the device:",
            f"  dicomward enroll --server {self.server} --code {self.handed.code.text} --out DIR",
        ]
        if qr:
            lines.append(_qr(self.handed.uri(self.server)))
        return "\n".join(lines)


def describe(parser: argparse.ArgumentParser) -> None:
    """Describe `device invite`."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="name for rules, limits and the audit log")
    describe_grant(parser)
    parser.add_argument(
        "--expires", metavar="SPAN", help="how long the code lives, as 2h or 3d (default: enrolment.invitation_hours)"
    )
    parser.add_argument(
        "--url", metavar="URL", help="the enrolment server, for the device (default: from the settings)"
    )
    parser.add_argument(
        "--revoke-old", action="store_true", help="its certificates of today are revoked when the code is used"
    )
    parser.add_argument(
        "--csv",
        metavar="FILE",
        type=Path,
        help=f"invite all devices of this file, with a header line; columns: {', '.join(_COLUMNS)}",
    )
    parser.add_argument("--out", metavar="DIR", help="for --csv: a file NAME.txt for each device there, or - for CSV")
    parser.add_argument("--no-qr", action="store_true", help="print no QR")


def run(args: argparse.Namespace, settings: "Settings") -> int:
    """Invite; all of a file, or none."""
    from dicomward.identity.operators import Permission

    if (args.csv is None) == (args.name is None):
        raise UsageError("name one device, or a file of them with --csv FILE")
    if (args.csv is None) != (args.out is None):
        raise UsageError("--csv FILE and --out DIR belong together; - instead of DIR prints CSV")
    moment = now()
    if args.csv is not None:
        rows = _read_csv(args.csv)
        if args.out != "-":
            _check_new(Path(args.out), [row.name for row in rows])
    else:
        rows = [args]
    operator = require(
        args, Permission.DEVICE_CHANGE, settings=settings, evidence=[args.csv] if args.csv is not None else []
    )
    offers = offer(settings, _wishes(rows, args, settings, moment), operator, moment, url=args.url)
    if args.csv is None:
        _show(args, offers[0])
    elif args.out == "-":
        print(_render_csv(offers), end="")
    else:
        _write_files(Path(args.out), offers, qr=not args.no_qr)
        if args.json:
            print_json([each.to_json() for each in offers])
        else:
            print(f"{len(offers)} devices invited; their codes are in {args.out}, one file for each")
    return 0


def _show(args: argparse.Namespace, each: Offer) -> None:
    if args.json:
        print_json(each.to_json())
    else:
        print(each.to_text(qr=not args.no_qr))


def offer(
    settings: "Settings", wishes: "list[Wish]", operator: str, moment: "datetime", *, url: str | None = None
) -> list[Offer]:
    """Invite, put it on record, and return what is to be shown. Raises RefusedError."""
    from dicomward.audit.event import EnrolmentChanged
    from dicomward.identity.registry import RegistryError
    from dicomward.io.ca.directory import CaDirectory
    from dicomward.io.ca.sign import der_of
    from dicomward.io.ca.terms import CaError
    from dicomward.io.enrolment.invitation_store import revoke_invitations
    from dicomward.io.enrolment.inviting import invite
    from dicomward.io.enrolment.key import EnrolmentKeyError, load_enrolment_key
    from dicomward.io.enrolment.server import server_url
    from dicomward.io.people.operators import record_event
    from dicomward.io.registry.store import RegistryStore, RegistryStoreError

    server = (url or server_url(settings)).rstrip("/")
    if not server.startswith("https://"):
        raise UsageError(f"{server!r} is no https:// URL; the code would be sent in plaintext")
    try:
        root = der_of(CaDirectory(settings.enrolment.ca).root)
        key = load_enrolment_key(settings.enrolment.key, create=True)
        with RegistryStore.open(settings.registry.url) as store:
            handed = invite(store, wishes, by=operator, now=moment, key=key, root=root)
            for each in handed:
                grant = each.invitation.grant
                event = EnrolmentChanged(
                    operator=operator,
                    action="invite",
                    device=grant.device,
                    detail=f"invitation {each.invitation.id} until {each.invitation.expires_at.isoformat()}; "
                    f"AE titles {', '.join(grant.ae_titles)}; role {grant.role}; "
                    f"networks {', '.join(grant.networks) or 'the enrolling address'}",
                )
                if (problem := record_event(settings, event)) is not None:
                    with store.writing() as connection:
                        for one in handed:
                            revoke_invitations(connection, one.invitation.grant.device, by=operator, now=moment)
                    raise RefusedError(f"nobody was invited: the audit log can't take the record of it: {problem}")
    except (CaError, EnrolmentKeyError, RegistryError, RegistryStoreError) as error:
        raise RefusedError(str(error)) from error
    return [Offer(each, server) for each in handed]


def _wishes(
    rows: list[argparse.Namespace], args: argparse.Namespace, settings: "Settings", moment: "datetime"
) -> "list[Wish]":
    from dicomward.enrolment.invitation import MAX_EXPIRY, MIN_EXPIRY
    from dicomward.io.enrolment.inviting import Wish

    snapshot = read_registry(settings)
    wishes = []
    for row in rows:
        text = row.expires or args.expires
        expires_at = parse_when(text, moment) if text else moment + timedelta(hours=settings.enrolment.invitation_hours)
        if not MIN_EXPIRY <= expires_at - moment <= MAX_EXPIRY:
            raise UsageError(f"{text!r}: a code lives for a minute at least, and for {MAX_EXPIRY.days} days at most")
        grant = grant_from(row.name, row, settings, snapshot.device_by_name(row.name), revoke_others=args.revoke_old)
        wishes.append(Wish(grant=grant, expires_at=expires_at))
    return wishes


def _read_csv(path: Path) -> list[argparse.Namespace]:
    """Return a row of arguments for each device. Raises UsageError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}); name the CSV file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} can't be read as UTF-8 text: {error}; save it as CSV UTF-8") from error
    try:
        dialect = csv.Sniffer().sniff(text.partition("\n")[0], delimiters=",;\t")
    except csv.Error:
        dialect = csv.excel
    reader = csv.DictReader(io.StringIO(text), dialect=dialect)
    reader.fieldnames = [_column(str(name)) for name in reader.fieldnames or ()]
    unknown = set(reader.fieldnames) - set(_COLUMNS)
    if unknown or "name" not in reader.fieldnames:
        raise UsageError(
            f"{path}: {'unknown columns ' + ', '.join(sorted(map(str, unknown))) if unknown else 'no column name'}; "
            f"its first line names columns of {', '.join(_COLUMNS)}"
        )
    rows = []
    for number, record in enumerate(reader, start=2):
        cells = {key: (value or "").strip() for key, value in record.items() if isinstance(value, str | None)}
        if None not in record and not any(cells.values()):
            continue  # a spreadsheet leaves such lines
        if None in record or not cells.get("name"):
            raise UsageError(f"{path}, line {number}: it needs a name, and no more fields than the first line")
        if cells.get("days") and not cells["days"].isdecimal():
            raise UsageError(f"{path}, line {number}: {cells['days']!r} is no number of days")
        if cells.get("key") not in (None, "", "ecdsa", "rsa"):
            raise UsageError(f"{path}, line {number}: {cells['key']!r} is no kind of key; ecdsa or rsa")
        rows.append(
            argparse.Namespace(
                name=cells["name"],
                aet=several(cells.get("aet", "")) or None,
                role=cells.get("role") or None,
                site=cells.get("site") or None,
                network=several(cells.get("network", "")) or None,
                address=cells.get("address") or None,
                plain=cells.get("plain", "").lower() in _TRUE,
                key=cells.get("key") or None,
                days=int(cells["days"]) if cells.get("days") else None,
                expires=cells.get("expires") or None,
            )
        )
    if not rows or len(rows) > _MOST_ROWS:
        raise UsageError(f"{path} names {len(rows)} devices; write 1 to {_MOST_ROWS}")
    names = [row.name for row in rows]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UsageError(f"{path} names {double!r} twice")
    return rows


def _column(written: str) -> str:
    """Return the column that a heading means: as we write it, or as people do."""
    plain = "".join(each for each in written.lower() if each.isalnum())
    return _HEADINGS.get(plain, plain if plain in _COLUMNS else written.strip())


def _render_csv(offers: list[Offer]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _OUT_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(each.to_row() for each in offers)
    return text.getvalue()


def _check_new(directory: Path, names: list[str]) -> None:
    """Raise UsageError before anybody is invited whose file can't be written."""
    taken = [name for name in names if (directory / f"{name}.txt").exists()]
    if taken:
        raise UsageError(f"{directory} has files for {', '.join(taken)} already, and nothing is overwritten")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory} can't be made: {error.strerror}") from error
    if not os.access(directory, os.W_OK):
        raise UsageError(f"nothing can be written to {directory}; check its rights")


def _write_files(directory: Path, offers: list[Offer], *, qr: bool) -> None:
    from dicomward.io.ca.local import write_new_file

    for each in offers:
        path = directory / f"{each.handed.invitation.grant.device}.txt"
        try:
            write_new_file(path, (each.to_text(qr=qr) + "\n").encode(), 0o600)
        except OSError as error:
            # The code is known only here: who isn't told of it must be invited again.
            warn(f"{path} can't be written ({error.strerror}); invite {each.handed.invitation.grant.device} again")


def _qr(text: str) -> str:
    """Return a QR of block characters."""
    import segno

    drawn = io.StringIO()
    segno.make(text, error="m", micro=False).terminal(drawn, compact=True)
    return drawn.getvalue().rstrip("\n")
