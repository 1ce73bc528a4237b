"""C-STORE of the bytes of a file's data set, neither decoded nor encoded again."""

import threading
from io import BytesIO
from typing import Any

from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_STORE

from tests.real.samples import Sample


def send_raw_store(association: Any, sample: Sample, message_id: int) -> int | None:
    """Send the sample on an established pynetdicom association; return the status, None when the association ended."""
    context = next(
        context
        for context in association.accepted_contexts
        if context.abstract_syntax == sample.sop_class_uid and context.transfer_syntax[0] == sample.transfer_syntax_uid
    )
    request = C_STORE()
    request.MessageID = message_id
    request.Priority = 2
    request.AffectedSOPClassUID = UID(sample.sop_class_uid)
    request.AffectedSOPInstanceUID = UID(sample.sop_instance_uid)
    request.DataSet = BytesIO(sample.data_set)
    # pynetdicom's own reactor must not read the response that we wait for.
    pause = threading.Event()
    association._reactor_checkpoint.clear()
    try:
        while not association._is_paused:
            if not association.is_alive():
                return None
            pause.wait(0.0005)
        association.dimse.send_msg(request, context.context_id)
        _, response = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    return None if response is None else int(response.Status)
