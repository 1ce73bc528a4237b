"""A gateway in front of a real archive, with a strict reader on the wire between them, an abuser and a good device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.abuse.hold import CT
from tests.abuse.memory import Watch
from tests.abuse.run import Result, Table, cases, good_echo, run_case
from tests.abuse.tap import Permitted, Tap
from tests.real import raw_peer as raw
from tests.real.clients import Route
from tests.real.gateway import Gateway
from tests.real.recording_archive import VERIFICATION, WORKLIST
from tests.real.servers import StoreScp
from tests.real.site import ARCHIVE

PERMITTED = Permitted(
    titles={"ABUSER", "GOOD"},
    # What the role "modality" may, of what the cases ask for: it stores whatever class of object it makes.
    sop_classes={VERIFICATION, "1.02.840.10008.1.1", WORKLIST, CT.sop_class_uid, "1.2.3.4.5.6"},
    commands={raw.C_ECHO, raw.C_STORE, raw.C_FIND, raw.C_CANCEL},
)


@dataclass(slots=True)
class Place:
    """A running gateway and the routes through it."""

    gateway: Gateway
    tap: Tap
    abuser: Route
    good: Route

    def run(self, *families: str) -> Table:
        """Run the cases of these families (or all); memory is watched, start and end are of a gateway at rest."""
        context = None if self.good.credentials is None else self.good.credentials.client_context()
        for _ in range(5):
            if good_echo(self.good, context) is None:
                raise AssertionError(self.gateway.log())
        table = Table("Dicomward")
        with Watch(self.gateway.child.process.pid) as watch:
            table.results.extend(self._results(families))
        table.start_mib, table.peak_mib, table.end_mib = watch.start, watch.peak, watch.now
        return table

    def _results(self, families: tuple[str, ...]) -> Iterator[Result]:
        for family, name, case in cases(*families):
            yield run_case(family, name, case, self.abuser, self.good)


@contextmanager
def place(directory: Path) -> Iterator[Place]:
    """Start storescp (a process for each association), the tap and the gateway."""
    with Tap(PERMITTED) as tap:
        archive = StoreScp(ARCHIVE, directory / "archive")
        tap.target = archive.port
        gateway = Gateway(directory / "gateway", archive=ARCHIVE, archive_port=tap.port)
        try:
            routes = {}
            for name in ("abuser", "good"):
                credentials = gateway.add_device(name, name.upper(), role="modality")
                routes[name] = gateway.route(credentials, name.upper())
            gateway.start()
            yield Place(gateway, tap, routes["abuser"], routes["good"])
        finally:
            gateway.stop()
            archive.stop()
