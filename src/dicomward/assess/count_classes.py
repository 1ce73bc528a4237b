"""Which attributes of a query's answer are personal and which are medical. docs/assessment-classes.md is this table.

Rules of this file: each attribute has exactly one class, so nothing is counted twice. What says who somebody is, or
where and how to find them, is personal; what says that, when, why or by whom somebody was examined or treated is
medical. Attributes that only serve the query (UIDs, study ID, counters) are in neither.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class DataClass(StrEnum):
    """The two kinds of records of the research."""

    PERSONAL = "personal"
    MEDICAL = "medical"


@dataclass(frozen=True, slots=True)
class Classified:
    """One attribute: its tag as a 32-bit number, its keyword and its class; `asked` if our query asks for it."""

    tag: int
    keyword: str
    data_class: DataClass
    asked: bool = False


_P: Final = DataClass.PERSONAL
_M: Final = DataClass.MEDICAL

CLASSIFIED: Final[tuple[Classified, ...]] = (
    Classified(0x00100010, "PatientName", _P, True),
    Classified(0x00100020, "PatientID", _P, True),
    Classified(0x00100021, "IssuerOfPatientID", _P, True),
    Classified(0x00100030, "PatientBirthDate", _P, True),
    Classified(0x00100032, "PatientBirthTime", _P),
    Classified(0x00100040, "PatientSex", _P, True),
    Classified(0x00100050, "PatientInsurancePlanCodeSequence", _P),
    Classified(0x00101000, "OtherPatientIDs", _P, True),
    Classified(0x00101001, "OtherPatientNames", _P),
    Classified(0x00101002, "OtherPatientIDsSequence", _P),
    Classified(0x00101005, "PatientBirthName", _P),
    Classified(0x00101010, "PatientAge", _P),
    Classified(0x00101040, "PatientAddress", _P, True),
    Classified(0x00101060, "PatientMotherBirthName", _P),
    Classified(0x00101080, "MilitaryRank", _P),
    Classified(0x00101081, "BranchOfService", _P),
    Classified(0x00102150, "CountryOfResidence", _P, True),
    Classified(0x00102152, "RegionOfResidence", _P),
    Classified(0x00102154, "PatientTelephoneNumbers", _P, True),
    Classified(0x00102155, "PatientTelecomInformation", _P),
    Classified(0x00102160, "EthnicGroup", _P),
    Classified(0x00102180, "Occupation", _P),
    Classified(0x001021F0, "PatientReligiousPreference", _P),
    Classified(0x00102297, "ResponsiblePerson", _P),
    Classified(0x00102299, "ResponsibleOrganization", _P),
    Classified(0x00080020, "StudyDate", _M, True),
    Classified(0x00080030, "StudyTime", _M, True),
    Classified(0x00080050, "AccessionNumber", _M, True),
    Classified(0x00080061, "ModalitiesInStudy", _M, True),
    Classified(0x00080080, "InstitutionName", _M),
    Classified(0x00080081, "InstitutionAddress", _M),
    Classified(0x00080090, "ReferringPhysicianName", _M, True),
    Classified(0x00081030, "StudyDescription", _M, True),
    Classified(0x00081032, "ProcedureCodeSequence", _M),
    Classified(0x00081048, "PhysiciansOfRecord", _M),
    Classified(0x00081060, "NameOfPhysiciansReadingStudy", _M),
    Classified(0x00081080, "AdmittingDiagnosesDescription", _M, True),
    Classified(0x00081084, "AdmittingDiagnosesCodeSequence", _M),
    Classified(0x00102000, "MedicalAlerts", _M),
    Classified(0x00102110, "Allergies", _M),
    Classified(0x00101020, "PatientSize", _M),
    Classified(0x00101030, "PatientWeight", _M),
    Classified(0x001021A0, "SmokingStatus", _M),
    Classified(0x001021B0, "AdditionalPatientHistory", _M),
    Classified(0x001021C0, "PregnancyStatus", _M),
    Classified(0x00104000, "PatientComments", _M),
    Classified(0x00321030, "ReasonForStudy", _M),
    Classified(0x00321032, "RequestingPhysician", _M),
    Classified(0x00321060, "RequestedProcedureDescription", _M),
    Classified(0x00380010, "AdmissionID", _M),
)

# The bit of each attribute in a mask, by its tag as it stands on the wire (group, element, little endian).
_WIRE: Final = {item.tag: (item.tag >> 16) | (item.tag & 0xFFFF) << 16 for item in CLASSIFIED}
BIT_OF_WIRE_TAG: Final[dict[int, int]] = {_WIRE[item.tag]: 1 << place for place, item in enumerate(CLASSIFIED)}
PERSONAL_MASK: Final = sum(1 << place for place, item in enumerate(CLASSIFIED) if item.data_class is _P)
MEDICAL_MASK: Final = sum(1 << place for place, item in enumerate(CLASSIFIED) if item.data_class is _M)

# Beside the classified ones: the date and the level steer the query, the UID is its unique key (PS3.4 §C.6.2.1.2).
STUDY_DATE: Final = 0x00080020
QUERY_LEVEL: Final = 0x00080052
STUDY_INSTANCE_UID: Final = 0x0020000D
ASKED_TAGS: Final = tuple(sorted([*(item.tag for item in CLASSIFIED if item.asked), STUDY_INSTANCE_UID]))


def keywords_in(mask: int) -> tuple[str, ...]:
    """Return the keywords of the attributes in a mask."""
    return tuple(item.keyword for place, item in enumerate(CLASSIFIED) if mask >> place & 1)
