"""Services beyond images: MPPS, storage commitment, UPS, print, a vendor's own; straight and through the gateway."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import build_role, evt

from tests.real.clients import Pynetdicom, Route
from tests.real.hospital import Hospital, hospital, open_association
from tests.real.recording_archive import (
    COMMITMENT,
    COMMITMENT_INSTANCE,
    FILM_SESSION,
    GRAYSCALE_PRINT,
    MPPS,
    PRINTER,
    PRINTER_INSTANCE,
    PRIVATE_SOP_CLASS,
    STUDY_FIND,
    UPS_PULL,
    UPS_PUSH,
)
from tests.real.samples import sample

INSTANCE = "1.2.826.0.1.3680043.10.543.6.{}"
Answer = tuple[int | None, str]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with hospital(tmp_path_factory.mktemp("services")) as running:
        yield running


@pytest.fixture(scope="module")
def scanner(here: Hospital) -> Route:
    return here.device("scanner", "SCANNER")


def _answer(pair: Any) -> Answer:
    """Return a response as its status and what came with it."""
    status, data_set = pair
    text = "" if data_set is None else "; ".join(f"{e.keyword}={e.value}" for e in data_set if e.VR != "SQ")
    return status.get("Status"), text


def _attributes(**values: str) -> Dataset:
    data_set = Dataset()
    for keyword, value in values.items():
        setattr(data_set, keyword, value)
    return data_set


def _procedure_step(route: Route, instance: str) -> list[Answer]:
    """N-CREATE, N-SET, and the two errors of a modality that repeats itself or names what isn't there."""
    association = open_association(route, MPPS)
    created = _attributes(PerformedProcedureStepStatus="IN PROGRESS", PerformedProcedureStepID="1", Modality="CT")
    completed = _attributes(PerformedProcedureStepStatus="COMPLETED")
    answers = [
        _answer(association.send_n_create(created, UID(MPPS), UID(instance))),
        _answer(association.send_n_create(created, UID(MPPS), UID(instance))),
        _answer(association.send_n_set(completed, UID(MPPS), UID(instance))),
        _answer(association.send_n_set(completed, UID(MPPS), UID(instance + ".404"))),
    ]
    association.release()
    return answers


def _worklist_step(route: Route, instance: str) -> list[Answer]:
    """A Unified Procedure Step: create on Push, read and claim on Pull, with the SOP class of Push in the messages."""
    association = open_association(route, UPS_PUSH, UPS_PULL)
    step = _attributes(ProcedureStepState="SCHEDULED", ProcedureStepLabel="Read it")
    claim = _attributes(ProcedureStepState="IN PROGRESS", TransactionUID="1.2.826.0.1.3680043.10.543.4.1")
    push, pull = UID(UPS_PUSH), UID(UPS_PULL)
    answers = [
        _answer(association.send_n_create(step, push, UID(instance))),
        _answer(association.send_n_get([(0x0074, 0x1000)], push, UID(instance), meta_uid=pull)),
        _answer(association.send_n_action(claim, 1, push, UID(instance), meta_uid=pull)),
        _answer(association.send_n_set(_attributes(ProcedureStepLabel="Done"), push, UID(instance), meta_uid=pull)),
    ]
    association.release()
    return answers


def _print_job(route: Route, instance: str) -> list[Answer]:
    """Printer status, then a film session from making to deleting, all on the meta SOP class's context."""
    association = open_association(route, GRAYSCALE_PRINT)
    meta, session = UID(GRAYSCALE_PRINT), UID(FILM_SESSION)
    answers = [
        _answer(association.send_n_get([(0x2110, 0x0010)], UID(PRINTER), UID(PRINTER_INSTANCE), meta_uid=meta)),
        _answer(association.send_n_create(_attributes(NumberOfCopies="1"), session, UID(instance), meta_uid=meta)),
        _answer(association.send_n_set(_attributes(NumberOfCopies="2"), session, UID(instance), meta_uid=meta)),
        _answer(association.send_n_action(None, 1, session, UID(instance), meta_uid=meta)),
        (association.send_n_delete(session, UID(instance), meta_uid=meta).get("Status"), ""),
        (association.send_n_delete(session, UID(instance), meta_uid=meta).get("Status"), ""),
    ]
    association.release()
    return answers


def _private_service(route: Route, instance: str) -> list[Answer]:
    """A vendor's own SOP class: N-ACTION with a data set of its own, N-DELETE."""
    association = open_association(route, PRIVATE_SOP_CLASS)
    own = UID(PRIVATE_SOP_CLASS)
    answers = [
        _answer(association.send_n_action(_attributes(PatientComments="private"), 77, own, UID(instance))),
        (association.send_n_delete(own, UID(instance)).get("Status"), ""),
    ]
    association.release()
    return answers


CASES: dict[str, tuple[Callable[[Route, str], list[Answer]], list[int | None]]] = {
    "mpps": (_procedure_step, [0x0000, 0x0111, 0x0000, 0x0112]),
    "ups": (_worklist_step, [0x0000, 0x0000, 0x0000, 0x0000]),
    "print": (_print_job, [0x0000, 0x0000, 0x0000, 0x0000, 0x0000, 0x0112]),
    "private": (_private_service, [0x0000, 0x0112]),
}


@pytest.mark.parametrize("service", CASES)
def test_normalized_service_has_the_same_answers_on_both_routes(here: Hospital, scanner: Route, service: str) -> None:
    operate, expected = CASES[service]
    instance = INSTANCE.format(list(CASES).index(service) + 1)
    here.archive.created.clear()
    here.archive.messages.clear()
    direct = operate(here.direct, instance)
    seen_direct = [(m.operation, m.sop_instance_uid, m.number, m.data_set) for m in here.archive.messages]
    assert [status for status, _ in direct] == expected
    here.archive.created.clear()
    here.archive.messages.clear()
    assert operate(scanner, instance) == direct
    # The archive got the same messages, data sets bit by bit, under the device's own title.
    assert [(m.operation, m.sop_instance_uid, m.number, m.data_set) for m in here.archive.messages] == seen_direct
    assert {m.calling_ae_title for m in here.archive.messages} == {"SCANNER"}


def _commitment_request(transaction: str) -> Dataset:
    image = sample("CT_small.dcm")
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.sop_class_uid
    reference.ReferencedSOPInstanceUID = image.sop_instance_uid
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = [reference]
    return request


def _commit(route: Route, transaction: str, **options: Any) -> Any:
    """Ask for commitment; return the open association."""
    association = open_association(route, COMMITMENT, **options)
    status, _ = association.send_n_action(
        _commitment_request(transaction), 1, UID(COMMITMENT), UID(COMMITMENT_INSTANCE)
    )
    assert status.get("Status") == 0x0000
    return association


def test_storage_commitment_is_reported_on_the_same_association(here: Hospital, scanner: Route) -> None:
    here.archive.commitment_reports_to = None
    here.archive.report_statuses.clear()
    for route, transaction in ((here.direct, INSTANCE.format("8.1")), (scanner, INSTANCE.format("8.2"))):
        reported: list[tuple[int, str]] = []

        def on_report(event: Any, into: list[tuple[int, str]] = reported) -> tuple[int, None]:
            into.append((event.request.EventTypeID, str(event.event_information.TransactionUID)))
            return 0x0000, None

        expected = len(here.archive.report_statuses) + 1
        association = _commit(route, transaction, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)])
        assert here.archive.wait_until(lambda number=expected: len(here.archive.report_statuses) >= number)
        association.release()
        assert reported == [(1, transaction)]
    assert here.archive.report_statuses == [0x0000, 0x0000]


def test_storage_commitment_is_reported_on_a_later_association(here: Hospital, scanner: Route) -> None:
    """The next time that the modality calls, on whatever day, and after a restart of the gateway in between."""
    here.archive.report_statuses.clear()
    here.archive.commitment_reports_wait = True
    transaction = INSTANCE.format("8.5")
    try:
        _commit(scanner, transaction).release()
    finally:
        here.archive.commitment_reports_wait = False
    assert here.gateway.stop() == 0
    here.gateway.start()
    assert here.archive.report_statuses == []
    reported: list[tuple[int, str]] = []

    def on_report(event: Any) -> tuple[int, None]:
        reported.append((event.request.EventTypeID, str(event.event_information.TransactionUID)))
        return 0x0000, None

    later = open_association(scanner, COMMITMENT, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)])
    assert here.archive.wait_until(lambda: here.archive.report_statuses)
    later.release()
    assert here.archive.report_statuses == [0x0000]
    assert reported == [(1, transaction)]


def test_another_devices_report_on_a_later_association_is_refused(here: Hospital, scanner: Route) -> None:
    """An archive that mixes its callers up gets an error, and the device hears nothing of it."""
    here.archive.report_statuses.clear()
    here.archive.commitment_reports_wait = True
    transaction = INSTANCE.format("8.6")
    try:
        _commit(scanner, transaction).release()
    finally:
        here.archive.commitment_reports_wait = False
    other = here.device("ct9", "CT9")
    reported: list[str] = []

    def on_report(event: Any) -> tuple[int, None]:
        reported.append(str(event.event_information.TransactionUID))
        return 0x0000, None

    here.archive.mix_up_reports("SCANNER", "CT9")
    association = open_association(other, COMMITMENT, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)])
    assert here.archive.wait_until(lambda: here.archive.report_statuses)
    association.release()
    assert here.archive.report_statuses != [0x0000]
    assert reported == []
    assert "no-pending-commitment" in here.gateway.reasons()


def test_storage_commitment_is_reported_on_a_reverse_association_over_tls(here: Hospital) -> None:
    """The modality waits for a call under the title that it called: the archive's, not the gateway's."""
    modality, listener = here.listening_device("ct7", "CT7")
    here.archive.commitment_reports_to = ("CT7", here.gateway.archive_port)
    here.archive.report_statuses.clear()
    transaction = INSTANCE.format("8.3")
    association = _commit(modality, transaction)
    association.release()
    assert here.archive.wait_until(lambda: here.archive.report_statuses)
    here.archive.commitment_reports_to = None
    assert here.archive.report_statuses == [0x0000]
    assert [(m.operation, m.number, m.calling_ae_title, m.called_ae_title) for m in listener.messages] == [
        ("N-EVENT-REPORT", 1, "ARCHIVE", "CT7")
    ]


def test_report_on_a_reverse_association_that_nobody_asked_for_is_refused(here: Hospital) -> None:
    _, listener = here.listening_device("ct8", "CT8")
    here.archive.report_statuses.clear()
    here.archive.commitment_reports_to = ("CT8", here.gateway.archive_port)
    try:
        here.archive._report_elsewhere(None, _commitment_request(INSTANCE.format("8.4")))
    finally:
        here.archive.commitment_reports_to = None
    assert here.archive.report_statuses != [0x0000]
    assert listener.messages == []
    assert "no-pending-commitment" in here.gateway.reasons()


def test_role_selection_reaches_the_archive(here: Hospital, scanner: Route) -> None:
    """SCP role for Storage Commitment: what the archive grants is what the device is told."""
    roles = [build_role(UID(COMMITMENT), scu_role=True, scp_role=True)]
    granted = []
    for route in (here.direct, scanner):
        association = open_association(route, COMMITMENT, ext_neg=roles)
        context = association.accepted_contexts[0]
        granted.append((context.as_scu, context.as_scp))
        association.release()
    assert granted[0] == granted[1]


def test_no_patients_name_is_in_any_log(here: Hospital, scanner: Route) -> None:
    """Neither of a query, nor of its matches, nor of a procedure step or an image, allowed or denied."""
    name = "Zebra^Quagga"
    instance = INSTANCE.format("9.1")
    record = _attributes(PatientName=name, PatientID="ZQ1", StudyInstanceUID=instance, QueryRetrieveLevel="STUDY")
    here.archive.instances[instance] = record
    modality = here.device("nosy", "NOSY", role="modality")
    try:
        association = open_association(scanner, MPPS, STUDY_FIND)
        step = _attributes(PerformedProcedureStepStatus="IN PROGRESS", PatientName=name)
        assert association.send_n_create(step, UID(MPPS), UID(instance))[0].Status == 0
        query = _attributes(PatientName=name, PatientID="", StudyInstanceUID="", QueryRetrieveLevel="STUDY")
        answers = list(association.send_c_find(query, UID(STUDY_FIND)))
        assert [status.Status for status, _ in answers] == [0xFF00, 0x0000]
        association.release()
        assert not Pynetdicom().find(modality, {"QueryRetrieveLevel": "STUDY", "PatientName": name}).succeeded
    finally:
        del here.archive.instances[instance]
    assert len(here.gateway.audit("--device", "scanner")) >= 4
    logs = [*here.gateway.directory.joinpath("audit").rglob("*"), *here.gateway.directory.parent.glob("*.log")]
    read = b"".join(path.read_bytes() for path in logs if path.is_file())
    assert b"NOSY" in read
    assert b"Zebra" not in read
    assert b"Quagga" not in read
