"""`dicomward echo HOST PORT`: C-ECHO over mutual TLS, with DCMTK's options."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.cli.common import RefusedError, UsageError, add_json_argument, load_settings_of, print_json, warn

if TYPE_CHECKING:
    from dicomward.dicom.pdu import UserIdentity

_MOST_PORT = 65_535
_MOST_SECONDS = 3_600
_MOST_IDENTITY_BYTES = 60_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = "Send a C-ECHO over mutual TLS (or plaintext with --plain). Exit 0: the answer was Success."
    parser.add_argument("host", metavar="HOST", help="name or address of the peer")
    parser.add_argument("port", metavar="PORT", type=_port, help="its port")
    parser.add_argument("-aet", "--aetitle", default="DICOMWARD", metavar="AET", help="my calling AE title")
    parser.add_argument("-aec", "--call", default="ANY-SCP", metavar="AET", help="called AE title of the peer")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="my certificate chain (PEM)")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its private key (PEM)")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="the CA that the peer's certificate chains to (PEM)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings of a gateway: trust its CA without --ca")
    parser.add_argument("--plain", action="store_true", help="no TLS")
    parser.add_argument("--no-host-check", action="store_true", help="don't compare HOST with the peer's certificate")
    parser.add_argument("--user", metavar="NAME", help="the person at the device (user identity, 58H)")
    parser.add_argument("--passcode-file", metavar="FILE", type=Path, help="the file with that person's passcode")
    parser.add_argument("--jwt-file", metavar="FILE", type=Path, help="a file with the person's token instead")
    parser.add_argument("-to", "--timeout", type=_seconds, default=10.0, metavar="S", help="seconds for each step")
    parser.add_argument("-ta", "--acse-timeout", type=_seconds, metavar="S", help="instead, for the association")
    parser.add_argument("-td", "--dimse-timeout", type=_seconds, metavar="S", help="instead, for the answer")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", "-d", "--debug", action="store_true", help="tell each step, on stderr")
    loudness.add_argument("-q", "--quiet", action="store_true", help="print nothing where it succeeds")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Echo once; see main for exit codes."""
    from dicomward.io.echo import EchoFailed, EchoSeconds, echo
    from dicomward.io.tls import CertificateFiles, TlsConfigurationError, verifying_client_context
    from dicomward.vocab.ae_title import AeTitleError, parse_ae_title

    authority: Path | None = args.ca
    if authority is None and args.config is not None:
        authority = load_settings_of(args).tls.client_ca
    if authority is None and not args.plain:
        raise UsageError("--ca FILE is missing: it says whom to trust; or use --plain for no TLS")
    if (args.cert is None) != (args.key is None):
        raise UsageError("--cert and --key belong together")
    identity = _identity_of(args)
    try:
        calling, called = parse_ae_title(args.aetitle), parse_ae_title(args.call)
        own = CertificateFiles(args.cert, args.key) if args.cert else None
        context = None
        if authority is not None and not args.plain:
            context = verifying_client_context(authority, own, check_host=not args.no_host_check)
    except (AeTitleError, TlsConfigurationError) as error:
        raise UsageError(str(error)) from error
    try:
        result = echo(
            args.host.removeprefix("[").removesuffix("]"),
            args.port,
            calling_ae_title=calling,
            called_ae_title=called,
            context=context,
            seconds=EchoSeconds(
                connect=args.timeout,
                association=args.acse_timeout or args.timeout,
                answer=args.dimse_timeout or args.timeout,
            ),
            identity=identity,
            tell=warn if args.verbose else lambda _step: None,
        )
    except EchoFailed as error:
        if args.json:
            print_json({"ok": False, "error": str(error)})
        raise RefusedError(str(error)) from error
    ok = result.status == 0
    if args.json:
        print_json(
            {
                "ok": ok,
                "status": f"{result.status:04X}",
                "milliseconds": result.milliseconds,
                "tls": result.tls,
                "person_verified": result.person_verified,
            }
        )
    elif not ok or not args.quiet:
        over = result.tls or "plaintext"
        if identity is not None:
            over += ", person verified" if result.person_verified else ", person NOT verified"
        print(f"C-ECHO {calling} -> {called}: status {result.status:04X}H, {result.milliseconds} ms, {over}")
    return 0 if ok else 1


def _identity_of(args: argparse.Namespace) -> "UserIdentity | None":
    """Return the person that the command speaks for. Raises UsageError."""
    from dicomward.dicom.pdu import UserIdentity
    from dicomward.vocab.association import UserIdentityType

    if args.jwt_file is not None:
        if args.user is not None or args.passcode_file is not None:
            raise UsageError("--jwt-file stands alone: a token names its person itself")
        kind, primary, secondary = UserIdentityType.JWT, _content(args.jwt_file), b""
    elif args.user is not None:
        primary = args.user.encode()
        if args.passcode_file is None:
            kind, secondary = UserIdentityType.USERNAME, b""
        else:
            kind, secondary = UserIdentityType.USERNAME_AND_PASSCODE, _content(args.passcode_file)
    elif args.passcode_file is not None:
        raise UsageError("--passcode-file belongs to --user NAME")
    else:
        return None
    if max(len(primary), len(secondary)) > _MOST_IDENTITY_BYTES:
        raise UsageError(f"DICOM has room for {_MOST_IDENTITY_BYTES} bytes of it")
    return UserIdentity(type=kind, positive_response_requested=True, primary=primary, secondary=secondary)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error


def _port(text: str) -> int:
    port = int(text) if text.isdecimal() else 0
    if not 1 <= port <= _MOST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; write a number from 1 to {_MOST_PORT}")
    return port


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is no time to wait; write seconds, up to {_MOST_SECONDS}")
    return seconds
