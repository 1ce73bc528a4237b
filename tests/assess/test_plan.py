"""What is asked: nothing but echoes and queries for nobody; and when a host is left alone."""

import io

import pydicom

from dicomward.assess.plan import (
    NO_PATIENT,
    NO_STUDY,
    OFFERED,
    Tempo,
    associate_rq,
    nothing_patient_identifier,
    nothing_study_identifier,
    nothing_worklist_identifier,
)
from dicomward.dicom.codec import encode_pdu


def dataset_of(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data), force=True)


def test_identifiers_name_nobody() -> None:
    study = dataset_of(nothing_study_identifier())
    assert (study.QueryRetrieveLevel, study.StudyInstanceUID) == ("STUDY", NO_STUDY)
    patient = dataset_of(nothing_patient_identifier())
    assert (patient.QueryRetrieveLevel, patient.PatientID) == ("PATIENT", NO_PATIENT)
    item = dataset_of(nothing_worklist_identifier())
    assert item.PatientID == NO_PATIENT
    assert [each.tag for each in item.ScheduledProcedureStepSequence[0]] == [0x00080060, 0x00400001]


def test_request_says_who_asks_and_has_an_id_for_each_context() -> None:
    request = associate_rq("DW-ASSESS", "PACS")
    assert request.user_information.implementation_version_name == "DICOMWARD_ASSESS"
    assert [each.abstract_syntax for each in request.presentation_contexts] == list(OFFERED)
    assert encode_pdu(request)


def test_host_that_takes_twice_the_time_is_left_alone() -> None:
    tempo = Tempo(0.25)
    assert tempo.note("an association", 0.3) == ""
    assert tempo.note("C-ECHO", 5.0) == ""
    assert tempo.note("an association", 0.5) == ""
    assert tempo.note("an association", 0.2) == ""
    assert "slows down" in tempo.note("an association", 0.5)
    assert tempo.slowest == 5.0


def test_small_differences_are_the_networks() -> None:
    tempo = Tempo(0.25)
    assert tempo.note("an association", 0.01) == ""
    assert tempo.note("an association", 0.2) == ""
