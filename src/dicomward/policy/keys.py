"""Attributes that a query can be narrowed by, by keyword or tag: PS3.4 §C.6, §K.6 and §CC.2.8; names of PS3.6."""

import re
from typing import Final

_KEYS: Final = {
    "ImageType": 0x00080008,
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "StudyDate": 0x00080020,
    "SeriesDate": 0x00080021,
    "AcquisitionDate": 0x00080022,
    "ContentDate": 0x00080023,
    "StudyTime": 0x00080030,
    "SeriesTime": 0x00080031,
    "AcquisitionTime": 0x00080032,
    "ContentTime": 0x00080033,
    "AccessionNumber": 0x00080050,
    "Modality": 0x00080060,
    "ModalitiesInStudy": 0x00080061,
    "SOPClassesInStudy": 0x00080062,
    "Manufacturer": 0x00080070,
    "InstitutionName": 0x00080080,
    "ReferringPhysicianName": 0x00080090,
    "StationName": 0x00081010,
    "StudyDescription": 0x00081030,
    "SeriesDescription": 0x0008103E,
    "InstitutionalDepartmentName": 0x00081040,
    "PerformingPhysicianName": 0x00081050,
    "NameOfPhysiciansReadingStudy": 0x00081060,
    "OperatorsName": 0x00081070,
    "AdmittingDiagnosesDescription": 0x00081080,
    "ManufacturerModelName": 0x00081090,
    "PatientName": 0x00100010,
    "PatientID": 0x00100020,
    "IssuerOfPatientID": 0x00100021,
    "PatientBirthDate": 0x00100030,
    "PatientBirthTime": 0x00100032,
    "PatientSex": 0x00100040,
    "OtherPatientIDs": 0x00101000,
    "OtherPatientNames": 0x00101001,
    "PatientAge": 0x00101010,
    "PatientSize": 0x00101020,
    "PatientWeight": 0x00101030,
    "EthnicGroup": 0x00102160,
    "Occupation": 0x00102180,
    "AdditionalPatientHistory": 0x001021B0,
    "PatientComments": 0x00104000,
    "BodyPartExamined": 0x00180015,
    "ProtocolName": 0x00181030,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "StudyID": 0x00200010,
    "SeriesNumber": 0x00200011,
    "AcquisitionNumber": 0x00200012,
    "InstanceNumber": 0x00200013,
    "FrameOfReferenceUID": 0x00200052,
    "Laterality": 0x00200060,
    "RequestingPhysician": 0x00321032,
    "RequestingService": 0x00321033,
    "RequestedProcedureDescription": 0x00321060,
    "AdmissionID": 0x00380010,
    "CurrentPatientLocation": 0x00380300,
    "PatientState": 0x00380500,
    "PerformedProcedureStepStartDate": 0x00400244,
    "PerformedProcedureStepStartTime": 0x00400245,
    "PerformedProcedureStepID": 0x00400253,
    "PerformedProcedureStepDescription": 0x00400254,
    "RequestedProcedureID": 0x00401001,
    "RequestedProcedurePriority": 0x00401003,
    "PlacerOrderNumberImagingServiceRequest": 0x00402016,
    "FillerOrderNumberImagingServiceRequest": 0x00402017,
    "ConfidentialityConstraintOnPatientDataDescription": 0x00403001,
    "ScheduledProcedureStepStartDateTime": 0x00404005,
    "ExpectedCompletionDateTime": 0x00404011,
    "ProcedureStepState": 0x00741000,
    "ScheduledProcedureStepPriority": 0x00741200,
    "WorklistLabel": 0x00741202,
    "ProcedureStepLabel": 0x00741204,
}

_NESTED: Final = {
    "ScheduledStationAETitle": 0x00400001,
    "ScheduledProcedureStepStartDate": 0x00400002,
    "ScheduledProcedureStepStartTime": 0x00400003,
    "ScheduledPerformingPhysicianName": 0x00400006,
    "ScheduledProcedureStepDescription": 0x00400007,
    "ScheduledProcedureStepID": 0x00400009,
    "ScheduledStationName": 0x00400010,
    "ScheduledProcedureStepLocation": 0x00400011,
    "ScheduledProcedureStepStatus": 0x00400020,
}

_SEQUENCES: Final = {
    "ReferencedStudySequence": 0x00081110,
    "ReferencedPatientSequence": 0x00081120,
    "IssuerOfPatientIDQualifiersSequence": 0x00100024,
    "OtherPatientIDsSequence": 0x00101002,
    "RequestedProcedureCodeSequence": 0x00321064,
    "ScheduledProcedureStepSequence": 0x00400100,
    "RequestAttributesSequence": 0x00400275,
    "ScheduledWorkitemCodeSequence": 0x00404018,
    "ScheduledStationNameCodeSequence": 0x00404025,
    "ReferencedRequestSequence": 0x0040A370,
}

_NOT_NARROWING: Final = {
    "SpecificCharacterSet": 0x00080005,
    "QueryRetrieveLevel": 0x00080052,
    "QueryRetrieveView": 0x00080053,
    "RetrieveAETitle": 0x00080054,
    "InstanceAvailability": 0x00080056,
    "TimezoneOffsetFromUTC": 0x00080201,
    "NumberOfPatientRelatedStudies": 0x00201200,
    "NumberOfPatientRelatedSeries": 0x00201202,
    "NumberOfPatientRelatedInstances": 0x00201204,
    "NumberOfStudyRelatedSeries": 0x00201206,
    "NumberOfStudyRelatedInstances": 0x00201208,
    "NumberOfSeriesRelatedInstances": 0x00201209,
    "StorageMediaFileSetID": 0x00880130,
    "StorageMediaFileSetUID": 0x00880140,
}

KEY_TAGS: Final[dict[str, int]] = _KEYS
_KEYWORDS: Final = {tag: keyword for keyword, tag in _KEYS.items()}
_REFUSED: Final[dict[int, tuple[str, str]]] = {
    **{tag: (keyword, "lies inside a sequence, and rules see top-level keys only") for keyword, tag in _NESTED.items()},
    **{tag: (keyword, "is a sequence, and rules see single values only") for keyword, tag in _SEQUENCES.items()},
    **{tag: (keyword, "does not narrow a query") for keyword, tag in _NOT_NARROWING.items()},
}
_REFUSED_TAGS: Final = {keyword: tag for tag, (keyword, _) in _REFUSED.items()}
_TAG: Final = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?\Z")


# With a wildcard these are a way to browse, `*1*` by `*1*`.
NAMING_KEYS: Final = frozenset(
    _KEYS[keyword]
    for keyword in (
        *("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
        *("PatientID", "OtherPatientIDs", "AccessionNumber", "AdmissionID", "RequestedProcedureID"),
        *(
            "PerformedProcedureStepID",
            "PlacerOrderNumberImagingServiceRequest",
            "FillerOrderNumberImagingServiceRequest",
        ),
    )
)


class QueryKeyError(ValueError):
    """The text names no key that a rule can ask for; the message says why."""


class UnknownQueryKeyError(QueryKeyError):
    """The text is neither a tag nor a keyword that we know."""


def parse_query_key(text: str) -> int:
    """Return the 32-bit tag of a keyword of PS3.6 or of a tag (`0010,0020`, `(0010,0020)`, `00100020`).

    Raises QueryKeyError.
    """
    match = _TAG.match(text)
    tag = int(match[1] + match[2], 16) if match else KEY_TAGS.get(text, _REFUSED_TAGS.get(text))
    if tag is None:
        raise UnknownQueryKeyError(f'"{text}" is not the keyword of a query key')
    if tag in _REFUSED:
        keyword, why = _REFUSED[tag]
        raise QueryKeyError(f"{keyword} {key_label(tag)} {why}")
    if tag >> 16 < 0x0008 or tag & 0xFFFF == 0:
        raise QueryKeyError(f"{key_label(tag)} is not an attribute of a data set")
    return tag


def is_filled(tag: int, value: bytes) -> bool:
    """Say if a rule that requires the key is content with the value: it narrows, and so does each of its alternatives.

    A key that names one patient, order or study has no wildcards (PS3.4 §C.2.2.2.4 would match any part).
    """
    if tag in NAMING_KEYS and (b"*" in value or b"?" in value):
        return False
    return all(part.strip(b"\0 *?^-") for part in value.split(b"\\"))


def key_label(tag: int) -> str:
    """Return the tag as PS3.5 writes it: `(0010,0020)`."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def key_name(tag: int) -> str:
    """Return the keyword of a key, or its tag where it is not a usual one."""
    return _KEYWORDS.get(tag) or key_label(tag)
