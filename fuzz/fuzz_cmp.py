"""Promise: whatever a stranger sends to the CMP server, it is answered with a CMP message, and nothing is issued."""

import sys
from pathlib import Path

import harness

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

with harness.instrumented():
    from dicomward.enrolment.cmp import handle
    from dicomward.enrolment.cmp_body import (
        answer_general,
        decode_asked,
        decode_confirmation,
        decode_poll,
        decode_revocation,
    )
    from dicomward.enrolment.cmp_message import Kind, decode_message
    from dicomward.enrolment.cmp_protection import decode_mac
    from dicomward.enrolment.refusal import EnrolmentRefusedError

from cryptography.hazmat.primitives.asymmetric import ec
from tests.enrolment.cmp_client import NOW, PBM, MemoryPorts, bare, certificate, crmf, with_mac, with_signature
from tests.enrolment.test_cmp_protection import PBMAC1

KEY = ec.generate_private_key(ec.SECP256R1())
SEEDS = [
    with_mac(Kind.IR, crmf(KEY), "WRONG"),
    with_signature(Kind.KUR, crmf(KEY), KEY, certificate(KEY)),
    bare(Kind.IR, crmf(KEY)),
    bare(Kind.POLLREQ, crmf(KEY)),
    crmf(KEY),
    PBMAC1.algorithm(b"salt"),
    PBM.algorithm(b"salt"),
]


def one_input(data: bytes) -> None:
    ports = MemoryPorts(key=KEY)
    answer = handle(data, "192.0.2.1", NOW, ports)
    decode_message_of_ours(answer.body)
    if answer.refusal is None or set(ports.done) - {"wrong ID"}:
        raise AssertionError("a stranger got something")
    queue = MemoryPorts(key=KEY, has_queue=True)
    decode_message_of_ours(handle(data, "192.0.2.1", NOW, queue).body)
    if set(queue.done) - {"wrong ID", "ask"}:
        raise AssertionError("a stranger got something, where requests wait for approval")
    for decode in (
        decode_confirmation,
        decode_poll,
        decode_revocation,
        decode_mac,
        lambda body: decode_asked(Kind.IR, body),
        lambda body: answer_general(body, ()),
    ):
        try:
            decode(data)
        except EnrolmentRefusedError:
            pass


def decode_message_of_ours(body: bytes) -> None:
    """An answer is readable, but for what it repeats of a header that has no IDs of the right size."""
    try:
        decode_message(body)
    except EnrolmentRefusedError as error:
        if "16 to 64 bytes" not in error.detail:
            raise


if __name__ == "__main__":
    harness.main(one_input, SEEDS)
