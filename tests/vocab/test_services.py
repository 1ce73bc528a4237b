"""Services of SOP classes, against pynetdicom's lists; and what the clinical floor is."""

import pynetdicom.sop_class as pynetdicom_classes
import pytest

from dicomward.vocab.dimse import Operation
from dicomward.vocab.services import (
    MODALITY_WORKLIST_FIND,
    MPPS,
    OPERATIONS_OF_SERVICE,
    SERVICE_OF_SOP_CLASS,
    SOP_CLASS_BY_KEYWORD,
    STORAGE_COMMITMENT_PUSH_MODEL,
    VERIFICATION,
    Service,
    has_clinical_floor,
    is_clinical_floor,
    operations_of,
    service_of,
)

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
PRIVATE = "1.2.276.0.99.1"
NORMALIZED = {operation for operation in Operation if operation.name.startswith("N_")}


@pytest.mark.parametrize(
    ("uid", "service"),
    [
        (VERIFICATION, Service.VERIFICATION),
        (CT_IMAGE, Service.STORAGE),
        ("1.2.840.10008.5.1.4.1.1.12.77", Service.STORAGE),
        ("1.2.840.10008.1.3.10", Service.STORAGE),
        (STUDY_FIND, Service.QUERY),
        (STUDY_MOVE, Service.MOVE),
        (STUDY_GET, Service.GET),
        ("1.2.840.10008.5.1.4.1.2.5.3", Service.GET),
        (MODALITY_WORKLIST_FIND, Service.WORKLIST),
        (MPPS, Service.MPPS),
        ("1.2.840.10008.3.1.2.3.4", Service.MPPS),
        ("1.2.840.10008.3.1.2.3.5", Service.MPPS),
        ("1.2.840.10008.3.1.2.3.1", Service.OTHER),
        (STORAGE_COMMITMENT_PUSH_MODEL, Service.STORAGE_COMMITMENT),
        ("1.2.840.10008.1.20.2", Service.STORAGE_COMMITMENT),
        ("1.2.840.10008.5.1.1.9", Service.PRINT),
        ("1.2.840.10008.5.1.1.33", Service.OTHER),
        ("1.2.840.10008.5.1.1.40", Service.OTHER),
        ("1.2.840.10008.5.1.4.34.6.1", Service.UPS),
        ("1.2.840.10008.5.1.4.41", Service.QUERY),
        (PRIVATE, Service.OTHER),
        ("", Service.OTHER),
    ],
)
def test_services(uid: str, service: Service) -> None:
    assert service_of(uid) is service


def test_all_storage_classes_of_pynetdicom_are_storage() -> None:
    known = {uid for uid in pynetdicom_classes._STORAGE_CLASSES.values() if uid in SERVICE_OF_SOP_CLASS}
    assert len(known) > 150
    assert {service_of(uid) for uid in known} == {Service.STORAGE}


def test_all_retrieval_classes_of_pynetdicom_are_found() -> None:
    kinds = {"Find": Service.QUERY, "Query": Service.QUERY, "Move": Service.MOVE, "Get": Service.GET}
    for keyword, uid in pynetdicom_classes._QR_CLASSES.items():
        (expected,) = [service for end, service in kinds.items() if keyword.endswith(end)]
        assert service_of(uid) is expected, keyword


def test_tables_are_complete() -> None:
    assert set(OPERATIONS_OF_SERVICE) == set(Service)
    assert all(OPERATIONS_OF_SERVICE.values())
    assert SOP_CLASS_BY_KEYWORD["CTImageStorage"] == CT_IMAGE
    assert set(SOP_CLASS_BY_KEYWORD.values()) == set(SERVICE_OF_SOP_CLASS)


@pytest.mark.parametrize(
    ("uid", "operations"),
    [
        (VERIFICATION, {Operation.C_ECHO}),
        (CT_IMAGE, {Operation.C_STORE}),
        (STUDY_FIND, {Operation.C_FIND}),
        (STUDY_MOVE, {Operation.C_MOVE}),
        (STUDY_GET, {Operation.C_GET}),
        (STORAGE_COMMITMENT_PUSH_MODEL, {Operation.N_ACTION, Operation.N_EVENT_REPORT}),
        # Instance Availability Notification; what the standard names has only the operations of its kind.
        ("1.2.840.10008.5.1.4.33", NORMALIZED),
        # Basic Study Content Notification (retired).
        ("1.2.840.10008.1.9", {Operation.C_STORE}),
        # General Purpose Worklist Management Meta (retired): its queries travel in contexts of it.
        ("1.2.840.10008.5.1.4.32", {Operation.C_FIND, *NORMALIZED}),
        # A private class says nothing of its operations.
        (PRIVATE, set(Operation)),
    ],
)
def test_operations_of_a_sop_class(uid: str, operations: set[Operation]) -> None:
    assert operations_of(uid) == operations


def test_the_clinical_floor_is_what_issue_and_docs_say() -> None:
    """C-ECHO, C-STORE, Modality Worklist, MPPS and Storage Commitment, and nothing else."""
    floor = {
        (service, operation)
        for uid, service in {**SERVICE_OF_SOP_CLASS, PRIVATE: Service.OTHER}.items()
        for operation in Operation
        if is_clinical_floor(operation, uid)
    }
    assert floor == {
        (Service.VERIFICATION, Operation.C_ECHO),
        (Service.STORAGE, Operation.C_STORE),
        (Service.OTHER, Operation.C_STORE),
        (Service.WORKLIST, Operation.C_FIND),
        *((Service.MPPS, operation) for operation in OPERATIONS_OF_SERVICE[Service.MPPS]),
        *((Service.STORAGE_COMMITMENT, operation) for operation in OPERATIONS_OF_SERVICE[Service.STORAGE_COMMITMENT]),
    }


@pytest.mark.parametrize("uid", [*SERVICE_OF_SOP_CLASS, PRIVATE])
def test_a_context_may_carry_the_floor_if_one_of_its_operations_is_of_it(uid: str) -> None:
    assert has_clinical_floor(uid) is any(is_clinical_floor(operation, uid) for operation in Operation)
