"""C-GET and C-MOVE of the bytes of files, neither decoded nor encoded again: both ends by hand."""

from collections.abc import Sequence

from tests.real import raw_peer as raw
from tests.real.samples import Sample

STUDY_GET, STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.5.1.4.1.2.2.2"
QUERY_CONTEXT = 1
C_GET, C_MOVE, MOVE_DESTINATION, PENDING = 0x0010, 0x0021, 0x0600, 0xFF00


def contexts_of(samples: Sequence[Sample], query: str | None) -> dict[int, tuple[str, list[str]]]:
    """Return contexts for the samples, one for each pair of SOP class and transfer syntax, and for the query."""
    pairs = sorted({(each.sop_class_uid, each.transfer_syntax_uid) for each in samples})
    contexts: dict[int, tuple[str, list[str]]] = {} if query is None else {QUERY_CONTEXT: (query, [raw.IMPLICIT])}
    for number, (sop_class, syntax) in enumerate(pairs, 1):
        contexts[2 * number + 1] = (sop_class, [syntax])
    return contexts


def context_for(contexts: raw.Contexts, each: Sample) -> int:
    """Return the context of a sample."""
    wanted = (each.sop_class_uid, [each.transfer_syntax_uid])
    return next(number for number, (abstract, syntaxes) in contexts.items() if (abstract, list(syntaxes)) == wanted)


def retrieve(field: int, destination: str = "") -> bytes:
    """Encode a C-GET-RQ or C-MOVE-RQ for one study."""
    sop_class = STUDY_GET if field == C_GET else STUDY_MOVE
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: sop_class,
        raw.COMMAND_FIELD: field,
        raw.MESSAGE_ID: 1,
        raw.PRIORITY: 0,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
    }
    if destination:
        values[MOVE_DESTINATION] = destination
    keys = raw.element(0x0008, 0x0052, "STUDY") + raw.element(0x0020, 0x000D, "1.2.3")
    return raw.command(QUERY_CONTEXT, values) + raw.p_data(QUERY_CONTEXT, keys, command=False)


def store(context_id: int, each: Sample, message_id: int, originator: str = "") -> bytes:
    """Encode a C-STORE of a sample."""
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: each.sop_class_uid,
        raw.COMMAND_FIELD: raw.C_STORE,
        raw.MESSAGE_ID: message_id,
        raw.PRIORITY: 0,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
        raw.AFFECTED_SOP_INSTANCE_UID: each.sop_instance_uid,
    }
    if originator:
        values |= {0x1030: originator, 0x1031: 1}
    chunks = []
    data = each.data_set
    for at in range(0, max(len(data), 1), 16000):
        chunks.append(raw.p_data(context_id, data[at : at + 16000], command=False, last=at + 16000 >= len(data)))
    return raw.command(context_id, values) + b"".join(chunks)


def wrong(each: Sample, contexts: raw.Contexts, arrived: raw.Message) -> str:
    """Say what is not identical in what arrived; empty if all is."""
    sop_class, syntaxes = contexts[arrived.context_id]
    if (sop_class, list(syntaxes)) != (each.sop_class_uid, [each.transfer_syntax_uid]):
        return f"{each.name}: arrived as {sop_class} in {syntaxes}"
    if arrived[raw.AFFECTED_SOP_INSTANCE_UID] != each.sop_instance_uid:
        return f"{each.name}: arrived as {arrived[raw.AFFECTED_SOP_INSTANCE_UID]}"
    return "" if arrived.data_set == each.data_set else f"{each.name}: other bytes"
