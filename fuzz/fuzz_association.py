"""Promise: whatever bytes come, in whatever pieces, an Association gives the same events and raises nothing.

The input is what a requestor sends; the target accepts all that it offers. Each input is fed whole, and in
pieces or byte by byte (h11's habit): what is understood must not depend on how the bytes were cut.
"""

import struct

import harness

with harness.instrumented():
    from dicomward.dicom.association import Association
    from dicomward.dicom.codec import encode_pdu
    from dicomward.dicom.dimse import CommandSet, encode_command_set
    from dicomward.dicom.events import (
        AssociationRequested,
        CommandReceived,
        PeerAborted,
        ProtocolBroken,
        ReleaseRequested,
    )
    from dicomward.dicom.framing import HEADROOM, DataRun, fragments_of
    from dicomward.dicom.limits import Limits
    from dicomward.dicom.pdu import (
        AAbort,
        AAssociateAc,
        AAssociateRq,
        AReleaseRp,
        AReleaseRq,
        PresentationContextAc,
        PresentationContextRq,
        UserInformation,
    )

LIMITS = Limits()
_USER = UserInformation(maximum_length=16384, implementation_class_uid="1.2.3.4")


def _pdv(context_id: int, flags: int, data: bytes) -> bytes:
    return struct.pack(">IBB", len(data) + 2, context_id, flags) + data


def _p_data(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BBI", 4, 0, len(body)) + body


_REQUEST = encode_pdu(
    AAssociateRq(
        called_ae_title="ARCHIVE",
        calling_ae_title="CT1",
        presentation_contexts=(
            PresentationContextRq(context_id=1, abstract_syntax="1.2.840.10008.1.1", transfer_syntaxes=("1.2",)),
            PresentationContextRq(
                context_id=3, abstract_syntax="1.2.840.10008.5.1.4.1.1.2", transfer_syntaxes=("1.2",)
            ),
        ),
        user_information=_USER,
    )
)
_ECHO = encode_command_set(CommandSet(command_field=0x0030, message_id=1, affected_sop_class_uid="1.2.840.10008.1.1"))
_STORE = encode_command_set(
    CommandSet(
        command_field=0x0001,
        has_data_set=True,
        message_id=2,
        affected_sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        affected_sop_instance_uid="1.2.3",
        priority=0,
    )
)
_RELEASE = encode_pdu(AReleaseRq())
SEEDS = [
    _REQUEST + _p_data(_pdv(1, 3, _ECHO)) + _RELEASE,
    _REQUEST
    + _p_data(_pdv(3, 1, _STORE[:40]))
    + _p_data(_pdv(3, 3, _STORE[40:]), _pdv(3, 0, b"image" * 20))
    + _p_data(_pdv(3, 0, b"more" * 50))
    + _p_data(_pdv(3, 2, b"end"))
    + _p_data(_pdv(1, 3, _ECHO))
    + _RELEASE,
    _REQUEST + _p_data(_pdv(3, 3, _STORE), _pdv(3, 0, b""), _pdv(3, 2, b"")) + encode_pdu(AAbort(source=0, reason=0)),
]


def _accept(request: AAssociateRq) -> AAssociateAc:
    return AAssociateAc(
        called_ae_title=request.called_ae_title,
        calling_ae_title=request.calling_ae_title,
        presentation_contexts=tuple(
            PresentationContextAc(context_id=c.context_id, result=0, transfer_syntax=c.transfer_syntaxes[0])
            for c in request.presentation_contexts
        ),
        user_information=_USER,
    )


def _understood(pieces: list[bytes]) -> list[object]:
    """What one association makes of the pieces; neighbouring runs of one data set are joined."""
    association = Association(is_requestor=False, limits=LIMITS)
    events: list[object] = []
    for piece in pieces:
        buffer = bytearray(HEADROOM + len(piece))
        buffer[HEADROOM:] = piece
        for event in association.receive(memoryview(buffer), HEADROOM, len(buffer)):
            match event:
                case DataRun(context_id=context_id):
                    payload = b"".join(bytes(fragment) for fragment, _ in fragments_of(event.view))
                    if len(payload) != event.payload_bytes:
                        raise AssertionError("a run counts other bytes than it holds")
                    if events and isinstance(events[-1], list) and events[-1][0] == context_id and not events[-1][2]:
                        events[-1][1] += payload
                        events[-1][2] = event.last
                    else:
                        events.append([context_id, payload, event.last])
                case AssociationRequested(request=request):
                    events.append(request)
                    association.send(_accept(request))
                case CommandReceived():
                    events.append(event)
                case ReleaseRequested():
                    events.append("release")
                    association.send(AReleaseRp())
                case PeerAborted():
                    events.append(event)
                case ProtocolBroken():
                    events.append((type(event.error).__name__, event.abort))
                case _:
                    raise AssertionError(f"a requestor cannot cause {event}")
    # A data set that has begun shows an empty run or none at all, depending on the cut.
    return [event for event in events if not (isinstance(event, list) and not event[1] and not event[2])]


def one_input(data: bytes) -> None:
    # In single bytes where the length is even: to do both each time costs half of the executions.
    step = 1 if len(data) < 2000 and not len(data) % 2 else 1 + len(data) % 23
    if _understood([data[at : at + step] for at in range(0, len(data), step)]) != _understood([data]):
        raise AssertionError("pieces mean something else than the whole")


if __name__ == "__main__":
    harness.main(one_input, SEEDS)
