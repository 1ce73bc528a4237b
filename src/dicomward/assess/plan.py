"""What is asked of a server, and in which words: presentation contexts, identifiers that match nothing, tempo.

Rules of this file: only C-ECHO and C-FIND are ever sent. C-FIND asks for one study or one patient of ours, which nobody
has; what would be stored, moved or fetched is learned from presentation contexts alone.
"""

from struct import Struct
from typing import Final

from dicomward.dicom.pdu import AAssociateRq, PresentationContextRq, UserInformation
from dicomward.vocab.services import MODALITY_WORKLIST_FIND, SOP_CLASS_BY_KEYWORD, STORAGE_COMMITMENT_PUSH_MODEL
from dicomward.vocab.services import VERIFICATION as _VERIFICATION
from dicomward.vocab.uid import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

ASSESS_IMPLEMENTATION_CLASS_UID: Final = "2.25.214127446171923046129183275091862173901"
ASSESS_IMPLEMENTATION_VERSION_NAME: Final = "DICOMWARD_ASSESS"
MAXIMUM_LENGTH: Final = 16_384
# Nobody has made this study; a C-FIND for it has no match.
NO_STUDY: Final = "2.25.214127446171923046129183275091862173902"
NO_PATIENT: Final = "DICOMWARD-ASSESS-NOBODY"
# A title that no server has, to see whether the called AE title is looked at.
NOBODYS_AE_TITLE: Final = "DW-NOBODY-HERE"

VERIFICATION: Final = _VERIFICATION
STUDY_FIND: Final = SOP_CLASS_BY_KEYWORD["StudyRootQueryRetrieveInformationModelFind"]
PATIENT_FIND: Final = SOP_CLASS_BY_KEYWORD["PatientRootQueryRetrieveInformationModelFind"]
WORKLIST_FIND: Final = MODALITY_WORKLIST_FIND
MOVES: Final = tuple(
    SOP_CLASS_BY_KEYWORD[f"{root}RootQueryRetrieveInformationModelMove"] for root in ("Study", "Patient")
)
GETS: Final = tuple(
    SOP_CLASS_BY_KEYWORD[f"{root}RootQueryRetrieveInformationModelGet"] for root in ("Study", "Patient")
)
STORAGE: Final = tuple(
    SOP_CLASS_BY_KEYWORD[keyword]
    for keyword in (
        "CTImageStorage",
        "MRImageStorage",
        "UltrasoundImageStorage",
        "DigitalXRayImageStorageForPresentation",
        "SecondaryCaptureImageStorage",
        "BasicTextSRStorage",
        "EncapsulatedPDFStorage",
        "RTPlanStorage",
    )
)
STORE: Final = STORAGE[0]
COMMITMENT: Final = STORAGE_COMMITMENT_PUSH_MODEL
OFFERED: Final = (VERIFICATION, STUDY_FIND, PATIENT_FIND, WORKLIST_FIND, *MOVES, *GETS, *STORAGE, COMMITMENT)

_ELEMENT: Final = Struct("<HHI")


def associate_rq(calling_ae_title: str, called_ae_title: str, sop_classes: tuple[str, ...] = OFFERED) -> AAssociateRq:
    """Return the request, which says who asks: its own implementation class UID and version name."""
    return AAssociateRq(
        called_ae_title=called_ae_title,
        calling_ae_title=calling_ae_title,
        presentation_contexts=tuple(
            PresentationContextRq(
                context_id=2 * place + 1,
                abstract_syntax=uid,
                # With two syntaxes the acceptor chooses; identifiers are written in the one that all must know.
                transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,)
                if uid not in STORAGE
                else (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN),
            )
            for place, uid in enumerate(sop_classes)
        ),
        user_information=UserInformation(
            maximum_length=MAXIMUM_LENGTH,
            implementation_class_uid=ASSESS_IMPLEMENTATION_CLASS_UID,
            implementation_version_name=ASSESS_IMPLEMENTATION_VERSION_NAME,
        ),
    )


def _element(tag: int, value: bytes, padding: bytes = b" ") -> bytes:
    even = value + padding if len(value) & 1 else value
    return _ELEMENT.pack(tag >> 16, tag & 0xFFFF, len(even)) + even


def nothing_study_identifier() -> bytes:
    """Return the identifier, in Implicit VR Little Endian, of a study that does not exist."""
    return _element(0x00080052, b"STUDY") + _element(0x0020000D, NO_STUDY.encode("ascii"), b"\0")


def nothing_patient_identifier() -> bytes:
    """Return the identifier of a patient that does not exist, for servers that know the patient root only."""
    return _element(0x00080052, b"PATIENT") + _element(0x00100020, NO_PATIENT.encode("ascii"))


def nothing_worklist_identifier() -> bytes:
    """Return a worklist identifier that no scheduled procedure step matches."""
    item = _element(0x00080060, b"") + _element(0x00400001, b"")
    sequence = _ELEMENT.pack(0xFFFE, 0xE000, len(item)) + item
    return _element(0x00100020, NO_PATIENT.encode("ascii")) + _element(0x00400100, sequence)


class Tempo:
    """Whether a host has slowed down: an answer that takes twice the time of the quickest of its kind so far.

    Differences below `floor` seconds are the network's and the scheduler's, not the host's.
    """

    __slots__ = ("_floor", "_quickest", "slowest")

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self._quickest: dict[str, float] = {}
        self.slowest = 0.0

    def note(self, kind: str, seconds: float) -> str:
        """Take the time of one answer; return why the host is to be left alone, "" if it is not."""
        self.slowest = max(self.slowest, seconds)
        quickest = self._quickest.setdefault(kind, seconds)
        if seconds < quickest:
            self._quickest[kind] = seconds
        if seconds >= 2 * quickest and seconds - quickest > self._floor:
            return f"{kind} took {seconds * 1000:.0f} ms, {quickest * 1000:.0f} ms before: the host slows down"
        return ""
