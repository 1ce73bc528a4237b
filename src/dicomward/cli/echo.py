"""`dicomward echo HOST PORT`: C-ECHO over mutual TLS, with DCMTK's options."""

import argparse
from pathlib import Path

from dicomward.cli.common import RefusedError, UsageError, add_json_argument, print_json

_MOST_PORT = 65_535
_MOST_SECONDS = 3_600


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
    parser.add_argument("--plain", action="store_true", help="no TLS")
    parser.add_argument("--no-host-check", action="store_true", help="don't compare HOST with the peer's certificate")
    parser.add_argument("-to", "--timeout", type=_seconds, default=10.0, metavar="S", help="seconds for each step")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Echo once; see main for exit codes."""
    from dicomward.io.echo import EchoFailed, echo
    from dicomward.io.tls import CertificateFiles, TlsConfigurationError, verifying_client_context
    from dicomward.vocab.ae_title import AeTitleError, parse_ae_title

    if not args.plain and args.ca is None:
        raise UsageError("--ca FILE is missing: it says whom to trust; or use --plain for no TLS")
    if (args.cert is None) != (args.key is None):
        raise UsageError("--cert and --key belong together")
    try:
        calling, called = parse_ae_title(args.aetitle), parse_ae_title(args.call)
        own = CertificateFiles(args.cert, args.key) if args.cert else None
        context = None if args.plain else verifying_client_context(args.ca, own, check_host=not args.no_host_check)
    except (AeTitleError, TlsConfigurationError) as error:
        raise UsageError(str(error)) from error
    try:
        result = echo(
            args.host,
            args.port,
            calling_ae_title=calling,
            called_ae_title=called,
            context=context,
            timeout=args.timeout,
        )
    except EchoFailed as error:
        if args.json:
            print_json({"ok": False, "error": str(error)})
        raise RefusedError(str(error)) from error
    ok = result.status == 0
    if args.json:
        print_json({"ok": ok, "status": f"{result.status:04X}", "milliseconds": result.milliseconds, "tls": result.tls})
    else:
        over = result.tls or "plaintext"
        print(f"C-ECHO {calling} -> {called}: status {result.status:04X}H, {result.milliseconds} ms, {over}")
    return 0 if ok else 1


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
