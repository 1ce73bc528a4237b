"""`dicomward enroll`: a device gets its certificate with a code, and renews it. It runs at the device."""

import argparse
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.cli.common import RefusedError, UsageError, add_json_argument, now, print_json, warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

    from dicomward.io.enrolment.client import EstClient
    from dicomward.io.enrolment.enrolled import DeviceDirectory, Enrolled

_TRIES: Final = 3
_ECHO_SECONDS: Final = 10.0
_UNIT_DIRECTORY: Final = Path("/etc/systemd/system")
_SYSTEMD_RUNS: Final = Path("/run/systemd/system")
_MOST_PORT: Final = 65_535
_ACCEPTED: Final = 202


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "At a device: make a key, get a certificate for it with a one-time code, and try the gateway with a C-ECHO. "
        "With --renew: get the next certificate when it is time."
    )
    parser.add_argument("--server", metavar="URL", help="the enrolment server, as the invitation names it")
    parser.add_argument(
        "--code", metavar="CODE", help="the one-time code, or the text of the QR; - reads it from stdin"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="where key.pem, cert.pem and ca.pem go")
    parser.add_argument(
        "--ca",
        metavar="FILE",
        type=Path,
        help="without a code: the CA's root (root.cert.pem), and an operator approves",
    )
    parser.add_argument("--name", metavar="NAME", help="name of the device, for a request without a code")
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=int,
        default=0,
        help="without a code: wait so long for the approval (default: ask once; the same command asks again)",
    )
    parser.add_argument("--key", choices=("ecdsa", "rsa"), default="ecdsa", help="kind of key (default: ecdsa)")
    parser.add_argument("--renew", action="store_true", help="renew the certificate in DIR, if it is time")
    parser.add_argument("--force", action="store_true", help="with --renew: also if it isn't time yet")
    parser.add_argument(
        "--echo", metavar="HOST:PORT", help="the gateway, for the C-ECHO (default: what the server says)"
    )
    parser.add_argument("-aet", "--aetitle", metavar="AET", help="my calling AE title (default: what was granted)")
    parser.add_argument("-aec", "--call", metavar="AET", help="called AE title (default: the first archive)")
    parser.add_argument("--no-echo", action="store_true", help="don't try the gateway")
    parser.add_argument(
        "--no-timer", action="store_true", help="install no timer for renewal; as root one is installed with systemd"
    )
    parser.add_argument("--print-timer", action="store_true", help="print the units of the timer, and do nothing else")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Enrol or renew; see main for exit codes."""
    from dicomward.io.enrolment.client import ClientError

    if args.print_timer:
        for name, text in timer_units(args.out.absolute()).items():
            print(f"# {name}\n{text}")
        return 0
    try:
        return _renew(args) if args.renew else _enrol(args)
    except ClientError as error:
        if args.json:
            print_json({"ok": False, "error": str(error)})
        raise RefusedError(str(error)) from error


# --- the first time --------------------------------------------------------------------------------------------------


def _enrol(args: argparse.Namespace) -> int:
    from dicomward.enrolment.code import URI_SCHEME, Code, CodeError, parse_code, parse_uri
    from dicomward.io.enrolment.client import EstClient
    from dicomward.io.enrolment.enrolled import DeviceDirectory
    from dicomward.io.enrolment.obtain import enrol_with_code

    typed = sys.stdin.readline() if args.code == "-" else args.code
    if not typed:
        if args.ca is not None:
            return _enrol_with_approval(args)
        raise UsageError("--code CODE is missing: it is on the invitation (or --ca FILE, where requests are approved)")
    try:
        server = args.server
        if server is None and typed.strip().lower().startswith(f"{URI_SCHEME}:"):
            server = parse_uri(typed.strip())[0]
        code: Code = parse_code(typed)
    except CodeError as error:
        raise UsageError(f"--code: {error}") from error
    if not server:
        raise UsageError("--server URL is missing: it is on the invitation")
    directory = DeviceDirectory(args.out)
    _require_new(directory)
    client = EstClient.pinned(server, code.pins)
    name = args.name or ""
    certificate = enrol_with_code(directory, client, code, name=name, kind=args.key, insist=_insist)
    return _finish(args, directory, client, server, certificate)


def _require_new(directory: "DeviceDirectory") -> None:
    if directory.certificate.exists():
        raise UsageError(
            f"{directory.path} holds an enrolled device already; renew it with --renew, or choose another DIR"
        )


def _enrol_with_approval(args: argparse.Namespace) -> int:
    """Ask without a code, and again until an operator has decided: the key stays the same, and so does the request."""
    from dicomward.enrolment.answers import RETRY_SECONDS
    from dicomward.io.ca.local import LocalCaError, load_certificates
    from dicomward.io.enrolment.client import EstClient, RefusedByServerError
    from dicomward.io.enrolment.enrolled import DeviceDirectory
    from dicomward.io.enrolment.obtain import ask_for_approval

    if not args.server or not args.name:
        raise UsageError("without a code --server URL and --name NAME are needed")
    directory = DeviceDirectory(args.out)
    _require_new(directory)
    try:
        client = EstClient(args.server, load_certificates(args.ca))
    except LocalCaError as error:
        raise UsageError(f"--ca: {error}") from error
    until = time.monotonic() + args.wait
    is_told = False
    while True:
        try:
            certificate = ask_for_approval(directory, client, name=args.name, kind=args.key)
            return _finish(args, directory, client, args.server, certificate)
        except RefusedByServerError as error:
            if error.status != _ACCEPTED:
                raise
            left = until - time.monotonic()
            if left <= 0:
                raise RefusedError(f"{error.text}: repeat this command when it is approved") from error
            if not is_told:
                warn(error.text)
                is_told = True
            time.sleep(min(left, error.retry_seconds or RETRY_SECONDS))


def _insist(ask: "Callable[[bool], x509.Certificate]") -> "x509.Certificate":
    """Ask; after a lost answer again, with the same key, for the same certificate. Raises ClientError."""
    from dicomward.io.enrolment.client import LostAnswerError

    for attempt in range(_TRIES - 1):
        try:
            return ask(attempt > 0)
        except LostAnswerError as error:
            warn(f"{error}; trying again")
            time.sleep(2**attempt)
    return ask(True)


def _finish(
    args: argparse.Namespace,
    directory: "DeviceDirectory",
    client: "EstClient",
    server: str,
    certificate: "x509.Certificate",
) -> int:
    from dataclasses import replace

    from dicomward.io.enrolment.client import ClientError
    from dicomward.io.enrolment.obtain import install_first, told_about

    state = install_first(directory, client, certificate, server=server, kind=args.key)
    try:
        told = told_about(directory, server)
    except ClientError as error:
        warn(f"the certificate is there, but the server does not say where the gateway is: {error}")
        told = {}
    known = replace(
        state,
        ae_title=args.aetitle or _first(told.get("ae_titles")),
        gateway=args.echo or str(told.get("gateway", "")),
        called_ae_title=args.call or _first(told.get("archives")),
    )
    directory.store(known)
    echoed = None if args.no_echo else _echo(directory, known)
    timer = "" if args.no_timer else _install_timer(args.out.absolute())
    _report(args, directory, certificate, known, echoed, timer)
    return 0 if echoed is None or echoed["ok"] else 1


def _first(told: object) -> str:
    return str(told[0]) if isinstance(told, list) and told else ""


def _echo(directory: "DeviceDirectory", state: "Enrolled") -> dict[str, object] | None:
    """Return how the C-ECHO went; None where it isn't known where to."""
    from dicomward.io.echo import EchoFailed, EchoSeconds, echo
    from dicomward.io.tls import CertificateFiles, TlsConfigurationError, verifying_client_context
    from dicomward.settings import parse_host_port

    if not state.gateway or not state.called_ae_title or not state.ae_title:
        warn("no C-ECHO: it isn't known where the gateway is; name it with --echo HOST:PORT -aec AET")
        return None
    try:
        where = parse_host_port(state.gateway)
        own = CertificateFiles(directory.certificate, directory.key)
        result = echo(
            where.host,
            where.port,
            calling_ae_title=state.ae_title,
            called_ae_title=state.called_ae_title,
            context=verifying_client_context(directory.ca, own, check_host=True),
            seconds=EchoSeconds.alike(_ECHO_SECONDS),
        )
    except (EchoFailed, TlsConfigurationError, ValueError) as error:
        return {"ok": False, "error": str(error)}
    return {"ok": result.status == 0, "status": f"{result.status:04X}", "milliseconds": result.milliseconds}


def _report(
    args: argparse.Namespace,
    directory: "DeviceDirectory",
    certificate: "x509.Certificate",
    state: "Enrolled",
    echoed: dict[str, object] | None,
    timer: str,
) -> None:
    from dicomward.enrolment.schedule import draw_of, renewal_time
    from dicomward.io.enrolment.enrolled import fingerprint_of

    fingerprint = fingerprint_of(certificate)
    due = renewal_time(certificate.not_valid_before_utc, certificate.not_valid_after_utc, draw_of(fingerprint))
    if args.json:
        print_json(
            {
                "ok": echoed is None or echoed["ok"],
                "device": state.device,
                "sha256": fingerprint.hex(),
                "not_after": certificate.not_valid_after_utc.isoformat(),
                "renewal": due.isoformat(),
                "files": [str(path) for path in (directory.key, directory.certificate, directory.ca)],
                "echo": echoed,
                "timer": timer or None,
            }
        )
        return
    print(
        f"device {state.device}: certificate {fingerprint.hex()[:16]} until {certificate.not_valid_after_utc:%Y-%m-%d}"
    )
    print(f"files   {directory.key} {directory.certificate} {directory.ca}")
    print(f"renewal from {due.astimezone():%Y-%m-%d}: {timer or _by_hand(args.out)}")
    if echoed is not None and echoed["ok"]:
        print(f"C-ECHO {state.ae_title} -> {state.called_ae_title} at {state.gateway}: Success")
    elif echoed is not None:
        warn(
            f"C-ECHO {state.ae_title} -> {state.called_ae_title} at {state.gateway} failed: "
            f"{echoed.get('error') or 'status ' + str(echoed['status'])}; the certificate is fine and stays"
        )


def _by_hand(out: Path) -> str:
    return f"run each day: dicomward enroll --renew --out {shlex.quote(str(out.absolute()))}"


# --- renewal ---------------------------------------------------------------------------------------------------------


def _renew(args: argparse.Namespace) -> int:
    from dicomward.enrolment.schedule import describe_left, draw_of, is_due
    from dicomward.io.enrolment.enrolled import DeviceDirectory, fingerprint_of
    from dicomward.io.enrolment.obtain import renew

    directory = DeviceDirectory(args.out)
    directory.repair()
    state, current, moment = directory.state(), directory.current(), now()
    draw = draw_of(fingerprint_of(current))
    if not args.force and not is_due(current.not_valid_before_utc, current.not_valid_after_utc, draw, moment):
        left = describe_left(current.not_valid_after_utc, moment)
        if args.json:
            print_json({"ok": True, "renewed": False, "not_after": current.not_valid_after_utc.isoformat()})
        else:
            print(f"device {state.device}: {left}, not renewed yet")
        return 0
    certificate = renew(directory, args.server or state.server, _insist)
    echoed = None if args.no_echo else _echo(directory, state)
    _report(args, directory, certificate, state, echoed, _timer_there(args.out.absolute()))
    return 0 if echoed is None or echoed["ok"] else 1


# --- the timer -------------------------------------------------------------------------------------------------------


def _unit_name(out: Path) -> str:
    text = "-".join(part for part in out.parts if part != "/")
    return "dicomward-renew-" + "".join(each if each.isalnum() or each in "-_." else "_" for each in text)[:120]


def timer_units(out: Path) -> dict[str, str]:
    """Return the units that renew the device of a directory, by file name."""
    command = shutil.which("dicomward") or sys.argv[0]
    name = _unit_name(out)
    service = f"""[Unit]
Description=Renew the DICOM certificate in {_literal(out)}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={_argument(Path(command).absolute())} enroll --renew --no-echo --out {_argument(out)}
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={_quoted(out)}
PrivateTmp=yes
"""
    timer = f"""[Unit]
Description=Look twice a day if the DICOM certificate in {_literal(out)} is to be renewed

[Timer]
OnCalendar=*-*-* 00,12:00:00
RandomizedDelaySec=6h
Persistent=yes

[Install]
WantedBy=timers.target
"""
    return {f"{name}.service": service, f"{name}.timer": timer}


def _literal(path: Path) -> str:
    # systemd puts names of its own where a % is.
    return str(path).replace("%", "%%")


def _quoted(path: Path) -> str:
    text = _literal(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _argument(path: Path) -> str:
    # In commands, and nowhere else, $ begins a variable.
    return _quoted(path).replace("$", "$$")


def _timer_there(out: Path) -> str:
    return f"{_unit_name(out)}.timer" if (_UNIT_DIRECTORY / f"{_unit_name(out)}.timer").exists() else ""


def _install_timer(out: Path) -> str:
    """Install and start the timer if we are root and systemd runs; return its name, "" if not."""
    import subprocess

    from dicomward.io.system import calls

    if calls.user_id() != 0 or not _SYSTEMD_RUNS.is_dir():
        return ""
    units = timer_units(out)
    try:
        for name, text in units.items():
            (_UNIT_DIRECTORY / name).write_text(text, encoding="utf-8")
        timer = next(name for name in units if name.endswith(".timer"))
        for arguments in (["daemon-reload"], ["enable", "--now", timer]):
            subprocess.run(["systemctl", *arguments], check=True, capture_output=True)  # noqa: S603, S607
    except (OSError, subprocess.CalledProcessError) as error:
        warn(f"the timer for renewal could not be installed: {error}; {_by_hand(out)}")
        return ""
    return timer
