"""Attributes that a rule takes out of the matches of a query: which may be named, and what is taken out in the end.

PS3.4 §C.4.1: the unique keys of a level, and what says how to read a match, can't be taken out by anybody; what a
clinical role needs to tell patients apart can't be taken out for a clinical role.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from dicomward.policy.keys import KEY_TAGS, key_label
from dicomward.vocab.principal import Role

CLINICAL_ROLES: Final = frozenset({Role.MODALITY.value, Role.WORKSTATION.value, Role.ARCHIVE.value})

# Attributes of PS3.6 that tell of a person and that archives return, beside the keys of a query.
_PERSONAL: Final = {
    "InstitutionAddress": 0x00080081,
    "ReferringPhysicianAddress": 0x00080092,
    "ReferringPhysicianTelephoneNumbers": 0x00080094,
    "ReferringPhysicianIdentificationSequence": 0x00080096,
    "ConsultingPhysicianName": 0x0008009C,
    "PhysiciansOfRecord": 0x00081048,
    "AdmittingDiagnosesCodeSequence": 0x00081084,
    "ReferencedPatientSequence": 0x00081120,
    "TypeOfPatientID": 0x00100022,
    "IssuerOfPatientIDQualifiersSequence": 0x00100024,
    "SourcePatientGroupIdentificationSequence": 0x00100026,
    "PatientBirthDateInAlternativeCalendar": 0x00100033,
    "PatientInsurancePlanCodeSequence": 0x00100050,
    "PatientPrimaryLanguageCodeSequence": 0x00100101,
    "OtherPatientIDsSequence": 0x00101002,
    "PatientBirthName": 0x00101005,
    "PatientAddress": 0x00101040,
    "InsurancePlanIdentification": 0x00101050,
    "PatientMotherBirthName": 0x00101060,
    "MilitaryRank": 0x00101080,
    "BranchOfService": 0x00101081,
    "MedicalRecordLocator": 0x00101090,
    "ReferencedPatientPhotoSequence": 0x00101100,
    "MedicalAlerts": 0x00102000,
    "Allergies": 0x00102110,
    "CountryOfResidence": 0x00102150,
    "RegionOfResidence": 0x00102152,
    "PatientTelephoneNumbers": 0x00102154,
    "PatientTelecomInformation": 0x00102155,
    "SmokingStatus": 0x001021A0,
    "PregnancyStatus": 0x001021C0,
    "LastMenstrualDate": 0x001021D0,
    "PatientReligiousPreference": 0x001021F0,
    "ResponsiblePerson": 0x00102297,
    "ResponsibleOrganization": 0x00102299,
    "ReasonForStudy": 0x00321030,
    "SpecialNeeds": 0x00380050,
    "PatientInstitutionResidence": 0x00380400,
    "VisitComments": 0x00384000,
    "NamesOfIntendedRecipientsOfResults": 0x00401010,
    "PersonAddress": 0x00401102,
    "PersonTelephoneNumbers": 0x00401103,
    "RequestAttributesSequence": 0x00400275,
    "ReasonForTheRequestedProcedure": 0x00401002,
}
STRIP_TAGS: Final[Mapping[str, int]] = {**KEY_TAGS, **_PERSONAL}

# What a match can't be read, told apart or fetched without.
_NEEDED: Final = {
    0x00080005: "SpecificCharacterSet",
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x00080052: "QueryRetrieveLevel",
    0x00080054: "RetrieveAETitle",
    0x00080056: "InstanceAvailability",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
}
# "Name, ID, issuer, birth date, sex and accession number" tell a patient and an order apart.
CLINICAL_TAGS: Final[Mapping[int, str]] = {
    0x00080050: "AccessionNumber",
    0x00100010: "PatientName",
    0x00100020: "PatientID",
    0x00100021: "IssuerOfPatientID",
    0x00100030: "PatientBirthDate",
    0x00100040: "PatientSex",
}
# PS3.4 Tables C.6-1 to C.6-4: an SCP returns these when it is asked, without a value where it knows none.
REQUIRED_KEY_TAGS: Final = frozenset(
    {
        0x00080020,  # Study Date
        0x00080030,  # Study Time
        0x00080050,  # Accession Number
        0x00080060,  # Modality
        0x00100010,  # Patient's Name
        0x00100020,  # Patient ID
        0x00200010,  # Study ID
        0x00200011,  # Series Number
        0x00200013,  # Instance Number
    }
)

_TAG: Final = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?\Z")


class StripError(ValueError):
    """The text names no attribute that can be taken out; the message says why."""


class UnknownAttributeError(StripError):
    """The text is neither a tag nor a keyword that we know."""


def parse_strip_attribute(text: str) -> int:
    """Return the 32-bit tag of a keyword of PS3.6 or of a tag (`0010,1040`). Raises StripError."""
    match = _TAG.match(text)
    known = {keyword: tag for tag, keyword in _NEEDED.items()}
    tag = int(match[1] + match[2], 16) if match else STRIP_TAGS.get(text, known.get(text))
    if tag is None:
        raise UnknownAttributeError(f'"{text}" is not the keyword of an attribute that we know')
    if tag in _NEEDED:
        raise StripError(f"{_NEEDED[tag]} {key_label(tag)} is needed to read a match or to fetch what it is about")
    if tag >> 16 < 0x0008 or tag & 0xFFFF == 0:
        raise StripError(f"{key_label(tag)} is not an attribute of a data set")
    return tag


def attribute_name(tag: int) -> str:
    """Return the keyword of an attribute, or its tag where it is not a usual one."""
    return next((keyword for keyword, known in STRIP_TAGS.items() if known == tag), key_label(tag))


def union_of(strips: Mapping[str, frozenset[int]], rule_ids: Iterable[str]) -> frozenset[int]:
    """Return what the rules that allow a query take out together: one rule can't give back what another takes."""
    if not strips:
        return frozenset()
    return frozenset().union(*(strips[rule_id] for rule_id in rule_ids if rule_id in strips))
