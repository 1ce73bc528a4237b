"""The query is a valid C-FIND at study level that asks and never names a value; nothing else can be sent."""

from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset

from dicomward.assess.count_query import STORAGE_CONTEXTS, Caller, accepted_contexts, association_request, cancel, query
from dicomward.dicom.dimse import decode_command_set
from dicomward.dicom.framing import fragments_of
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import AAssociateAc, PresentationContextAc, UserInformation
from dicomward.vocab.dimse import Operation

CALLER = Caller(
    calling_ae_title="ASSESS", called_ae_title="PACS", implementation_class_uid="1.2.3", implementation_version_name="V"
)


def test_query_can_be_read_by_others() -> None:
    parts = [bytes(part) for part, _ in fragments_of(memoryview(query(7, "20200101-20201231", 16_384)))]
    command = decode_command_set(parts[0], Limits())
    assert (command.operation, command.message_id, command.has_data_set) == (Operation.C_FIND, 7, True)
    found = read_dataset(DicomBytesIO(parts[1]), is_implicit_VR=True, is_little_endian=True)
    assert found.QueryRetrieveLevel == "STUDY"
    assert found.StudyDate == "20200101-20201231"
    assert not [each for each in found if each.value and each.keyword not in ("QueryRetrieveLevel", "StudyDate")]


def test_cancel_names_the_query() -> None:
    ((part, _),) = fragments_of(memoryview(cancel(7, 16_384)))
    command = decode_command_set(bytes(part), Limits())
    assert command.is_cancel
    assert command.message_id_being_responded_to == 7


def test_association_offers_no_way_to_move_or_get() -> None:
    request = association_request(CALLER, Limits())
    offered = {each.context_id: each.abstract_syntax for each in request.presentation_contexts}
    assert set(offered.values()) - set(STORAGE_CONTEXTS.values()) == {
        "1.2.840.10008.1.1",
        "1.2.840.10008.5.1.4.1.2.2.1",
    }
    accept = AAssociateAc(
        called_ae_title="",
        calling_ae_title="",
        presentation_contexts=(
            PresentationContextAc(context_id=1, result=0, transfer_syntax="1.2.840.10008.1.2"),
            PresentationContextAc(context_id=3, result=3, transfer_syntax=""),
        ),
        user_information=UserInformation(),
    )
    assert accepted_contexts(accept) == {1}
