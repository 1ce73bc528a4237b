"""A gateway in front of real archives, with a strict reader on each wire between them, an abuser and a good device."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import Dataset

from tests.abuse.hold import CT
from tests.abuse.memory import Watch
from tests.abuse.run import Result, Table, cases, good_echo, run_case
from tests.abuse.service_cases import MANY, N_ACTION, N_CREATE, N_SET
from tests.abuse.tap import Permitted, Tap
from tests.real import raw_peer as raw
from tests.real.clients import Route
from tests.real.gateway import Gateway
from tests.real.processes import LOOPBACK
from tests.real.recording_archive import COMMITMENT, MPPS, VERIFICATION, WORKLIST, RecordingArchive
from tests.real.servers import StoreScp
from tests.real.site import ARCHIVE

# An archive that has every service, for the family that asks for them.
RECORDER = "RECORDER"
_MANY_ENTRIES = 500
_SERVICES = Permitted(
    titles={"ABUSER"},
    sop_classes={VERIFICATION, WORKLIST, COMMITMENT, MPPS, CT.sop_class_uid},
    commands={raw.C_ECHO, raw.C_STORE, raw.C_FIND, raw.C_CANCEL, N_CREATE, N_SET, N_ACTION},
)
PERMITTED = Permitted(
    titles={"ABUSER", "GOOD"},
    # What the role "modality" may, of what the cases ask for: it stores whatever class of object it makes, also one
    # that nobody knows, and one that is unknown for its leading zero (docs/adr/0015).
    sop_classes={VERIFICATION, "1.02.840.10008.1.1", WORKLIST, CT.sop_class_uid, "1.2.3.4.5.6"},
    commands={raw.C_ECHO, raw.C_STORE, raw.C_FIND, raw.C_CANCEL},
)


@dataclass(slots=True)
class Place:
    """A running gateway and the routes through it."""

    gateway: Gateway
    tap: Tap
    services: Tap
    abuser: Route
    good: Route

    @property
    def breaches(self) -> list[str]:
        """What the archives have seen that is malformed or not permitted."""
        return [*self.tap.breaches, *self.services.breaches]

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
            abuser = replace(self.abuser, called_ae_title=RECORDER) if family == "services" else self.abuser
            yield run_case(family, name, case, abuser, self.good)


def _recorder() -> RecordingArchive:
    recorder = RecordingArchive(RECORDER)
    for number in range(_MANY_ENTRIES):
        entry = Dataset()
        entry.PatientName, entry.PatientID = MANY, str(number)
        recorder.worklist.append(entry)
    return recorder


@contextmanager
def place(directory: Path) -> Iterator[Place]:
    """Start storescp (a process for each association), an archive with every service, the taps and the gateway."""
    with ExitStack() as stack:
        tap, services = stack.enter_context(Tap(PERMITTED)), stack.enter_context(Tap(_SERVICES))
        archive = StoreScp(ARCHIVE, directory / "archive")
        stack.callback(archive.stop)
        tap.target, services.target = archive.port, stack.enter_context(_recorder()).port
        gateway = Gateway(directory / "gateway", archive=ARCHIVE, archive_port=tap.port)
        stack.callback(gateway.stop)
        gateway.must("archive", "add", "recorder", f"{RECORDER}@{LOOPBACK}:{services.port}")
        routes = {}
        for name in ("abuser", "good"):
            credentials = gateway.add_device(name, name.upper(), role="modality")
            routes[name] = gateway.route(credentials, name.upper())
        gateway.start()
        yield Place(gateway, tap, services, routes["abuser"], routes["good"])
