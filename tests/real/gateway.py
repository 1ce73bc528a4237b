"""The gateway as its users have it: a directory made by `dicomward init`, devices by `device add`, a process."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.real.clients import Route
from tests.real.pki import Credentials
from tests.real.processes import LOOPBACK, REPOSITORY, Child, PeerError, free_port, run

COMMAND: Final = (sys.executable, "-m", "dicomward.cli.main")
EVERY_OPERATION: Final = [
    *("C-ECHO", "C-STORE", "C-FIND", "C-GET", "C-MOVE"),
    *("N-CREATE", "N-SET", "N-GET", "N-ACTION", "N-DELETE", "N-EVENT-REPORT"),
]
_LISTENING: Final = re.compile(r"^listening on (\S+):(\d+)", re.MULTILINE)


def dicomward(*arguments: str | Path, seconds: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """Run the command line; stdout and stderr apart, since data goes to one and logs to the other."""
    command = [*COMMAND, *(str(argument) for argument in arguments)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # The fault handler says on stderr where each thread stood.
            process.send_signal(signal.SIGABRT)
            _, stderr = process.communicate()
            raise CommandFailedError(f"dicomward {arguments[0]} did not end in {seconds} s:\n{stderr}") from None
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


class CommandFailedError(PeerError):
    """A command of ours that had to succeed did not."""


class Gateway:
    """One gateway in front of one archive."""

    def __init__(
        self,
        directory: Path,
        *,
        archive: str,
        archive_port: int,
        archive_host: str = LOOPBACK,
        archive_listen_port: int = 0,
        host: str = LOOPBACK,
        options: Sequence[str | Path] = (),
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.archive_port = archive_listen_port or free_port()
        self.archive = archive
        self.environment: dict[str, str] = {}
        self._child: Child | None = None
        self._starts = 0
        self.must(
            "init",
            directory,
            "--pacs",
            f"{archive}@{archive_host}:{archive_port}",
            "--listen",
            f"{host}:{self.port}",
            "--archive-listen",
            f"{LOOPBACK}:{self.archive_port}",
            *options,
        )

    @property
    def configuration(self) -> Path:
        """Path of dicomward.toml."""
        return self.directory / "dicomward.toml"

    def run(self, *arguments: str | Path, seconds: float = 60.0) -> "subprocess.CompletedProcess[str]":
        """Run a command on this gateway's configuration."""
        return dicomward(*arguments, "--config", self.configuration, seconds=seconds)

    def must(self, *arguments: str | Path) -> str:
        """Run a command that has to succeed; return its stdout."""
        done = dicomward(*arguments) if arguments[0] == "init" else self.run(*arguments)
        if done.returncode != 0:
            raise CommandFailedError(f"dicomward {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr}")
        return done.stdout

    def add_device(
        self,
        name: str,
        *ae_titles: str,
        role: str,
        network: str = "127.0.0.0/8",
        address: int | None = None,
        plain: bool = False,
        key: str = "ecdsa",
        own: Credentials | None = None,
    ) -> Credentials:
        """Register a device, with a new key or its own; return where key and certificates are, and whom to trust."""
        out = self.directory.parent / f"{self.directory.name}-devices" / name
        options: list[str | Path] = [text for title in ae_titles for text in ("--aet", title)]
        options += ["--role", role, "--network", network]
        options += ["--key", key, "--out", out] if own is None else ["--certificate", own.certificate]
        if address is not None:
            options += ["--address", f"{LOOPBACK}:{address}", *(["--plain"] if plain else [])]
        self.must("device", "add", name, *options)
        if own is not None:
            return replace(own, authority=self.directory / "ca" / "ca.cert.pem")
        return Credentials(key=out / "key.pem", certificate=out / "cert.pem", authority=out / "ca.pem")

    def permit_everything_to(self, role: str, *, limits: str = "") -> None:
        """Add a rule and limits (generous ones, or the given tables) for a role of the tests' own, before `start`."""
        with (self.directory / "policy.toml").open("a", encoding="utf-8") as policy:
            policy.write(
                f'\n[[rule]]\nid = "everything-for-{role}"\neffect = "allow"\nrole = ["{role}"]\n'
                f"operation = {json.dumps([each.lower() for each in EVERY_OPERATION])}\n"
            )
        with self.configuration.open("a", encoding="utf-8") as configuration:
            generous = f"\n[limits.role.{role}]\nqueries_per_minute = 100000\noperations_per_minute = 100000\n"
            configuration.write(limits or generous)

    def configure(self, table: str, **values: str | float) -> None:
        """Set values in a table of the settings file, before `start`."""
        text = self.configuration.read_text("utf-8")
        for key, value in values.items():
            text = re.sub(rf"^{key} = .*\n", "", text, flags=re.MULTILINE)
            text = text.replace(f"[{table}]\n", f"[{table}]\n{key} = {json.dumps(value)}\n", 1)
        self.configuration.write_text(text, "utf-8")

    def trust(self, authority: Path) -> None:
        """Let devices in whose certificates another authority has issued, once they are bound, before `start`."""
        own = self.directory / "ca" / "ca.cert.pem"
        both = own.with_name("device-authorities.pem")
        both.write_bytes(own.read_bytes() + authority.read_bytes())
        self.configure("tls", client_ca="ca/device-authorities.pem")

    def start(self) -> None:
        """Start it and wait for its own words, then for its ports."""
        # A log for each start: the words of the run before must not pass for this one's.
        self._starts += 1
        log = self.directory.parent / f"{self.directory.name}-{self._starts}.log"
        command: list[str | Path] = [*COMMAND, "gateway", "--config", self.configuration]
        self._child = Child(
            "dicomward gateway", command, log, environment={"PYTHONUNBUFFERED": "1", **self.environment}
        )
        self._child.wait_until_it_says(_LISTENING)

    @property
    def child(self) -> Child:
        """The running process."""
        if self._child is None:
            raise PeerError("the gateway was not started")
        return self._child

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        self.child.process.send_signal(number)

    def stop(self) -> int:
        """Stop it; return its exit code."""
        return 0 if self._child is None else self._child.stop()

    def log(self) -> str:
        """Return the end of its output, for messages."""
        return "" if self._child is None else self._child.tail()

    def route(self, credentials: Credentials, calling_ae_title: str, called_ae_title: str | None = None) -> Route:
        """Return the way through this gateway for a device."""
        return Route(
            port=self.port,
            calling_ae_title=calling_ae_title,
            called_ae_title=called_ae_title or self.archive,
            credentials=credentials,
        )

    def audit(self, *options: str) -> list[dict[str, Any]]:
        """Return what `audit search --json` finds, one record a line."""
        printed = self.must("audit", "search", "--json", *options)
        return [json.loads(line) for line in printed.splitlines() if line.strip()]

    def reasons(self) -> set[str]:
        """Return every reason code in the audit log."""
        return {str(record["reason"]) for record in self.audit() if record.get("reason")}


def probe_tls(port: int, options: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Try a handshake with OpenSSL's own client."""
    return run(["openssl", "s_client", "-connect", f"{LOOPBACK}:{port}", *options], seconds=30)
