"""Promise: a PDU body gives a PDU that survives encoding and decoding, or RemoteProtocolError; nothing else.

The first byte of an input is the PDU type.
"""

import harness

with harness.instrumented():
    from dicomward.dicom.codec import decode_pdu, encode_pdu
    from dicomward.dicom.errors import RemoteProtocolError
    from dicomward.dicom.limits import Limits
    from dicomward.dicom.pdu import (
        AAbort,
        AAssociateAc,
        AAssociateRj,
        AAssociateRq,
        AReleaseRp,
        AReleaseRq,
        AsyncOperationsWindow,
        CommonExtendedNegotiation,
        ExtendedNegotiation,
        PresentationContextAc,
        PresentationContextRq,
        RoleSelection,
        UserIdentity,
        UserInformation,
    )

LIMITS = Limits()

_USER = {
    "maximum_length": 16384,
    "implementation_class_uid": "1.2.3.4",
    "implementation_version_name": "FUZZ",
    "async_operations_window": AsyncOperationsWindow(maximum_invoked=5, maximum_performed=1),
    "role_selections": (RoleSelection(sop_class_uid="1.2.840.10008.5.1.4.1.1.2", scu_role=True, scp_role=True),),
    "extended_negotiations": (ExtendedNegotiation(sop_class_uid="1.2.840.10008.5.1.4.1.2.2.1", information=b"\1\1"),),
}
_COMMON = CommonExtendedNegotiation(sop_class_uid="1.2.3", service_class_uid="1.2.4", related_sop_class_uids=("1.5",))
_IDENTITY = UserIdentity(type=2, positive_response_requested=True, primary=b"user", secondary=b"pass")
_TITLES = {"called_ae_title": "ARCHIVE", "calling_ae_title": "CT1"}

PDUS = (
    AAssociateRq(
        **_TITLES,
        presentation_contexts=(
            PresentationContextRq(context_id=1, abstract_syntax="1.2.840.10008.1.1", transfer_syntaxes=("1.2", "1.3")),
            PresentationContextRq(context_id=255, abstract_syntax="1.2.840.10008.5.1.4.31", transfer_syntaxes=("1.2",)),
        ),
        user_information=UserInformation(**_USER, common_extended_negotiations=(_COMMON,), user_identity=_IDENTITY),
    ),
    AAssociateAc(
        **_TITLES,
        presentation_contexts=(
            PresentationContextAc(context_id=1, result=0, transfer_syntax="1.2.840.10008.1.2"),
            PresentationContextAc(context_id=3, result=4, transfer_syntax=""),
        ),
        user_information=UserInformation(**_USER, user_identity_response=b"ticket"),
    ),
    AAssociateRj(result=1, source=1, reason=7),
    AReleaseRq(),
    AReleaseRp(),
    AAbort(source=2, reason=6),
)
SEEDS = [data[:1] + data[6:] for data in map(encode_pdu, PDUS)]


def one_input(data: bytes) -> None:
    try:
        pdu = decode_pdu(data[0] if data else 0, data[1:], LIMITS)
    except RemoteProtocolError:
        return
    again = encode_pdu(pdu)
    if decode_pdu(again[0], again[6:], LIMITS) != pdu:
        raise AssertionError("what was decoded does not survive")


if __name__ == "__main__":
    harness.main(one_input, SEEDS)
