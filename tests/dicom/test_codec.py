import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.tests import encoded_pdu_items as vectors

from dicomward.dicom.codec import decode_pdu, encode_pdu
from dicomward.dicom.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import (
    AAbort,
    AAssociateAc,
    AAssociateRj,
    AAssociateRq,
    AReleaseRp,
    AReleaseRq,
    ControlPdu,
    PresentationContextAc,
    PresentationContextRq,
    UserIdentity,
    UserInformation,
)
from dicomward.vocab.association import AbortReason
from tests.dicom.builders import (
    APPLICATION_CONTEXT_ITEM,
    EXPLICIT,
    IMPLICIT,
    LIMITS,
    USER_ITEM,
    VERIFICATION,
    ac_body,
    associate_body,
    context_ac,
    context_rq,
    cut_at_every_byte,
    item,
    rq_body,
)
from tests.dicom.strategies import control_pdus, mutations, octets

RQ, AC, RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
USER = UserInformation(maximum_length=16384, implementation_class_uid="1.2.3.4")
INVALID = AbortReason.INVALID_PARAMETER_VALUE
UNEXPECTED = AbortReason.UNEXPECTED_PARAMETER


def rq(**changes: object) -> AAssociateRq:
    values: dict[str, object] = {
        "called_ae_title": "ARCHIVE",
        "calling_ae_title": "CT1",
        "presentation_contexts": (
            PresentationContextRq(context_id=1, abstract_syntax=VERIFICATION, transfer_syntaxes=(IMPLICIT,)),
        ),
        "user_information": USER,
    }
    return AAssociateRq(**{**values, **changes})  # type: ignore[arg-type]


def ac(**changes: object) -> AAssociateAc:
    values: dict[str, object] = {
        "called_ae_title": "ARCHIVE",
        "calling_ae_title": "CT1",
        "presentation_contexts": (PresentationContextAc(context_id=1, result=0, transfer_syntax=IMPLICIT),),
        "user_information": USER,
    }
    return AAssociateAc(**{**values, **changes})  # type: ignore[arg-type]


# Read in both directions: value and body.
TABLE = [
    pytest.param(rq(), RQ, rq_body(), id="rq"),
    pytest.param(
        rq(
            presentation_contexts=(
                PresentationContextRq(context_id=255, abstract_syntax="1.2", transfer_syntaxes=(EXPLICIT, IMPLICIT)),
                PresentationContextRq(context_id=3, abstract_syntax="1.2", transfer_syntaxes=("1.3",)),
            )
        ),
        RQ,
        rq_body(context_rq(255, "1.2", (EXPLICIT, IMPLICIT)), context_rq(3, "1.2", ("1.3",))),
        id="rq-two-contexts",
    ),
    pytest.param(rq(protocol_version=0), RQ, rq_body(version=0), id="rq-version-0"),
    pytest.param(ac(), AC, ac_body(), id="ac"),
    pytest.param(
        ac(presentation_contexts=(PresentationContextAc(context_id=5, result=9, transfer_syntax=""),)),
        AC,
        ac_body(context_ac(5, 9, item(0x40, b""))),
        id="ac-unknown-result",
    ),
    pytest.param(
        ac(called_ae_title="", calling_ae_title=""), AC, ac_body(called=b" " * 16, calling=b" " * 16), id="ac-no-titles"
    ),
    pytest.param(AAssociateRj(result=1, source=1, reason=7), RJ, b"\0\x01\x01\x07", id="rj"),
    pytest.param(AAssociateRj(result=200, source=201, reason=202), RJ, b"\0\xc8\xc9\xca", id="rj-unknown-codes"),
    pytest.param(AReleaseRq(), RELEASE_RQ, bytes(4), id="release-rq"),
    pytest.param(AReleaseRp(), RELEASE_RP, bytes(4), id="release-rp"),
    pytest.param(AAbort(source=2, reason=6), ABORT, b"\0\0\x02\x06", id="abort"),
]


@pytest.mark.parametrize(("pdu", "pdu_type", "body"), TABLE)
def test_pdus_are_read_and_written(pdu: ControlPdu, pdu_type: int, body: bytes) -> None:
    decoded = decode_pdu(pdu_type, body, LIMITS)
    assert decoded == pdu
    assert getattr(decoded, "deviations", ()) == ()
    assert encode_pdu(pdu) == struct.pack(">BBI", pdu_type, 0, len(body)) + body


@pytest.mark.parametrize(("pdu", "pdu_type", "body"), TABLE)
def test_pdus_that_are_cut_short_are_refused(pdu: ControlPdu, pdu_type: int, body: bytes) -> None:
    for start in cut_at_every_byte(body):
        with pytest.raises(RemoteProtocolError) as caught:
            decode_pdu(pdu_type, start, LIMITS)
        assert caught.value.abort_reason is INVALID


@pytest.mark.parametrize("pdu_type", [RJ, RELEASE_RQ, RELEASE_RP, ABORT])
def test_pdu_of_four_bytes_has_no_more(pdu_type: int) -> None:
    with pytest.raises(RemoteProtocolError, match="5 bytes after its header, not 4"):
        decode_pdu(pdu_type, bytes(5), LIMITS)


def test_reserved_bytes_are_not_tested() -> None:
    context = item(
        0x20, b"\x01\xff\xff\xff" + item(0x30, b"1.2", reserved=9) + item(0x40, b"1.3", reserved=9), reserved=9
    )
    body = bytearray(rq_body(context, reserved=b"\xff" * 32))
    body[2:4] = b"\xff\xff"
    decoded = decode_pdu(RQ, bytes(body), LIMITS)
    assert isinstance(decoded, AAssociateRq)
    assert decoded.deviations == ()
    assert decode_pdu(RJ, b"\xff\x01\x02\x03", LIMITS) == AAssociateRj(result=1, source=2, reason=3)
    assert decode_pdu(ABORT, b"\xff\xff\x02\x03", LIMITS) == AAbort(source=2, reason=3)
    assert decode_pdu(RELEASE_RQ, b"\xff" * 4, LIMITS) == AReleaseRq()


@pytest.mark.parametrize("pdu_type", [0, 8, 255])
def test_unknown_pdu_type_is_unrecognised(pdu_type: int) -> None:
    with pytest.raises(RemoteProtocolError, match="no PDU of type") as caught:
        decode_pdu(pdu_type, b"", LIMITS)
    assert caught.value.abort_reason is AbortReason.UNRECOGNISED_PDU


def test_p_data_is_unexpected_here() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_pdu(P_DATA, b"", LIMITS)
    assert caught.value.abort_reason is AbortReason.UNEXPECTED_PDU


DEVIATIONS = [
    pytest.param(RQ, rq_body(version=0x0103), "associate-rq-protocol-version-bits", id="version"),
    pytest.param(RQ, rq_body(called=b"ARCHIVE".ljust(16, b"\0")), "ae-title-nul-padding", id="title"),
    pytest.param(RQ, rq_body(context_rq(abstract=VERIFICATION + "\0")), "uid-nul-padding", id="uid-nul"),
    pytest.param(RQ, rq_body(context_rq(transfer=[IMPLICIT + " "])), "uid-space-padding", id="uid-space"),
    pytest.param(RQ, rq_body(context_rq(abstract="1.02.3")), "uid-leading-zero", id="uid-zero"),
    pytest.param(RQ, rq_body(context_rq(extra=item(0x60, b"?"))), "unknown-item", id="unknown-in-context"),
    pytest.param(RQ, rq_body(context_rq(), item(0x11, b"?")), "unknown-item", id="unknown"),
    pytest.param(RQ, rq_body(user=item(0x50, USER_ITEM[12:])), "missing-maximum-length", id="no-length"),
    pytest.param(AC, ac_body(context_ac(result=3, inner=b"")), "missing-transfer-syntax", id="ac-no-syntax"),
    pytest.param(AC, ac_body(context_ac(), item(0xFF, b"")), "unknown-item", id="ac-unknown"),
    pytest.param(
        AC, ac_body(context_ac(inner=item(0x40, b"1.2") + item(0x60, b""))), "unknown-item", id="ac-unknown-in-context"
    ),
]


@pytest.mark.parametrize(("pdu_type", "body", "note"), DEVIATIONS)
def test_harmless_deviations_pass_and_are_noted(pdu_type: int, body: bytes, note: str) -> None:
    pdu = decode_pdu(pdu_type, body, LIMITS)
    assert isinstance(pdu, AAssociateRq | AAssociateAc)
    assert pdu.deviations == (note,)
    again = encode_pdu(pdu)
    cleaned = decode_pdu(pdu_type, again[6:], LIMITS)
    assert cleaned == pdu
    assert isinstance(cleaned, AAssociateRq | AAssociateAc)
    if note in {"ae-title-nul-padding", "uid-nul-padding", "uid-space-padding", "unknown-item"}:
        assert cleaned.deviations == ()


@pytest.mark.parametrize("inner", [b"", item(0x40, b""), item(0x40, b"garbage"), item(0x40, b"1.2") * 2])
def test_transfer_syntax_of_a_refused_context_is_not_tested(inner: bytes) -> None:
    pdu = decode_pdu(AC, ac_body(context_ac(result=4, inner=inner)), LIMITS)
    assert isinstance(pdu, AAssociateAc)
    assert pdu.presentation_contexts == (PresentationContextAc(context_id=1, result=4, transfer_syntax=""),)


def test_echoed_titles_of_an_acceptance_are_not_tested() -> None:
    pdu = decode_pdu(AC, ac_body(called=b"\xff" * 16, calling=bytes(16)), LIMITS)
    assert pdu == ac(called_ae_title="", calling_ae_title="")


CONTEXT = item(0x30, b"1.2")
ERRORS = [
    pytest.param(RQ, rq_body(called=b" " * 16), INVALID, "called AE title", id="no-called-title"),
    pytest.param(RQ, rq_body(calling=b" " * 16), INVALID, "calling AE title", id="no-calling-title"),
    pytest.param(RQ, rq_body(called=b"../../x".ljust(16, b"\n")), INVALID, "called AE title", id="bad-title"),
    pytest.param(RQ, rq_body(called=b"..".ljust(16)), INVALID, "names a directory", id="path-title"),
    pytest.param(
        RQ, associate_body(context_rq(), USER_ITEM), INVALID, "item 10H is missing", id="no-application-context"
    ),
    pytest.param(
        RQ, associate_body(APPLICATION_CONTEXT_ITEM, context_rq()), INVALID, "item 50H is missing", id="no-user"
    ),
    pytest.param(
        RQ, associate_body(APPLICATION_CONTEXT_ITEM, USER_ITEM), INVALID, "no presentation context", id="no-context"
    ),
    pytest.param(
        RQ, rq_body(context_rq(), APPLICATION_CONTEXT_ITEM), UNEXPECTED, "10H occurs twice", id="two-applications"
    ),
    pytest.param(RQ, rq_body(context_rq(), USER_ITEM), UNEXPECTED, "50H occurs twice", id="two-users"),
    pytest.param(RQ, rq_body(context_ac()), UNEXPECTED, "21H has no place", id="21-in-rq"),
    pytest.param(AC, ac_body(context_rq()), UNEXPECTED, "20H has no place", id="20-in-ac"),
    pytest.param(RQ, rq_body(context_rq(), item(0x40, b"1.2")), UNEXPECTED, "40H has no place", id="40-outside"),
    pytest.param(RQ, rq_body(context_rq(), item(0x51, bytes(4))), UNEXPECTED, "51H has no place", id="51-outside"),
    pytest.param(RQ, rq_body(context_rq(2)), INVALID, "ID 2 is not odd", id="even-id"),
    pytest.param(RQ, rq_body(context_rq(0)), INVALID, "ID 0 is not odd", id="id-0"),
    pytest.param(AC, ac_body(context_ac(4)), INVALID, "ID 4 is not odd", id="ac-even-id"),
    pytest.param(RQ, rq_body(context_rq(), context_rq()), INVALID, "ID occurs twice", id="id-twice"),
    pytest.param(AC, ac_body(context_ac(), context_ac()), INVALID, "ID occurs twice", id="ac-id-twice"),
    pytest.param(RQ, rq_body(item(0x20, b"\x01\0\0")), INVALID, "cut short", id="short-context"),
    pytest.param(AC, ac_body(item(0x21, b"\x01\0\0")), INVALID, "cut short", id="ac-short-context"),
    pytest.param(RQ, rq_body(item(0x20, b"\x01\0\0\0" + CONTEXT)), INVALID, "lacks its", id="no-transfer-syntax"),
    pytest.param(RQ, rq_body(item(0x20, b"\x01\0\0\0" + item(0x40, b"1.2"))), INVALID, "lacks its", id="no-abstract"),
    pytest.param(RQ, rq_body(context_rq(extra=CONTEXT)), UNEXPECTED, "two abstract syntaxes", id="two-abstracts"),
    pytest.param(RQ, rq_body(context_rq(extra=item(0x51, b""))), UNEXPECTED, "51H inside", id="51-in-context"),
    pytest.param(AC, ac_body(context_ac(inner=CONTEXT)), UNEXPECTED, "30H inside", id="30-in-ac-context"),
    pytest.param(AC, ac_body(context_ac(inner=b"")), INVALID, "has 0 transfer syntaxes", id="ac-none"),
    pytest.param(AC, ac_body(context_ac(inner=item(0x40, b"1.2") * 2)), INVALID, "has 2 transfer", id="ac-two"),
    pytest.param(AC, ac_body(context_ac(inner=item(0x40, b"1..2"))), INVALID, "transfer syntax", id="ac-bad-uid"),
    pytest.param(RQ, rq_body(context_rq(abstract="1.2.")), INVALID, "abstract syntax", id="bad-abstract"),
    pytest.param(RQ, rq_body(context_rq(abstract="1" * 65)), INVALID, "at most 64", id="long-abstract"),
    pytest.param(
        RQ, rq_body(context_rq(), item(0x60, b"", length=9)), INVALID, "longer than what it is in", id="item-too-long"
    ),
    pytest.param(RQ, rq_body() + b"\0", INVALID, "too few for an item header", id="trailing-byte"),
]


@pytest.mark.parametrize(("pdu_type", "body", "reason", "detail"), ERRORS)
def test_malformed_pdus_are_refused(pdu_type: int, body: bytes, reason: AbortReason, detail: str) -> None:
    with pytest.raises(RemoteProtocolError, match=detail) as caught:
        decode_pdu(pdu_type, body, LIMITS)
    assert caught.value.abort_reason is reason


@pytest.mark.parametrize("pdu_type", [RQ, AC])
def test_trap_size_of_a_pdu_is_limited_before_it_is_read(pdu_type: int) -> None:
    limits = Limits(max_association_pdu_bytes=200)
    body = rq_body() if pdu_type == RQ else ac_body()
    room = 200 - len(body) - 4
    decode_pdu(pdu_type, body + item(0x60, bytes(room)), limits)
    with pytest.raises(LimitExceeded, match="max_association_pdu_bytes"):
        decode_pdu(pdu_type, body + item(0x60, bytes(room + 1)), limits)


def test_number_of_contexts_is_limited() -> None:
    limits = Limits(max_presentation_contexts=2)
    contexts = [context_rq(number) for number in (1, 3, 5)]
    decode_pdu(RQ, rq_body(*contexts[:2]), limits)
    with pytest.raises(LimitExceeded, match="max_presentation_contexts"):
        decode_pdu(RQ, rq_body(*contexts), limits)


def test_128_contexts_fit_and_129_do_not() -> None:
    contexts = [context_rq(number) for number in range(1, 256, 2)]
    pdu = decode_pdu(RQ, rq_body(*contexts), LIMITS)
    assert isinstance(pdu, AAssociateRq)
    assert len(pdu.presentation_contexts) == 128
    with pytest.raises(LimitExceeded):
        decode_pdu(RQ, rq_body(*contexts, context_rq(1)), LIMITS)


def test_number_of_transfer_syntaxes_is_limited() -> None:
    limits = Limits(max_transfer_syntaxes=2)
    decode_pdu(RQ, rq_body(context_rq(transfer=["1.2", "1.3"])), limits)
    with pytest.raises(LimitExceeded, match="max_transfer_syntaxes"):
        decode_pdu(RQ, rq_body(context_rq(transfer=["1.2", "1.3", "1.4"])), limits)


@given(control_pdus)
def test_what_is_encoded_is_decoded_again(pdu: ControlPdu) -> None:
    data = encode_pdu(pdu)
    assert struct.unpack(">BBI", data[:6]) == (data[0], 0, len(data) - 6)
    assert decode_pdu(data[0], data[6:], LIMITS) == pdu


@pytest.mark.parametrize(
    "pdu",
    [
        rq(called_ae_title=""),
        rq(calling_ae_title="A" * 17),
        rq(application_context="x"),
        rq(presentation_contexts=()),
        rq(presentation_contexts=rq().presentation_contexts * 2),
        rq(presentation_contexts=(PresentationContextRq(context_id=2, abstract_syntax="1", transfer_syntaxes=("1",)),)),
        rq(
            presentation_contexts=(
                PresentationContextRq(context_id=257, abstract_syntax="1", transfer_syntaxes=("1",)),
            )
        ),
        rq(presentation_contexts=(PresentationContextRq(context_id=1, abstract_syntax="1", transfer_syntaxes=()),)),
        rq(presentation_contexts=(PresentationContextRq(context_id=1, abstract_syntax="", transfer_syntaxes=("1",)),)),
        rq(protocol_version=0x10000),
        ac(called_ae_title="Ä"),
        ac(presentation_contexts=(PresentationContextAc(context_id=1, result=0, transfer_syntax=""),)),
        ac(presentation_contexts=(PresentationContextAc(context_id=1, result=256, transfer_syntax=""),)),
        ac(presentation_contexts=(PresentationContextAc(context_id=0, result=0, transfer_syntax="1"),)),
        AAssociateRj(result=256, source=1, reason=1),
        AAbort(source=0, reason=-1),
    ],
)
def test_what_the_standard_forbids_is_not_sent(pdu: ControlPdu) -> None:
    with pytest.raises(LocalProtocolError):
        encode_pdu(pdu)


def test_transfer_syntax_of_a_refused_context_is_sent_if_we_name_one() -> None:
    contexts = (PresentationContextAc(context_id=1, result=3, transfer_syntax=IMPLICIT),)
    assert item(0x40, IMPLICIT.encode()) in encode_pdu(ac(presentation_contexts=contexts))


def test_only_control_pdus_are_encoded() -> None:
    with pytest.raises(AssertionError):
        encode_pdu(USER)  # type: ignore[arg-type]


# pynetdicom's byte vectors are whole PDUs; those that its own tests use for refusals are refused here too.
PDU_VECTORS = {
    name: data
    for name, data in vars(vectors).items()
    if isinstance(data, bytes)
    and len(data) >= 10
    and data[0] != P_DATA
    and struct.unpack(">I", data[2:6])[0] == len(data) - 6
}
REFUSED_VECTORS = {"a_associate_rq_called", "a_associate_rq_calling"}


def test_there_are_vectors() -> None:
    assert set(PDU_VECTORS) > REFUSED_VECTORS
    assert len(PDU_VECTORS) >= 16


@pytest.mark.parametrize("name", sorted(set(PDU_VECTORS) - REFUSED_VECTORS))
def test_vectors_are_read_and_keep_their_meaning(name: str) -> None:
    data = PDU_VECTORS[name]
    pdu = decode_pdu(data[0], data[6:], LIMITS)
    again = encode_pdu(pdu)
    assert decode_pdu(again[0], again[6:], LIMITS) == pdu


@pytest.mark.parametrize("name", sorted(REFUSED_VECTORS))
def test_vectors_with_a_blank_title_are_refused(name: str) -> None:
    data = PDU_VECTORS[name]
    with pytest.raises(RemoteProtocolError):
        decode_pdu(data[0], data[6:], LIMITS)


@pytest.mark.parametrize("name", sorted(set(PDU_VECTORS) - REFUSED_VECTORS))
def test_vectors_cut_at_every_byte_are_refused(name: str) -> None:
    data = PDU_VECTORS[name]
    for start in cut_at_every_byte(data[6:]):
        with pytest.raises(RemoteProtocolError):
            decode_pdu(data[0], start, LIMITS)


@given(mutations(tuple(PDU_VECTORS.values())))
@settings(max_examples=500)
def test_mutated_pdus_give_a_pdu_or_a_remote_error(data: bytes) -> None:
    try:
        pdu = decode_pdu(data[0] if data else 0, data[6:], LIMITS)
    except RemoteProtocolError:
        return
    again = encode_pdu(pdu)
    assert decode_pdu(again[0], again[6:], LIMITS) == pdu


@given(octets, st.binary(max_size=300))
@settings(max_examples=300)
def test_random_bytes_give_a_pdu_or_a_remote_error(pdu_type: int, body: bytes) -> None:
    try:
        decode_pdu(pdu_type, body, LIMITS)
    except RemoteProtocolError:
        pass


def test_same_bytes_are_decoded_once_and_the_same_pdu_is_encoded_once() -> None:
    encoded = encode_pdu(rq())
    assert encode_pdu(rq()) is encoded
    body = encoded[6:]
    assert decode_pdu(1, body, Limits()) is decode_pdu(1, bytes(bytearray(body)), Limits())


def test_other_limits_are_another_question() -> None:
    body = encode_pdu(rq())[6:]
    decode_pdu(1, body, Limits())
    with pytest.raises(LimitExceeded):
        decode_pdu(1, body, Limits(max_association_pdu_bytes=len(body) - 1))


def test_request_and_acceptance_of_the_same_bytes_are_told_apart() -> None:
    body = encode_pdu(ac())[6:]
    decode_pdu(2, body, Limits())
    with pytest.raises(RemoteProtocolError):
        decode_pdu(1, body, Limits())


@pytest.mark.parametrize(
    "pdu",
    [
        pytest.param(
            rq(
                user_information=UserInformation(
                    user_identity=UserIdentity(type=2, positive_response_requested=False, primary=b"u", secondary=b"p")
                )
            ),
            id="passcode",
        ),
        pytest.param(ac(user_information=UserInformation(user_identity_response=b"ticket")), id="ticket"),
    ],
)
def test_secrets_are_not_remembered(pdu: AAssociateRq | AAssociateAc) -> None:
    encoded = encode_pdu(pdu)
    assert encode_pdu(pdu) is not encoded
    assert decode_pdu(encoded[0], encoded[6:], Limits()) is not decode_pdu(encoded[0], encoded[6:], Limits())


def test_what_is_remembered_is_bounded() -> None:
    first = encode_pdu(rq())
    for number in range(64):
        encode_pdu(rq(calling_ae_title=f"T{number}"))
    assert encode_pdu(rq()) is not first
    large = rq(
        presentation_contexts=tuple(
            PresentationContextRq(
                context_id=2 * i + 1, abstract_syntax="1.2.3", transfer_syntaxes=("1.2.840.10008.1.2",) * 12
            )
            for i in range(128)
        )
    )
    assert len(encode_pdu(large)) > 32_768
    assert encode_pdu(large) is not encode_pdu(large)
