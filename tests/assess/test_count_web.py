"""Studies in DICOM JSON become identifiers that the tally takes; what is no study is told without its bytes."""

import json

import pytest

from dicomward.assess.count_classes import keywords_in
from dicomward.assess.count_tally import Patients, Tally
from dicomward.assess.count_web import PAGE, read_page, studies_path

STUDY = {
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00080020": {"vr": "DA", "Value": ["20200101"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B", "Ideographic": "C"}]},
    "00100020": {"vr": "LO", "Value": ["47 11"]},
    "00100030": {"vr": "DA"},
    "00101002": {"vr": "SQ", "Value": [{"00100020": {"vr": "LO", "Value": ["X"]}}]},
    "00081032": {"vr": "SQ", "Value": [{}]},
    "00081080": {"vr": "LO", "Value": [None, "COUGH", None]},
    "00102160": {"vr": "SH", "Value": "text"},
    "00104000": {"vr": "LT", "BulkDataURI": "bulk/1"},
    "00080061": "broken",
}


def attributes(*studies: object) -> tuple[list[str], int, int]:
    patients = Patients(b"k" * 32, lambda text: "")
    tally = Tally(patients)
    for _, identifier in read_page(json.dumps(studies).encode()):
        tally.add(identifier, 0, len(identifier))
    numbers = tally.take()
    return sorted({each for mask in numbers.kinds for each in keywords_in(mask)}), numbers.studies, len(patients)


def test_attributes_with_a_value_count() -> None:
    assert attributes(STUDY, STUDY) == (
        [
            "AdmittingDiagnosesDescription", "OtherPatientIDsSequence", "PatientComments", "PatientID", "PatientName",
            "StudyDate",
        ],
        2,
        1,
    )  # fmt: skip


def test_uid_tells_one_page_from_the_next() -> None:
    assert [uid for uid, _ in read_page(json.dumps([STUDY, {}]).encode())] == ["1.2.3", ""]
    assert read_page(b" ") == read_page(b"[]") == []


@pytest.mark.parametrize("body", [b"<html>CANARY", b'{"CANARY": 1}', b'["CANARY"]', b'"CANARY"', b"[" * 100_000])
def test_what_is_no_list_of_studies_is_told_without_its_bytes(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"PS3\.18") as raised:
        read_page(body)
    assert "CANARY" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_query_asks_for_a_page_and_what_is_classified() -> None:
    path = studies_path("/dicom-web/", "20200101-20201231", 400)
    assert path.startswith(f"/dicom-web/studies?limit={PAGE}&offset=400&StudyDate=20200101-20201231&includefield=")
    assert "includefield=00101040" in path
    assert "StudyDate" not in studies_path("/rs", "", 0)
