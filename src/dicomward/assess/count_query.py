"""What counting says on the wire: the association request, the query, its cancellation. Nothing here can write or move.

The storage contexts are offered and never used: that they are accepted from anyone is what counts as open to tampering.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from dicomward.assess.count_classes import ASKED_TAGS, QUERY_LEVEL, STUDY_DATE
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.framing import encode_p_data
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import AAssociateAc, AAssociateRq, PresentationContextRq, UserInformation
from dicomward.vocab.association import PresentationResult
from dicomward.vocab.dimse import C_CANCEL_RQ, Operation, Priority
from dicomward.vocab.services import SOP_CLASS_BY_KEYWORD, VERIFICATION
from dicomward.vocab.uid import IMPLICIT_VR_LITTLE_ENDIAN

STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
ECHO_CONTEXT: Final = 1
STUDY_ROOT_CONTEXT: Final = 3
_STORAGE_KEYWORDS: Final = (
    "CTImageStorage",
    "MRImageStorage",
    "ComputedRadiographyImageStorage",
    "DigitalXRayImageStorageForPresentation",
    "UltrasoundImageStorage",
    "SecondaryCaptureImageStorage",
)
STORAGE_CONTEXTS: Final = {
    5 + 2 * place: SOP_CLASS_BY_KEYWORD[keyword] for place, keyword in enumerate(_STORAGE_KEYWORDS)
}
_ELEMENT: Final = Struct("<HHI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """How we announce ourselves, as the scope says."""

    calling_ae_title: str
    called_ae_title: str
    implementation_class_uid: str
    implementation_version_name: str


def association_request(caller: Caller, limits: Limits) -> AAssociateRq:
    """Return the request that asks for queries, and learns from its answer who may store."""
    contexts = {ECHO_CONTEXT: VERIFICATION, STUDY_ROOT_CONTEXT: STUDY_ROOT_FIND, **STORAGE_CONTEXTS}
    return AAssociateRq(
        called_ae_title=caller.called_ae_title,
        calling_ae_title=caller.calling_ae_title,
        presentation_contexts=tuple(
            PresentationContextRq(
                context_id=context_id, abstract_syntax=uid, transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,)
            )
            for context_id, uid in contexts.items()
        ),
        user_information=UserInformation(
            maximum_length=limits.max_pdu_bytes,
            implementation_class_uid=caller.implementation_class_uid,
            implementation_version_name=caller.implementation_version_name,
        ),
    )


def accepted_contexts(accept: AAssociateAc) -> frozenset[int]:
    """Return the IDs of the contexts that were accepted."""
    return frozenset(
        each.context_id for each in accept.presentation_contexts if each.result == PresentationResult.ACCEPTANCE
    )


def query(message_id: int, dates: str, max_pdu_bytes: int) -> bytes:
    """Return a C-FIND-RQ for all studies of `dates` (a range, or "" for any), as P-DATA-TF PDUs."""
    command = CommandSet(
        command_field=Operation.C_FIND,
        message_id=message_id,
        affected_sop_class_uid=STUDY_ROOT_FIND,
        priority=Priority.LOW,
        has_data_set=True,
    )
    values = dict.fromkeys(ASKED_TAGS, b"") | {QUERY_LEVEL: b"STUDY ", STUDY_DATE: _even(dates.encode("ascii"))}
    identifier = b"".join(
        _ELEMENT.pack(tag >> 16, tag & 0xFFFF, len(value)) + value for tag, value in sorted(values.items())
    )
    return encode_p_data(STUDY_ROOT_CONTEXT, encode_command_set(command), max_pdu_bytes, command=True) + encode_p_data(
        STUDY_ROOT_CONTEXT, identifier, max_pdu_bytes, command=False
    )


def cancel(message_id: int, max_pdu_bytes: int) -> bytes:
    """Return a C-CANCEL-RQ of that query."""
    command = CommandSet(command_field=C_CANCEL_RQ, message_id_being_responded_to=message_id)
    return encode_p_data(STUDY_ROOT_CONTEXT, encode_command_set(command), max_pdu_bytes, command=True)


def _even(value: bytes) -> bytes:
    return value + b" " if len(value) & 1 else value
