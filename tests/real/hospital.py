"""A gateway in front of the recording archive: what most tests of this folder start with."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real.clients import Pynetdicom, Route
from tests.real.gateway import Gateway
from tests.real.pki import Credentials
from tests.real.processes import free_port
from tests.real.recording_archive import Originator, RecordingArchive
from tests.real.site import ARCHIVE

TESTER = "tester"


@dataclass(slots=True)
class Hospital:
    """A running gateway, its archive, and the devices as tests register them."""

    archive: RecordingArchive
    gateway: Gateway
    _stack: ExitStack

    def device(self, name: str, *titles: str, role: str = TESTER, **options: Any) -> Route:
        """Register a device; return its way to the archive under its first title."""
        credentials = self.gateway.add_device(name, *titles, role=role, **options)
        return self.gateway.route(credentials, titles[0])

    def listening_device(
        self, name: str, title: str, *, role: str = TESTER, plain: bool = False
    ) -> tuple[Route, RecordingArchive]:
        """Register a device that listens (C-MOVE destination, N-EVENT-REPORT) and start its listener."""
        port = free_port()
        credentials = self.gateway.add_device(name, title, role=role, address=port, plain=plain)
        listener = RecordingArchive(title, credentials=None if plain else credentials, port=port)
        return self.gateway.route(credentials, title), self._stack.enter_context(listener)

    @property
    def direct(self) -> Route:
        """The way to the archive without the gateway."""
        return direct_route(self.archive)


def direct_route(archive: RecordingArchive, calling_ae_title: str = "DIRECT") -> Route:
    """Return the plaintext way to an archive."""
    return Route(port=archive.port, calling_ae_title=calling_ae_title, called_ae_title=archive.ae_title)


@contextmanager
def hospital(directory: Path, *, originator: Originator = Originator.REQUESTOR) -> Iterator[Hospital]:
    """Start the archive and the gateway."""
    with ExitStack() as stack:
        archive = stack.enter_context(RecordingArchive(ARCHIVE, originator=originator))
        gateway = Gateway(directory / "gateway", archive=ARCHIVE, archive_port=archive.port)
        stack.callback(gateway.stop)
        gateway.permit_everything_to(TESTER)
        gateway.start()
        yield Hospital(archive, gateway, stack)


def open_association(route: Route, *sop_classes: str, **options: Any) -> Any:
    """Open an association with pynetdicom; fail the test when it is refused."""
    client = Pynetdicom()
    association = client.associate(route, client.contexts(*sop_classes), **options)
    if not association.is_established:
        raise AssertionError(f"no association for {route.calling_ae_title}")
    return association


def credentials_of(route: Route) -> Credentials:
    """Return a route's credentials; every device has some."""
    if route.credentials is None:
        raise AssertionError("a device has credentials")
    return route.credentials
