"""An archive of the tests' own on pynetdicom: it records what arrives, byte for byte, and answers every service.

It is also a modality's listener (C-MOVE destination, N-EVENT-REPORT on a reverse association) when given credentials.
"""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID
from pynetdicom import AE, StoragePresentationContexts, build_context, build_role, evt, register_uid
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.service_class_n import PrintManagementServiceClass

from tests.real.pki import Credentials
from tests.real.processes import LOOPBACK, free_port
from tests.real.samples import Sample

VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
MPPS = "1.2.840.10008.3.1.2.3.3"
WORKLIST = "1.2.840.10008.5.1.4.31"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
PATIENT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
UPS_PULL = "1.2.840.10008.5.1.4.34.6.3"
FILM_SESSION = "1.2.840.10008.5.1.1.1"
FILM_BOX = "1.2.840.10008.5.1.1.2"
PRINTER = "1.2.840.10008.5.1.1.16"
PRINTER_INSTANCE = "1.2.840.10008.5.1.1.17"
GRAYSCALE_PRINT = "1.2.840.10008.5.1.1.9"
COLOR_PALETTE = "1.2.840.10008.5.1.4.39.1"
PRIVATE_SOP_CLASS = "1.2.826.0.1.3680043.10.543.99.1"

# Retired, and yet in real archives; pynetdicom doesn't know it.
ULTRASOUND_RETIRED = "1.2.840.10008.5.1.4.1.1.6"
register_uid(ULTRASOUND_RETIRED, "UltrasoundImageStorageRetired", StorageServiceClass)
# A vendor's own normalized service; the print services have every N-operation, so pynetdicom dispatches it like them.
register_uid(PRIVATE_SOP_CLASS, "VendorsOwnService", PrintManagementServiceClass)

TRANSFER_SYNTAXES = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5",
]
_SERVICES = [
    VERIFICATION,
    COMMITMENT,
    MPPS,
    WORKLIST,
    STUDY_FIND,
    STUDY_MOVE,
    STUDY_GET,
    PATIENT_FIND,
    UPS_PUSH,
    UPS_PULL,
    FILM_SESSION,
    FILM_BOX,
    PRINTER,
    GRAYSCALE_PRINT,
    PRIVATE_SOP_CLASS,
]
SUCCESS, PENDING = 0x0000, 0xFF00
NO_SUCH_INSTANCE, DUPLICATE_INSTANCE = 0x0112, 0x0111


class Originator(Enum):
    """What the archive states as Move Originator in C-MOVE's sub-operations (PS3.7 §9.1.1.1: optional)."""

    REQUESTOR = "the title that asked for the C-MOVE"
    OWN_TITLE = "the archive's own title, as pynetdicom does"
    NONE = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One C-STORE as it arrived."""

    calling_ae_title: str
    called_ae_title: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes
    move_originator: tuple[str, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One N-service request, or an N-EVENT-REPORT, as it arrived."""

    operation: str
    calling_ae_title: str
    called_ae_title: str
    sop_class_uid: str
    sop_instance_uid: str
    number: int | None = None
    data_set: bytes = b""


@dataclass(slots=True)
class Associations:
    """What the requestors said: titles, and what they proposed."""

    requested: list[tuple[str, str]] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)


def _titles(event: Any) -> dict[str, Any]:
    return {
        "calling_ae_title": event.assoc.requestor.ae_title,
        "called_ae_title": event.assoc.requestor.primitive.called_ae_title,
    }


def _bytes(stream: BytesIO | None) -> bytes:
    return b"" if stream is None else stream.getvalue()


def _matches(record: Dataset, query: Dataset) -> bool:
    """Say if every single-value key of the query is equal in the record (enough for tests: no wildcards, no ranges)."""
    for element in query:
        if element.VR == "SQ" or element.keyword == "QueryRetrieveLevel" or not element.value or element.value == "*":
            continue
        wanted = element.value if isinstance(element.value, list) else [element.value]
        if str(record.get(element.keyword, "")) not in {str(value) for value in wanted}:
            return False
    return True


def _answer(record: Dataset, query: Dataset) -> Dataset:
    """Return what a C-FIND response holds: the query's keys with the record's values."""
    answer = Dataset()
    for element in query:
        value = element.value if element.keyword == "QueryRetrieveLevel" else record.get(element.keyword)
        setattr(answer, element.keyword, value)
    return answer


def _is_cancelled_soon(event: Any, *, seconds: float = 20.0) -> bool:
    """Wait for the peer's C-CANCEL; pynetdicom offers nothing to wait for, and says only once that it came."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < deadline:
        if event.is_cancelled:
            return True
        pause.wait(0.005)
    return False


class RecordingArchive:
    """A pynetdicom acceptor in this process. Use it as a context manager."""

    def __init__(
        self,
        ae_title: str,
        *,
        credentials: Credentials | None = None,
        destinations: dict[str, int] | None = None,
        commitment_reports_to: tuple[str, int] | None = None,
        originator: Originator = Originator.REQUESTOR,
        port: int = 0,
        calls_with: Credentials | None = None,
    ) -> None:
        """Prepare; `destinations` are loopback ports by C-MOVE destination title.

        `commitment_reports_to` is where N-EVENT-REPORT goes on a reverse association; None sends it on the same one,
        unless `commitment_reports_wait`: then it goes on the next association of the same title.
        `calls_with`: the certificate that it shows where it calls itself, over TLS.
        """
        self.ae_title = ae_title
        self.port = port or free_port()
        self.stored: list[Stored] = []
        self.messages: list[Message] = []
        self.associations = Associations()
        self.destinations = destinations or {}
        self.commitment_reports_to = commitment_reports_to
        self.commitment_reports_wait = False
        self._waiting_reports: list[tuple[str, Dataset]] = []
        self._calls_with = calls_with
        self.instances: dict[str, Dataset] = {}
        self.worklist: list[Dataset] = []
        self.created: dict[str, Dataset] = {}
        self.before_store_answer: threading.Event | None = None
        self.matches_before_cancel: int | None = None
        self.reports: list[threading.Thread] = []
        self.report_statuses: list[int | None] = []
        self.changed = threading.Condition()
        self._credentials = credentials
        self._server: Any = None
        self._ae = self._make_ae()
        self._originator = originator
        # C-MOVE's handler and its sub-operations run on the thread of their association.
        self._mover = threading.local()
        self._adapt_calls()

    def _make_ae(self) -> Any:
        ae = AE(ae_title=self.ae_title)
        ae.maximum_associations = 64
        ae.network_timeout = 60
        ae.acse_timeout = ae.dimse_timeout = ae.connection_timeout = 20
        for context in StoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, TRANSFER_SYNTAXES, scu_role=True, scp_role=True)
        ae.add_supported_context(COLOR_PALETTE, TRANSFER_SYNTAXES)
        ae.add_supported_context(ULTRASOUND_RETIRED, TRANSFER_SYNTAXES, scu_role=True, scp_role=True)
        for uid in _SERVICES:
            roles = {"scu_role": True, "scp_role": True} if uid in {COMMITMENT} else {}
            ae.add_supported_context(uid, TRANSFER_SYNTAXES[:4], **roles)
        ae.requested_contexts = [
            build_context(context.abstract_syntax, TRANSFER_SYNTAXES[:2]) for context in StoragePresentationContexts
        ]
        return ae

    def _adapt_calls(self) -> None:
        """Add what pynetdicom 3.0.4 can't say where it calls for a C-MOVE: TLS, and who asked for it.

        By itself it states the archive's own title as Move Originator.
        """
        associate = self._ae.associate

        def associated(*args: Any, **kwargs: Any) -> Any:
            if self._calls_with is not None:
                kwargs["tls_args"] = (self._calls_with.client_context(), "localhost")
            association = associate(*args, **kwargs)
            if self._originator is Originator.OWN_TITLE:
                return association
            send = association.send_c_store
            title = self._mover.title

            def send_c_store(data_set: Any, *, originator_id: int, **_: Any) -> Any:
                if self._originator is Originator.NONE:
                    return send(data_set)
                return send(data_set, originator_aet=title, originator_id=originator_id)

            association.send_c_store = send_c_store
            return association

        self._ae.associate = associated

    def __enter__(self) -> "RecordingArchive":
        handlers = [
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_ESTABLISHED, self._on_established),
            (evt.EVT_ABORTED, self._on_aborted),
            (evt.EVT_RELEASED, self._on_released),
            (evt.EVT_C_ECHO, lambda event: SUCCESS),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_C_GET, self._on_get),
            (evt.EVT_C_MOVE, self._on_move),
            (evt.EVT_N_CREATE, self._on_create),
            (evt.EVT_N_SET, self._on_set),
            (evt.EVT_N_GET, self._on_n_get),
            (evt.EVT_N_ACTION, self._on_action),
            (evt.EVT_N_DELETE, self._on_delete),
            (evt.EVT_N_EVENT_REPORT, self._on_event_report),
        ]
        context: ssl.SSLContext | None = None if self._credentials is None else self._credentials.server_context()
        self._server = self._ae.start_server(
            (LOOPBACK, self.port), block=False, evt_handlers=handlers, ssl_context=context
        )
        return self

    def __exit__(self, *args: object) -> None:
        for report in self.reports:
            report.join(timeout=20)
        self._server.shutdown()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Abort everybody and listen no more, for a while; what is in the archive stays."""
        self._ae.shutdown()
        try:
            yield
        finally:
            self.__enter__()

    def hold(self, sample: Sample) -> None:
        """Put an image into the archive, to be found and retrieved."""
        data_set = dcmread(sample.path, force=True)
        self.instances[sample.sop_instance_uid] = data_set

    def mix_up_reports(self, right: str, wrong: str) -> None:
        """Take the reports that wait for one title for those of another."""
        with self.changed:
            self._waiting_reports = [
                (wrong if title == right else title, report) for title, report in self._waiting_reports
            ]

    def wait_until(self, condition: Any, *, seconds: float = 20.0) -> bool:
        """Wait for something that a handler notes; say if it came."""
        with self.changed:
            return bool(self.changed.wait_for(condition, timeout=seconds))

    def _note(self, operation: str, event: Any, **values: Any) -> None:
        request = event.request
        uids: dict[str, Any] = {
            "sop_class_uid": str(
                getattr(request, "RequestedSOPClassUID", None) or getattr(request, "AffectedSOPClassUID", None) or ""
            ),
            "sop_instance_uid": str(
                getattr(request, "RequestedSOPInstanceUID", None)
                or getattr(request, "AffectedSOPInstanceUID", None)
                or ""
            ),
        }
        with self.changed:
            self.messages.append(Message(operation=operation, **_titles(event), **uids, **values))
            self.changed.notify_all()

    def _on_accepted(self, event: Any) -> None:
        titles = _titles(event)
        with self.changed:
            self.associations.requested.append((titles["calling_ae_title"], titles["called_ae_title"]))
            self.changed.notify_all()

    def _on_established(self, event: Any) -> None:
        """Send the reports that have waited for this title's next association."""
        title = event.assoc.requestor.ae_title
        if COMMITMENT not in {context.abstract_syntax for context in event.assoc.accepted_contexts}:
            return
        with self.changed:
            due = [report for waiting, report in self._waiting_reports if waiting == title]
            self._waiting_reports = [entry for entry in self._waiting_reports if entry[0] != title]
        for report in due:
            self._start_report(self._report_here, event.assoc, report)

    def _on_aborted(self, event: Any) -> None:
        with self.changed:
            self.associations.aborted.append(event.assoc.requestor.ae_title)
            self.changed.notify_all()

    def _on_released(self, event: Any) -> None:
        with self.changed:
            self.associations.released.append(event.assoc.requestor.ae_title)
            self.changed.notify_all()

    def _on_store(self, event: Any) -> int:
        request = event.request
        originator = request.MoveOriginatorApplicationEntityTitle
        stored = Stored(
            **_titles(event),
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            data_set=_bytes(request.DataSet),
            move_originator=None if originator is None else (str(originator), int(request.MoveOriginatorMessageID)),
        )
        with self.changed:
            self.stored.append(stored)
            self.changed.notify_all()
        if self.before_store_answer is not None:
            self.before_store_answer.wait(timeout=30)
        return SUCCESS

    def _on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        records = self.worklist if event.context.abstract_syntax == WORKLIST else self._records(query)
        for number, record in enumerate(records):
            if event.is_cancelled or (number == self.matches_before_cancel and _is_cancelled_soon(event)):
                yield 0xFE00, None
                return
            if event.context.abstract_syntax == WORKLIST:
                if _matches(record, query):
                    yield PENDING, record
            else:
                yield PENDING, _answer(record, query)

    def _records(self, query: Dataset) -> list[Dataset]:
        unique = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID"}.get(
            query.get("QueryRetrieveLevel", ""), "SOPInstanceUID"
        )
        found: dict[str, Dataset] = {}
        for instance in self.instances.values():
            if _matches(instance, query):
                found.setdefault(str(instance.get(unique, "")), instance)
        return list(found.values())

    def _selected(self, query: Dataset) -> list[Dataset]:
        return [instance for instance in self.instances.values() if _matches(instance, query)]

    def _on_get(self, event: Any) -> Iterator[Any]:
        instances = self._selected(event.identifier)
        yield len(instances)
        for instance in instances:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield PENDING, instance

    def _on_move(self, event: Any) -> Iterator[Any]:
        destination = str(event.move_destination).strip()
        port = self.destinations.get(destination)
        if port is None:
            yield None, None
            return
        self._mover.title = event.assoc.requestor.ae_title
        yield LOOPBACK, port
        instances = self._selected(event.identifier)
        yield len(instances)
        for instance in instances:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield PENDING, instance

    def _on_create(self, event: Any) -> tuple[int, Dataset | None]:
        request = event.request
        attributes = event.attribute_list
        self._note("N-CREATE", event, data_set=_bytes(request.AttributeList))
        uid = str(request.AffectedSOPInstanceUID or f"1.2.826.0.1.3680043.10.543.7.{len(self.created) + 1}")
        if uid in self.created:
            return DUPLICATE_INSTANCE, None
        self.created[uid] = attributes
        answer = Dataset()
        answer.update(attributes)
        answer.AffectedSOPInstanceUID = uid
        if request.AffectedSOPInstanceUID is None:
            answer.AffectedSOPClassUID = str(request.AffectedSOPClassUID)
        return SUCCESS, answer

    def _on_set(self, event: Any) -> tuple[int, Dataset | None]:
        request = event.request
        self._note("N-SET", event, data_set=_bytes(request.ModificationList))
        created = self.created.get(str(request.RequestedSOPInstanceUID))
        if created is None:
            return NO_SUCH_INSTANCE, None
        created.update(event.modification_list)
        return SUCCESS, event.modification_list

    def _on_n_get(self, event: Any) -> tuple[int, Dataset | None]:
        request = event.request
        self._note("N-GET", event)
        if str(request.RequestedSOPInstanceUID) == PRINTER_INSTANCE:
            status = Dataset()
            status.PrinterStatus = "NORMAL"
            return SUCCESS, status
        created = self.created.get(str(request.RequestedSOPInstanceUID))
        return (NO_SUCH_INSTANCE, None) if created is None else (SUCCESS, created)

    def _on_delete(self, event: Any) -> int:
        self._note("N-DELETE", event)
        found = self.created.pop(str(event.request.RequestedSOPInstanceUID), None)
        return NO_SUCH_INSTANCE if found is None else SUCCESS

    def _on_event_report(self, event: Any) -> tuple[int, Dataset | None]:
        request = event.request
        self._note("N-EVENT-REPORT", event, number=request.EventTypeID, data_set=_bytes(request.EventInformation))
        return SUCCESS, None

    def _on_action(self, event: Any) -> tuple[int, Dataset | None]:
        request = event.request
        self._note("N-ACTION", event, number=request.ActionTypeID, data_set=_bytes(request.ActionInformation))
        if request.RequestedSOPClassUID == COMMITMENT:
            report = Dataset()
            report.TransactionUID = event.action_information.TransactionUID
            report.ReferencedSOPSequence = event.action_information.ReferencedSOPSequence
            if self.commitment_reports_wait:
                self._waiting_reports.append((event.assoc.requestor.ae_title, report))
            else:
                target = self._report_elsewhere if self.commitment_reports_to else self._report_here
                self._start_report(target, event.assoc, report)
            return SUCCESS, None
        answer = Dataset()
        answer.update(event.action_information or Dataset())
        return SUCCESS, answer

    def _start_report(self, target: Callable[[Any, Dataset], None], association: Any, report: Dataset) -> None:
        thread = threading.Thread(target=target, args=(association, report), daemon=True)
        self.reports.append(thread)
        thread.start()

    def _report_here(self, association: Any, report: Dataset) -> None:
        status, _ = association.send_n_event_report(report, 1, UID(COMMITMENT), UID(COMMITMENT_INSTANCE))
        self._reported(status)

    def _report_elsewhere(self, association: Any, report: Dataset) -> None:
        if self.commitment_reports_to is None:
            return
        title, port = self.commitment_reports_to
        caller = AE(ae_title=self.ae_title)
        caller.acse_timeout = caller.dimse_timeout = caller.network_timeout = 20
        caller.add_requested_context(COMMITMENT, TRANSFER_SYNTAXES[:2])
        reverse = caller.associate(
            LOOPBACK, port, ae_title=title, ext_neg=[build_role(UID(COMMITMENT), scu_role=False, scp_role=True)]
        )
        if not reverse.is_established:
            self._reported(Dataset())
            return
        status, _ = reverse.send_n_event_report(report, 1, UID(COMMITMENT), UID(COMMITMENT_INSTANCE))
        self._reported(status)
        reverse.release()

    def _reported(self, status: Dataset) -> None:
        with self.changed:
            self.report_statuses.append(status.get("Status"))
            self.changed.notify_all()


def storage_contexts(samples: list[Sample]) -> list[PresentationContext]:
    """Return one context for each pair of SOP class and transfer syntax among the samples (PS3.8: at most 128)."""
    pairs = sorted({(sample.sop_class_uid, sample.transfer_syntax_uid) for sample in samples})
    return [build_context(sop_class, [syntax]) for sop_class, syntax in pairs]
