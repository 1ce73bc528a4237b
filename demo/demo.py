"""Dicomward on this machine, in front of a real archive: what passes, what is refused and why.

    python demo/demo.py            keeps running and says what to type next (make run)
    python demo/demo.py --once     on free ports; ends by itself, exit 0 only if every line held (make demo)

Everything listens on loopback and is kept in one directory: run/ of the clone, or a temporary one with --once.
"""

import argparse
import hashlib
import json
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from archive import ARCHIVE, RunningArchive, start_archive
from children import LOOPBACK, Children, DemoError, free_port
from clients import Credentials, Image, RefusedError, echo, find_until_refused, get, load_image, store

CLONE: Final = Path(__file__).resolve().parents[1]
COMMAND: Final = (sys.executable, "-m", "dicomward.cli.main")
MARKER: Final = ".dicomward-demo"
# Orthanc keeps these two bit by bit; others it stores a little shorter (trailing padding), which is its own business.
# The first is a clinical MR slice of 510 KB from pydicom-data.
IMAGES: Final = ("MR-SIEMENS-DICOM-WithOverlays.dcm", "SC_rgb.dcm")
SCANNER, READER = "CT1", "READER"
MOST_QUERIES: Final = 2_000
WIDTHS: Final = (2, 50, 32)


class Demo:
    """The gateway of the demonstration and the lines on the screen."""

    def __init__(self, directory: Path, children: Children, *, fixed_ports: bool) -> None:
        self.directory = directory
        self.gateway = directory / "gateway"
        self.children = children
        self.port = free_port(2762 if fixed_ports else 0)
        self.archive_listen = free_port(11113 if fixed_ports else 0)
        self.pacs_port = free_port(4242 if fixed_ports else 0)
        self.held = True
        self.devices: dict[str, Credentials] = {}

    def command(self, *arguments: str | Path) -> str:
        """Run a dicomward command that has to succeed; return its stdout."""
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            words = " ".join(map(str, arguments[:3]))
            raise DemoError(f"dicomward {words} ended with {done.returncode}:\n{done.stderr.strip()}")
        return done.stdout

    def set_up(self, *, embedded: bool) -> RunningArchive:
        """Start the archive, make and start the gateway, and register two devices."""
        archive = start_archive(
            self.children,
            self.directory / "archive",
            devices={SCANNER: self.archive_listen, READER: self.archive_listen},
            port=self.pacs_port,
            embedded=embedded,
        )
        pacs = f"{ARCHIVE}@{LOOPBACK}:{archive.port}"
        listen = ("--listen", f"{LOOPBACK}:{self.port}", "--archive-listen", f"{LOOPBACK}:{self.archive_listen}")
        self.command("init", self.gateway, "--pacs", pacs, *listen)
        self.add_device("ct1", SCANNER, "modality")
        self.add_device("reading-room", READER, "workstation")
        self.children.start(
            "gateway", [*COMMAND, "gateway", "--config", self.gateway / "dicomward.toml"], port=self.port
        )
        return archive

    def add_device(self, name: str, ae_title: str, role: str) -> None:
        """Register a device; its key and certificate come into a directory of its own."""
        out = self.directory / "devices" / name
        config = self.gateway / "dicomward.toml"
        network = ("--network", "127.0.0.0/8")
        options = ("--aet", ae_title, "--role", role, *network, "--out", out, "--config", config)
        self.command("device", "add", name, *options)
        self.devices[ae_title] = Credentials(
            key=out / "key.pem", certificate=out / "cert.pem", authority=out / "ca.pem"
        )

    def audit(self) -> Counter[str]:
        """Return the records of the audit log, one JSON text each."""
        found = self.command("audit", "search", "--json", "--config", self.gateway / "dicomward.toml")
        return Counter(line for line in found.splitlines() if line.strip())

    def reason_since(self, before: Counter[str], expected: Sequence[str], *, seconds: float = 10.0) -> str:
        """Return the expected reason code as soon as a new record has it; else what the new records have."""
        deadline = time.monotonic() + seconds
        while True:
            new = [reason for line in self.audit() - before for reason in _reasons(json.loads(line))]
            hit = next((reason for reason in expected if reason in new), None)
            if hit is not None:
                return hit
            if time.monotonic() > deadline:
                return ", ".join(dict.fromkeys(new)) or "nothing"

    def show(self, what: str, happened: str, *, reason: str = "", held: bool) -> None:
        """Print one line of the table and remember whether it held."""
        self.held = self.held and held
        mark = "✓" if held else "✗"
        print(f"{mark:<{WIDTHS[0]}}{what:<{WIDTHS[1]}}{happened:<{WIDTHS[2]}}{reason}".rstrip(), flush=True)

    def passes(self, what: str, attempt: Callable[[], str]) -> None:
        """Do what has to pass; the attempt returns what to say, or raises RefusedError."""
        try:
            self.show(what, attempt(), held=True)
        except RefusedError as refused:
            self.show(what, str(refused), held=False)

    def refuses(self, what: str, reasons: Sequence[str], attempt: Callable[[], str]) -> None:
        """Do what has to be refused, and find the reason in the audit log."""
        before = self.audit()
        try:
            happened, refused = attempt(), False
        except RefusedError as error:
            happened, refused = str(error), True
        # An attempt that got through says so; one that was told no by a status says "status ...".
        refused = refused or happened.startswith("status")
        found = self.reason_since(before, reasons)
        self.show(what, happened, reason=found, held=refused and found in reasons)


def _reasons(record: object) -> list[str]:
    """Return the values of every member named "reason" in a JSON record."""
    if isinstance(record, dict):
        own = [str(value) for name, value in record.items() if name == "reason"]
        return own + [reason for value in record.values() for reason in _reasons(value)]
    if isinstance(record, list):
        return [reason for value in record for reason in _reasons(value)]
    return []


def show_round_trip(demo: Demo, archive: RunningArchive) -> None:
    """Send a real image in as the scanner, fetch it as the reading room, compare the bytes."""
    image = _first_image()
    scanner, reader = demo.devices[SCANNER], demo.devices[READER]

    def verify() -> str:
        status = echo(demo.port, calling=SCANNER, called=ARCHIVE, credentials=scanner)
        return _accepted(status, "answered by the archive")

    def send() -> str:
        status = store(demo.port, calling=SCANNER, called=ARCHIVE, image=image, credentials=scanner)
        return _accepted(status, f"{len(image.data_set):,} bytes stored")

    def fetch() -> str:
        received = get(demo.port, calling=READER, called=ARCHIVE, image=image, credentials=reader)
        data = received.get(image.sop_instance_uid)
        if data is None:
            raise RefusedError("it did not come back")
        if data != image.data_set:
            raise RefusedError(f"{len(data):,} bytes came back, not the same ones")
        return f"identical, SHA-256 {hashlib.sha256(data).hexdigest()[:8]}…"

    print(f"\nWhat passes, over mutual TLS, through the gateway to {archive.description}:\n")
    demo.passes("the scanner asks if the archive is there (C-ECHO)", verify)
    demo.passes("the scanner stores a real image (C-STORE)", send)
    demo.passes("the reading room fetches it (C-GET)", fetch)


def _accepted(status: int, text: str) -> str:
    if status != 0:
        raise RefusedError(f"status {status:04X}" if status >= 0 else "connection ended")
    return text


def _first_image() -> Image:
    for name in IMAGES:
        try:
            return load_image(name)
        except DemoError:
            continue
    raise DemoError("none of pydicom's sample images is here; `make setup` installs them")


def show_refusals(demo: Demo) -> None:
    """Try what must not pass; the reason on each line is the one in the audit log."""
    scanner, reader = demo.devices[SCANNER], demo.devices[READER]
    stranger = _foreign_credentials(demo.directory / "stranger", scanner)

    def verify(credentials: object, calling: str = SCANNER) -> Callable[[], str]:
        def attempt() -> str:
            status = echo(demo.port, calling=calling, called=ARCHIVE, credentials=credentials)  # type: ignore[arg-type]
            return "passed" if status == 0 else f"status {status:04X}"

        return attempt

    def search() -> str:
        done, status = find_until_refused(demo.port, calling=SCANNER, called=ARCHIVE, credentials=scanner, most=1)
        return "passed" if status == 0 and done else f"status {status:04X}"

    def search_a_lot() -> str:
        who = {"calling": READER, "called": ARCHIVE, "credentials": reader}
        done, status = find_until_refused(demo.port, **who, most=MOST_QUERIES)  # type: ignore[arg-type]
        return f"{done} queries passed" if status == 0 else f"status {status:04X} after {done} queries"

    print("\nWhat is refused, and the reason in the audit log:\n")
    demo.refuses("plaintext", ("not-tls",), verify(None))
    demo.refuses("TLS without a certificate", ("no-certificate",), verify(scanner.anonymous()))
    demo.refuses("a certificate of a foreign authority", ("certificate-unknown", "tls-failed"), verify(stranger))
    demo.refuses(
        "an operation that the scanner's role may not do",
        ("no-permitted-context", "no-matching-rule", "denied-by-rule"),
        search,
    )
    demo.refuses(
        "the scanner under the title of another device", ("calling-ae-title-not-bound",), verify(scanner, READER)
    )
    demo.refuses("too many queries in a minute", ("query-rate",), search_a_lot)


def _foreign_credentials(directory: Path, like: Credentials) -> Credentials:
    """Make a certificate that no authority of ours signed."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    directory.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger")])
    now = datetime.datetime.now(datetime.UTC)  # noqa: TID251  nothing of the gateway's
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (directory / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, plain))
    (directory / "cert.pem").write_bytes(certificate.public_bytes(pem))
    return Credentials(key=directory / "key.pem", certificate=directory / "cert.pem", authority=like.authority)


def show_next(demo: Demo) -> None:
    """Say what to type in another terminal."""
    config = _short(demo.gateway / "dicomward.toml")
    device = demo.devices[SCANNER]
    ours = _short(Path(sys.executable).with_name("dicomward"))
    key, certificate, authority = (_short(path) for path in (device.key, device.certificate, device.authority))
    print(f"\nThe gateway listens on {LOOPBACK}:{demo.port} until Ctrl-C. In another terminal, in this directory:\n")
    print("  # ask for the archive as the scanner")
    print(f"  {ours} echo {LOOPBACK} {demo.port} -aet {SCANNER} -aec {ARCHIVE} \\")
    print(f"      --cert {certificate} --key {key} --ca {authority}")
    if Path("/usr/bin/echoscu").exists():
        print("  # the same with DCMTK")
        print(f"  /usr/bin/echoscu +tls {key} {certificate} +cf {authority} \\")
        print(f"      -v -aet {SCANNER} -aec {ARCHIVE} {LOOPBACK} {demo.port}")
    print("  # register a device of your own")
    new = _short(demo.directory / "devices" / "us1")
    print(f"  {ours} device add us1 --aet US1 --role modality --network 127.0.0.0/8 \\")
    print(f"      --out {new} --config {config}")
    print("  # who was refused, and why; what the policy says about an operation")
    print(f"  {ours} audit search --code DW-ASSOC-DENY --config {config}")
    print(f"  {ours} policy explain --device ct1 --operation c-find \\")
    print(f"      --sop-class StudyRootQueryRetrieveInformationModelFind --config {config}")
    print("  # shut the scanner out, at once")
    print(f"  {ours} device suspend ct1 --config {config}", flush=True)


def _short(path: Path) -> str:
    """Return the path as one types it in the clone."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _own_directory(path: Path) -> Path:
    """Return an empty directory of ours; an earlier demonstration's is replaced, nobody else's is touched."""
    if path.exists():
        if not (path / MARKER).exists():
            raise DemoError(f"{path} is in the way and was not made by this demonstration; move it away")
        shutil.rmtree(path)
    path.mkdir(parents=True)
    (path / MARKER).touch()
    return path


def run(*, once: bool, directory: Path, embedded: bool) -> int:
    """Do everything; return the exit code."""
    children = Children(directory / "logs")
    demo = Demo(directory, children, fixed_ports=not once)
    try:
        archive = demo.set_up(embedded=embedded)
        print(f"Archive: {archive.description}, title {ARCHIVE}, {LOOPBACK}:{archive.port}")
        print(f"Gateway: {LOOPBACK}:{demo.port}; devices: ct1 (title {SCANNER}), reading-room (title {READER})")
        show_round_trip(demo, archive)
        show_refusals(demo)
        print("\nEvery line held." if demo.held else "\nNot every line held.", flush=True)
        if once:
            return 0 if demo.held else 1
        show_next(demo)
        code = children.wait_for("gateway")
        raise DemoError(f"the gateway ended by itself with code {code}:\n{children.tail('gateway')}")
    finally:
        children.stop_all()


def _interrupt(_number: int, _frame: object) -> None:
    """Let SIGTERM end the children as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description="Dicomward on this machine, in front of a real archive.")
    parser.add_argument("--once", action="store_true", help="free ports, a temporary directory, and end")
    parser.add_argument("--embedded", action="store_true", help="the embedded archive, even if Orthanc is installed")
    parser.add_argument(
        "--directory", type=Path, default=CLONE / "run", help="where to keep everything (default: run/)"
    )
    arguments = parser.parse_args()
    once: bool = arguments.once
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if not once:
            return run(once=False, directory=_own_directory(arguments.directory), embedded=arguments.embedded)
        with tempfile.TemporaryDirectory(prefix="dicomward-") as folder:
            return run(once=True, directory=Path(folder), embedded=arguments.embedded)
    except DemoError as error:
        print(f"\nThe demonstration stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0 if not once else 1


if __name__ == "__main__":
    sys.exit(main())
