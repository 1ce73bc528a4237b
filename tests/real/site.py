"""The matrix's hospital: an archive of one kind with images in it, two destinations, and the two routes to it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence

from tests.real.clients import Outcome, Pynetdicom, Route, Stack, digest
from tests.real.gateway import Gateway
from tests.real.processes import LOOPBACK, free_port
from tests.real.recording_archive import RecordingArchive
from tests.real.samples import Sample, sample
from tests.real.servers import DcmQrScp, Orthanc, Server, StoreScp, Wlmscpfs

ARCHIVE: Final = "ARCHIVE"
# The same titles on both routes, so that what an archive writes about its callers is the same too.
READER: Final = "READER"
ZONE_READER: Final = "ZONEREADER"
DIRECT_DESTINATION: Final = "DESTDIRECT"
DESTINATION: Final = "DESTINATION"

# Three modalities, uncompressed and small, each its own study.
IMAGES: Final = ("CT_small.dcm", "MR_small.dcm", "SC_rgb.dcm")
# What storescu, dcmjs-dimse, GDCM and odil send without transcoding.
SENT: Final = ("CT_small.dcm", "MR_small.dcm")

SERVICES: Final[dict[str, frozenset[str]]] = {
    "orthanc": frozenset({"echo", "store", "find", "get", "move"}),
    "dcmqrscp": frozenset({"echo", "store", "find", "get", "move"}),
    "storescp": frozenset({"echo", "store"}),
    "wlmscpfs": frozenset({"echo", "worklist"}),
    "pynetdicom": frozenset({"echo", "store", "find", "worklist", "get", "move"}),
}


def worklist_item(number: int) -> Dataset:
    """Return one scheduled examination (all keys of type 1 that wlmscpfs wants)."""
    step = Dataset()
    step.Modality = "CT"
    step.ScheduledStationAETitle = READER
    step.ScheduledProcedureStepStartDate = "20260101"
    step.ScheduledProcedureStepStartTime = "080000"
    step.ScheduledPerformingPhysicianName = "House^Gregory"
    step.ScheduledProcedureStepDescription = "Head"
    step.ScheduledProcedureStepID = f"S{number}"
    item = Dataset()
    item.SpecificCharacterSet = "ISO_IR 100"
    item.AccessionNumber = f"A{number}"
    item.PatientName = f"Test^Patient{number}"
    item.PatientID = f"P{number}"
    item.PatientBirthDate = "19700101"
    item.PatientSex = "O"
    item.StudyInstanceUID = f"1.2.826.0.1.3680043.10.543.5.{number}"
    item.RequestedProcedureID = f"R{number}"
    item.RequestedProcedureDescription = "Head"
    item.ScheduledProcedureStepSequence = DicomSequence([step])
    return item


@dataclass(slots=True)
class Site:
    """An archive with both routes to it, and what arrived at the two destinations."""

    kind: str
    direct: Route
    make_gateway: Callable[[], Route]
    destination: dict[str, RecordingArchive]
    # The way in plaintext through a legacy zone of the gateway, once it has started.
    zone_port: int
    _gateway_route: Route | Exception | None = None
    _outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict)

    @property
    def through_gateway(self) -> Route:
        """The way through the gateway; the gateway starts when it is first asked for."""
        if self._gateway_route is None:
            try:
                self._gateway_route = self.make_gateway()
            except Exception as error:
                self._gateway_route = error
        if isinstance(self._gateway_route, Exception):
            # One failed start is the reason of every test here; a second try would only fail in another way.
            raise self._gateway_route
        return self._gateway_route

    def outcome(self, stack: Stack, service: str, *, gateway: bool) -> Outcome:
        """Do one service on one route; what the direct pair did is remembered."""
        if gateway:
            return self._do(stack, service, self.through_gateway, DESTINATION)
        key = (stack.name, service)
        if key not in self._outcomes:
            self._outcomes[key] = self._do(stack, service, self.direct, DIRECT_DESTINATION)
        return self._outcomes[key]

    def forget(self, stack: Stack, service: str) -> None:
        """Do a service direct anew when it is asked for again."""
        self._outcomes.pop((stack.name, service), None)

    def zone_outcome(self, stack: Stack, service: str) -> Outcome:
        """Do one service in plaintext through the gateway's legacy zone."""
        called = self.through_gateway.called_ae_title
        route = Route(port=self.zone_port, calling_ae_title=ZONE_READER, called_ae_title=called)
        return self._do(stack, service, route, DESTINATION)

    def outcome_by(self, route: Route, stack: Stack, service: str) -> Outcome:
        """Do one service on another way through the gateway."""
        return self._do(stack, service, route, DESTINATION)

    def _do(self, stack: Stack, service: str, route: Route, destination: str) -> Outcome:
        match service:
            case "echo":
                return stack.echo(route)
            case "store":
                return stack.store(route, [sample(name) for name in SENT])
            case "find":
                keys = {"QueryRetrieveLevel": "STUDY", "PatientID": "1CT1", "StudyInstanceUID": "", "StudyDate": ""}
                return stack.find(route, keys)
            case "worklist":
                return stack.worklist(route)
            case "get":
                return stack.get(route, study_of(sample("CT_small.dcm")))
            case "move":
                return self._move(stack, route, destination)
        raise ValueError(service)

    def _move(self, stack: Stack, route: Route, destination: str) -> Outcome:
        """Move a study, and add what the destination received to what the client was told."""
        target = self.destination[destination]
        target.stored.clear()
        told = stack.move(route, study_of(sample("CT_small.dcm")), destination)
        arrived = tuple(
            sorted((one.sop_instance_uid, f"{one.transfer_syntax_uid} {digest(one.data_set)}") for one in target.stored)
        )
        return Outcome(succeeded=told.succeeded, statuses=told.statuses, matches=told.matches, received=arrived)


def study_of(image: Sample) -> str:
    """Return the Study Instance UID of an image."""
    from pydicom import dcmread

    return str(dcmread(image.path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)


def start_archive(
    kind: str, directory: Path, stack: ExitStack, *, destinations: dict[str, int]
) -> Server | RecordingArchive:
    """Start an archive of one kind."""
    worklist = [worklist_item(number) for number in (1, 2, 3)]
    if kind == "pynetdicom":
        archive = stack.enter_context(RecordingArchive(ARCHIVE, destinations=destinations))
        archive.worklist = worklist
        for name in IMAGES:
            archive.hold(sample(name))
        return archive
    server: Server
    match kind:
        case "orthanc":
            server = Orthanc(ARCHIVE, directory, modalities=destinations)
        case "dcmqrscp":
            server = DcmQrScp(ARCHIVE, directory, destinations=destinations)
        case "storescp":
            server = StoreScp(ARCHIVE, directory)
        case "wlmscpfs":
            server = Wlmscpfs(ARCHIVE, directory, worklist=worklist)
        case _:
            raise ValueError(kind)
    stack.callback(server.stop)
    if kind in {"orthanc", "dcmqrscp"}:
        direct = Route(port=server.port, calling_ae_title="SEEDER", called_ae_title=ARCHIVE)
        seeded = Pynetdicom().store(direct, [sample(name) for name in IMAGES])
        if not seeded.succeeded:
            raise RuntimeError(f"{kind} did not take the first images: {seeded} {server.log()}")
    return server


@contextmanager
def site(kind: str, directory: Path) -> Iterator[Site]:
    """Run an archive, its two destinations, and a gateway as soon as somebody wants it."""
    with ExitStack() as stack:
        directory.mkdir(parents=True, exist_ok=True)
        gateway_archive_port = free_port()
        zone_port = free_port()
        plain = stack.enter_context(RecordingArchive(DIRECT_DESTINATION))
        destinations = {DIRECT_DESTINATION: plain.port, DESTINATION: gateway_archive_port}
        archive = start_archive(kind, directory / kind, stack, destinations=destinations)
        received: dict[str, RecordingArchive] = {DIRECT_DESTINATION: plain}

        def make_gateway() -> Route:
            gateway = Gateway(
                directory / "gateway",
                archive=ARCHIVE,
                archive_port=archive.port,
                archive_listen_port=gateway_archive_port,
            )
            stack.callback(gateway.stop)
            gateway.permit_everything_to("tester")
            secure_port = free_port()
            credentials = gateway.add_device("destination", DESTINATION, role="tester", address=secure_port)
            secure = RecordingArchive(DESTINATION, credentials=credentials, port=secure_port)
            received[DESTINATION] = stack.enter_context(secure)
            reader = gateway.add_device("reader", READER, role="tester")
            with gateway.configuration.open("a", encoding="utf-8") as settings:
                settings.write(
                    f'\n[[legacy_zones]]\nname = "zone"\nlisten = "{LOOPBACK}:{zone_port}"\n'
                    'networks = ["127.0.0.0/8"]\nend_date = 2099-12-31\n'
                )
            gateway.start()
            options = ("--aet", ZONE_READER, "--role", "tester", "--network", "127.0.0.1", "--legacy", "zone")
            gateway.must("device", "add", "zone-reader", *options)
            return gateway.route(reader, READER)

        direct = Route(port=archive.port, calling_ae_title=READER, called_ae_title=ARCHIVE)
        yield Site(kind=kind, direct=direct, make_gateway=make_gateway, destination=received, zone_port=zone_port)
