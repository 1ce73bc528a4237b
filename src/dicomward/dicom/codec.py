"""Decoding and encoding of the PDUs that open and close an association: PS3.8 §9.3.

`decode_pdu` gets the body of a complete PDU, so a field that is cut short is an error, never a wish for more data.
"""

import struct
from typing import Final, TypeVar, assert_never

from dicomward.dicom.deviation import Deviation
from dicomward.dicom.errors import LocalProtocolError, RemoteProtocolError
from dicomward.dicom.fields import (
    echoed_ae_title,
    invalid_value,
    iter_items,
    read_ae_title,
    read_uid,
    too_much,
    unexpected,
    write_ae_title,
    write_echoed_ae_title,
    write_item,
    write_uid,
    write_unsigned,
)
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import (
    AAbort,
    AAssociateAc,
    AAssociateRj,
    AAssociateRq,
    AReleaseRp,
    AReleaseRq,
    ControlPdu,
    PduType,
    PresentationContextAc,
    PresentationContextRq,
    UserInformation,
)
from dicomward.dicom.user_information import decode_user_information, encode_user_information
from dicomward.vocab.association import AbortReason, PresentationResult

_K = TypeVar("_K")
_V = TypeVar("_V")
_RQ: Final = "PS3.8 §9.3.2"
_AC: Final = "PS3.8 §9.3.3"
_CONTEXT_RQ: Final = "PS3.8 §9.3.2.2"
_CONTEXT_AC: Final = "PS3.8 §9.3.3.2"

# Protocol version(2), reserved(2), called AE title(16), calling AE title(16), reserved(32).
_FIXED: Final = struct.Struct(">H2x16s16s32x")
# A device opens its associations with the same bytes again and again, and an archive answers them with the same.
_REMEMBERED_PDUS: Final = 64
_REMEMBERED_BYTES: Final = 32_768
# Items that PS3.8 and PS3.7 define; where they have no place they are an error, and any other is skipped.
_KNOWN_ITEMS: Final = frozenset({0x10, 0x20, 0x21, 0x30, 0x40, *range(0x50, 0x5A)})


def decode_pdu(pdu_type: int, body: bytes, limits: Limits) -> ControlPdu:
    """Decode the body of one PDU, which follows its 6-byte header.

    P-DATA-TF never comes here: framing walks it. Raises RemoteProtocolError.
    """
    match pdu_type:
        case PduType.A_ASSOCIATE_RQ | PduType.A_ASSOCIATE_AC:
            return _decode_associate(pdu_type, body, limits)
        case PduType.A_ASSOCIATE_RJ:
            result, source, reason = _decode_four_bytes(body, "PS3.8 §9.3.4")
            return AAssociateRj(result=result, source=source, reason=reason)
        case PduType.A_RELEASE_RQ:
            _decode_four_bytes(body, "PS3.8 §9.3.6")
            return AReleaseRq()
        case PduType.A_RELEASE_RP:
            _decode_four_bytes(body, "PS3.8 §9.3.7")
            return AReleaseRp()
        case PduType.A_ABORT:
            _, source, reason = _decode_four_bytes(body, "PS3.8 §9.3.8")
            return AAbort(source=source, reason=reason)
        case PduType.P_DATA_TF:
            raise RemoteProtocolError(AbortReason.UNEXPECTED_PDU, "PS3.8 §9.3.5", "P-DATA-TF outside data transfer")
        case _:
            raise RemoteProtocolError(
                AbortReason.UNRECOGNISED_PDU, "PS3.8 §9.3.1", f"there is no PDU of type {pdu_type:02X}H"
            )


def encode_pdu(pdu: ControlPdu) -> bytes:
    """Encode one PDU with its header. Raises LocalProtocolError."""
    match pdu:
        case AAssociateRq() | AAssociateAc():
            return _encode_associate(pdu)
        case AAssociateRj():
            return _encode_four_bytes(PduType.A_ASSOCIATE_RJ, pdu.result, pdu.source, pdu.reason)
        case AReleaseRq():
            return _encode_four_bytes(PduType.A_RELEASE_RQ, 0, 0, 0)
        case AReleaseRp():
            return _encode_four_bytes(PduType.A_RELEASE_RP, 0, 0, 0)
        case AAbort():
            return _encode_four_bytes(PduType.A_ABORT, 0, pdu.source, pdu.reason)
        case _:
            assert_never(pdu)


def _decode_four_bytes(body: bytes, clause: str) -> tuple[int, int, int]:
    if len(body) != 4:
        raise invalid_value(clause, f"the PDU has {len(body)} bytes after its header, not 4")
    return body[1], body[2], body[3]


def _encode_four_bytes(pdu_type: PduType, *values: int) -> bytes:
    if any(not 0 <= value <= 0xFF for value in values):
        raise LocalProtocolError(f"{pdu_type.name} cannot carry {values}: each is one byte")
    return bytes((pdu_type, 0, 0, 0, 0, 4, 0, *values))


def _check_size(body: bytes, limits: Limits, clause: str) -> None:
    if len(body) > limits.max_association_pdu_bytes:
        raise too_much("max_association_pdu_bytes", len(body), limits.max_association_pdu_bytes)
    if len(body) < _FIXED.size:
        raise invalid_value(clause, f"{len(body)} bytes are too few for the fixed part of {_FIXED.size}")


_decoded: dict[tuple[int, bytes, Limits], AAssociateRq | AAssociateAc] = {}
_encoded: dict[AAssociateRq | AAssociateAc, bytes] = {}


def _decode_associate(pdu_type: int, body: bytes, limits: Limits) -> AAssociateRq | AAssociateAc:
    """Decode an association PDU, or return what the same bytes meant before: PDUs are values, so they can be shared."""
    key = (pdu_type, body, limits)
    pdu = _decoded.get(key)
    if pdu is None:
        decode = _decode_associate_rq if pdu_type == PduType.A_ASSOCIATE_RQ else _decode_associate_ac
        pdu = decode(body, limits)
        if _may_be_remembered(pdu, body):
            _remember(_decoded, key, pdu)
    return pdu


def _encode_associate(pdu: AAssociateRq | AAssociateAc) -> bytes:
    encoded = _encoded.get(pdu)
    if encoded is None:
        match pdu:
            case AAssociateRq():
                contexts = [_encode_context_rq(context) for context in pdu.presentation_contexts]
                titles = write_ae_title(pdu.called_ae_title) + write_ae_title(pdu.calling_ae_title)
                encoded = _encode_items(PduType.A_ASSOCIATE_RQ, pdu, titles, contexts)
            case AAssociateAc():
                contexts = [_encode_context_ac(context) for context in pdu.presentation_contexts]
                titles = write_echoed_ae_title(pdu.called_ae_title) + write_echoed_ae_title(pdu.calling_ae_title)
                encoded = _encode_items(PduType.A_ASSOCIATE_AC, pdu, titles, contexts)
            case _:
                assert_never(pdu)
        if _may_be_remembered(pdu, encoded):
            _remember(_encoded, pdu, encoded)
    return encoded


def _may_be_remembered(pdu: AAssociateRq | AAssociateAc, encoded: bytes) -> bool:
    # A passcode or a token is a secret: it must not outlive its association.
    user = pdu.user_information
    return len(encoded) <= _REMEMBERED_BYTES and user.user_identity is None and not user.user_identity_response


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    if len(known) >= _REMEMBERED_PDUS:
        known.clear()
    known[key] = value


def _decode_associate_rq(body: bytes, limits: Limits) -> AAssociateRq:
    _check_size(body, limits, _RQ)
    notes: set[str] = set()
    version, called, calling = _FIXED.unpack_from(body)
    if version & ~1:
        notes.add(Deviation.ASSOCIATE_RQ_PROTOCOL_VERSION_BITS)
    items = _collect_items(body, 0x20, limits, notes, _RQ)
    contexts = tuple(_decode_context_rq(value, limits, notes) for value in items.contexts)
    _check_context_ids([context.context_id for context in contexts], _CONTEXT_RQ)
    return AAssociateRq(
        called_ae_title=read_ae_title(called, _RQ, "called AE title", notes),
        calling_ae_title=read_ae_title(calling, _RQ, "calling AE title", notes),
        presentation_contexts=contexts,
        user_information=decode_user_information(items.user_information, limits, notes, is_request=True),
        application_context=read_uid(items.application_context, "PS3.8 §9.3.2.1", "application context", notes),
        protocol_version=version,
        deviations=tuple(sorted(notes)),
    )


def _decode_associate_ac(body: bytes, limits: Limits) -> AAssociateAc:
    _check_size(body, limits, _AC)
    notes: set[str] = set()
    version, called, calling = _FIXED.unpack_from(body)
    items = _collect_items(body, 0x21, limits, notes, _AC)
    contexts = tuple(_decode_context_ac(value, notes) for value in items.contexts)
    _check_context_ids([context.context_id for context in contexts], _CONTEXT_AC)
    return AAssociateAc(
        called_ae_title=echoed_ae_title(called),
        calling_ae_title=echoed_ae_title(calling),
        presentation_contexts=contexts,
        user_information=decode_user_information(items.user_information, limits, notes, is_request=False),
        application_context=read_uid(items.application_context, "PS3.8 §9.3.3.1", "application context", notes),
        protocol_version=version,
        deviations=tuple(sorted(notes)),
    )


class _Items:
    """The values of the variable items of one association PDU."""

    __slots__ = ("application_context", "contexts", "user_information")

    def __init__(self, application_context: bytes, contexts: list[bytes], user_information: bytes) -> None:
        self.application_context = application_context
        self.contexts = contexts
        self.user_information = user_information


def _collect_items(body: bytes, context_type: int, limits: Limits, notes: set[str], clause: str) -> _Items:
    """Sort the items of the body; `context_type` is 20H in a request and 21H in an acceptance."""
    single: dict[int, bytes] = {}
    contexts: list[bytes] = []
    for item_type, value in iter_items(body, _FIXED.size, clause):
        if item_type == context_type:
            contexts.append(value)
            if len(contexts) > limits.max_presentation_contexts:
                raise too_much("max_presentation_contexts", len(contexts), limits.max_presentation_contexts)
        elif item_type in (0x10, 0x50):
            if item_type in single:
                raise unexpected(clause, f"item {item_type:02X}H occurs twice")
            single[item_type] = value
        elif item_type in _KNOWN_ITEMS:
            raise unexpected(clause, f"item {item_type:02X}H has no place here")
        else:
            notes.add(Deviation.UNKNOWN_ITEM)
    for required in (0x10, 0x50):
        if required not in single:
            raise invalid_value(clause, f"item {required:02X}H is missing")
    if not contexts:
        raise invalid_value(clause, "there is no presentation context")
    return _Items(single[0x10], contexts, single[0x50])


def _check_context_ids(context_ids: list[int], clause: str) -> None:
    for context_id in context_ids:
        if not context_id & 1:
            raise invalid_value(clause, f"the presentation context ID {context_id} is not odd")
    if len(set(context_ids)) != len(context_ids):
        raise invalid_value(clause, "a presentation context ID occurs twice")


def _decode_context_rq(value: bytes, limits: Limits, notes: set[str]) -> PresentationContextRq:
    if len(value) < 4:
        raise invalid_value(_CONTEXT_RQ, "a presentation context is cut short")
    abstract_syntax: str | None = None
    transfer_syntaxes: list[str] = []
    for item_type, uid in iter_items(value, 4, _CONTEXT_RQ):
        if item_type == 0x40:
            transfer_syntaxes.append(read_uid(uid, _CONTEXT_RQ, "transfer syntax", notes))
            if len(transfer_syntaxes) > limits.max_transfer_syntaxes:
                raise too_much("max_transfer_syntaxes", len(transfer_syntaxes), limits.max_transfer_syntaxes)
        elif item_type == 0x30:
            if abstract_syntax is not None:
                raise unexpected(_CONTEXT_RQ, "a presentation context has two abstract syntaxes")
            abstract_syntax = read_uid(uid, _CONTEXT_RQ, "abstract syntax", notes)
        elif item_type in _KNOWN_ITEMS:
            raise unexpected(_CONTEXT_RQ, f"item {item_type:02X}H inside a presentation context")
        else:
            notes.add(Deviation.UNKNOWN_ITEM)
    if abstract_syntax is None or not transfer_syntaxes:
        raise invalid_value(_CONTEXT_RQ, f"presentation context {value[0]} lacks its abstract or transfer syntax")
    return PresentationContextRq(
        context_id=value[0], abstract_syntax=abstract_syntax, transfer_syntaxes=tuple(transfer_syntaxes)
    )


def _decode_context_ac(value: bytes, notes: set[str]) -> PresentationContextAc:
    if len(value) < 4:
        raise invalid_value(_CONTEXT_AC, "a presentation context is cut short")
    context_id, result = value[0], value[2]
    syntaxes: list[bytes] = []
    for item_type, uid in iter_items(value, 4, _CONTEXT_AC):
        if item_type == 0x40:
            syntaxes.append(uid)
        elif item_type in _KNOWN_ITEMS:
            raise unexpected(_CONTEXT_AC, f"item {item_type:02X}H inside a presentation context")
        else:
            notes.add(Deviation.UNKNOWN_ITEM)
    if result != PresentationResult.ACCEPTANCE:
        if not syntaxes:
            notes.add(Deviation.MISSING_TRANSFER_SYNTAX)
        # PS3.8 §9.3.3.2: not significant in a context that is not accepted, and not to be tested.
        return PresentationContextAc(context_id=context_id, result=result, transfer_syntax="")
    if len(syntaxes) != 1:
        raise invalid_value(_CONTEXT_AC, f"accepted context {context_id} has {len(syntaxes)} transfer syntaxes, not 1")
    transfer_syntax = read_uid(syntaxes[0], _CONTEXT_AC, "transfer syntax", notes)
    return PresentationContextAc(context_id=context_id, result=result, transfer_syntax=transfer_syntax)


def _encode_items(pdu_type: PduType, pdu: AAssociateRq | AAssociateAc, titles: bytes, contexts: list[bytes]) -> bytes:
    user: UserInformation = pdu.user_information
    context_ids = [context.context_id for context in pdu.presentation_contexts]
    if not context_ids or len(set(context_ids)) != len(context_ids):
        raise LocalProtocolError(f"{pdu_type.name} needs presentation contexts, each with an ID of its own")
    version = write_unsigned(pdu.protocol_version, 2, "protocol version")
    parts = [version, b"\0\0", titles, bytes(32), write_item(0x10, write_uid(pdu.application_context))]
    body = b"".join([*parts, *contexts, encode_user_information(user)])
    return bytes((pdu_type, 0)) + len(body).to_bytes(4, "big") + body


def _write_context_id(context_id: int) -> int:
    if not 1 <= context_id <= 0xFF or not context_id & 1:
        raise LocalProtocolError(f"the presentation context ID {context_id} is not an odd number from 1 to 255")
    return context_id


def _encode_context_rq(context: PresentationContextRq) -> bytes:
    head = bytes((_write_context_id(context.context_id), 0, 0, 0))
    if not context.transfer_syntaxes:
        raise LocalProtocolError(f"presentation context {context.context_id} offers no transfer syntax")
    syntaxes = b"".join(write_item(0x40, write_uid(uid)) for uid in context.transfer_syntaxes)
    return write_item(0x20, head + write_item(0x30, write_uid(context.abstract_syntax)) + syntaxes)


def _encode_context_ac(context: PresentationContextAc) -> bytes:
    result = write_unsigned(context.result, 1, "result")
    head = bytes((_write_context_id(context.context_id), 0)) + result + b"\0"
    if context.result == PresentationResult.ACCEPTANCE or context.transfer_syntax:
        return write_item(0x21, head + write_item(0x40, write_uid(context.transfer_syntax)))
    return write_item(0x21, head + write_item(0x40, b""))
