"""An edge agent as a process, in front of a real gateway, and a line between them that can be cut and is long."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.real.clients import Route
from tests.real.gateway import COMMAND, Gateway
from tests.real.hospital import TESTER
from tests.real.pki import Credentials
from tests.real.processes import LOOPBACK, Child, free_port
from tests.real.recording_archive import RecordingArchive
from tests.real.site import ARCHIVE

# What the agent is run by, if not by this Python: `make windows-test` has it run by Windows' own, in Wine.
EDGE_COMMAND: Final[Sequence[str]] = tuple(shlex.split(os.environ.get("DICOMWARD_EDGE_COMMAND", ""))) or COMMAND

SETTINGS = """
[edge]
state_directory = "state"

[upstream]
address = "{upstream_host}:{upstream}"
name = "{name}"
ca = "{ca}"
ae_titles = ["{archive}"]
seconds = 5

[[devices]]
name = "ct1"
ae_titles = ["{title}"]
listen = "{host}:{port}"
certificate = "{certificate}"
key = "{key}"
store = "{store}"
"""


def edge_command(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a command of the agent's that looks for the running one, so by the same."""
    command = [*EDGE_COMMAND, "edge", *(str(argument) for argument in arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


class Edge:
    """One agent, as a process."""

    def __init__(
        self,
        directory: Path,
        upstream: int,
        credentials: Credentials,
        *,
        store: str,
        name: str = LOOPBACK,
        host: str = LOOPBACK,
        title: str = "CT1",
        more: str = "",
        command: Sequence[str] = EDGE_COMMAND,
    ) -> None:
        """Prepare; upstream is `host`:`upstream`, and its certificate has to have `name`."""
        directory.mkdir(exist_ok=True)
        self.command = command
        self.directory = directory
        self.port = free_port()
        self.configuration = directory / "edge.toml"
        self._starts = 0
        self.configuration.write_text(
            SETTINGS.format(
                host=LOOPBACK,
                upstream_host=host,
                upstream=upstream,
                name=name,
                ca=credentials.authority,
                certificate=credentials.certificate,
                key=credentials.key,
                archive=ARCHIVE,
                title=title,
                port=self.port,
                store=store,
            )
            + more,
            "utf-8",
        )
        self.child: Child | None = None

    def start(self) -> None:
        self._starts += 1
        command: list[str | Path] = [*self.command, "edge", "--config", self.configuration]
        self.child = Child("dicomward edge", command, self.directory / f"{self._starts}.log")
        self.child.wait_until_it_says(re.compile(r"^listening on (\S+):(\d+) for ct1", re.MULTILINE))

    def stop(self) -> int:
        return self.child.stop() if self.child is not None else 0

    def route(self, title: str = "CT1") -> Route:
        return Route(port=self.port, calling_ae_title=title, called_ae_title=ARCHIVE)


@dataclass(slots=True)
class Site:
    archive: RecordingArchive
    gateway: Gateway
    credentials: Credentials
    stack: ExitStack

    def edge(self, directory: Path, *, upstream: int = 0, store: str = "pass-through", **options: str) -> Edge:
        edge = Edge(directory, upstream or self.gateway.port, self.credentials, store=store, **options)
        self.stack.callback(edge.stop)
        edge.start()
        return edge


@contextmanager
def edge_site(directory: Path) -> Iterator[Site]:
    """Start the archive and the gateway, and register the device."""
    with ExitStack() as stack:
        archive = stack.enter_context(RecordingArchive(ARCHIVE))
        gateway = Gateway(directory / "gateway", archive=ARCHIVE, archive_port=archive.port)
        stack.callback(gateway.stop)
        gateway.permit_everything_to(TESTER)
        gateway.start()
        credentials = gateway.add_device("ct1", "CT1", role=TESTER)
        yield Site(archive, gateway, credentials, stack)
