"""A gateway directory, the application on it in this process or in one of its own, and devices that call it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dicomward.app import Gateway
from dicomward.identity.registry import Archive, Device, RegistrySnapshot
from dicomward.io.audit.engine import AuditState
from dicomward.io.gateway.session import Session
from dicomward.io.registry.store import write_snapshot
from dicomward.relay.inputs import Listener
from dicomward.settings import Settings, load_settings, parse_host_port
from tests.directory_helpers import copy_directory
from tests.io.audit_helpers import records_of
from tests.io.world import POLICY, SECONDS, Credentials, Peer, RawArchive, archive_at, device, issue

REPOSITORY = Path(__file__).resolve().parents[2]


class Place:
    """The directory of a gateway in front of an archive, with the scanner ct1."""

    def __init__(self, directory: Path, archive: RawArchive, *, credentials: Credentials | None = None) -> None:
        self.settings = copy_directory(directory)
        self.archive = archive
        self.scanner = credentials or issue(self.settings, "ct1")
        self.settings.policy.file.write_text(POLICY, encoding="utf-8")
        self.register(device("ct1", self.scanner))
        self.peers: list[Peer] = []
        self.port = 0

    def register(self, *devices: Device, archive: Archive | None = None) -> None:
        """Write the compiled registry, which is all that a gateway reads."""
        target = archive or archive_at(self.archive.endpoint)
        write_snapshot(
            self.settings.registry.snapshot, RegistrySnapshot(devices=devices, archives=(target,), revision=7)
        )

    def configure(self, **values: object) -> None:
        """Set settings of dicomward.toml by their names, which are unique over all tables."""
        text = self.settings.path.read_text(encoding="utf-8")
        for name, value in values.items():
            written = json.dumps(str(value) if isinstance(value, Path) else value)
            text, count = re.subn(rf"(?m)^(?:# )?{name} = .*$", f"{name} = {written}", text)
            assert count == 1, name
        self.settings.path.write_text(text, encoding="utf-8")
        self.settings = load_settings(self.settings.path)

    def peer(self, credentials: Credentials | None = None, **options: object) -> Peer:
        import socket

        connection = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        context = (credentials or self.scanner).context()
        secured = context.wrap_socket(connection, server_hostname="127.0.0.1", **options)  # type: ignore[arg-type]
        peer = Peer(secured)
        self.peers.append(peer)
        return peer

    def records(self) -> list[dict[str, Any]]:
        """Return the members of every record in the log."""
        return [dict(record.members) for record in records_of(self.settings.audit.directory)]

    def close(self) -> None:
        for peer in self.peers:
            peer.close()


class Application:
    """The application in this process, without signals."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.gateway = Gateway(place.settings)
        self.changed = threading.Condition()
        real = self.gateway._audit_changed

        def audit_changed(health: object) -> None:
            real(health)  # type: ignore[arg-type]
            with self.changed:
                self.changed.notify_all()

        self.gateway._audit._listener = audit_changed

    def open(self) -> None:
        self.gateway.open()
        self.place.port = parse_host_port(self.gateway.address(Listener.DEVICE)).port

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for a change of the audit log's health that makes something true."""
        with self.changed:
            assert self.changed.wait_for(holds, SECONDS), self.gateway._audit.health

    def wait_for_audit(self, state: AuditState) -> None:
        self.wait_until(lambda: self.gateway._audit.health.state is state)

    def close(self) -> None:
        self.place.close()
        self.gateway.drain(lambda: True)
        for session in self.gateway._gate.sessions():
            # The process would end here, and the kernel close what lingers.
            assert isinstance(session, Session)
            session.failed()
        self.gateway.close()


@contextmanager
def application(place: Place) -> Iterator[Application]:
    made = Application(place)
    made.open()
    try:
        yield made
    finally:
        made.close()


class Process:
    """`dicomward gateway` as a process of its own."""

    def __init__(self, place: Place, *, before: Sequence[str] = (), environment: dict[str, str] | None = None) -> None:
        self.place = place
        self._log = (place.settings.directory / "process.log").open("wb")
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "dicomward.cli.main", "gateway", "--config", str(place.settings.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("listening on "), f"{line}{self.log}"
        place.port = parse_host_port(line.removeprefix("listening on ").strip()).port

    @property
    def log(self) -> str:
        return (self.place.settings.directory / "process.log").read_text("utf-8", "replace")

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self._over()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self._over()

    def _over(self) -> int:
        code = self.process.wait(SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return code


@contextmanager
def process(place: Place, **options: Any) -> Iterator[Process]:
    made = Process(place, **options)
    try:
        yield made
    finally:
        place.close()
        if made.process.poll() is None:
            made.process.kill()
            made._over()


def with_settings(place: Place, **gateway: object) -> None:
    """Replace settings of `[gateway]` without the file."""
    place.settings = replace(place.settings, gateway=replace(place.settings.gateway, **gateway))  # type: ignore[arg-type]


__all__ = ["Application", "Place", "Process", "Settings", "application", "process", "with_settings"]
