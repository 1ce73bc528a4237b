"""Promise: what we take for a well-formed A-ASSOCIATE-RQ or -AC, pynetdicom and scapy read like us.

Compared are titles, presentation contexts (ID, syntaxes, result) and the maximum length. Only what we accept counts: we
are the stricter one, and tolerate deviations that the two don't. An input is a PDU body after its type.
"""

import struct
import sys
from contextlib import suppress

import fuzz_codec
import harness

with harness.instrumented():
    from dicomward.dicom.codec import decode_pdu
    from dicomward.dicom.errors import RemoteProtocolError
    from dicomward.dicom.limits import Limits
    from dicomward.dicom.pdu import AAssociateAc, AAssociateRq

try:
    from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
except ImportError:
    A_ASSOCIATE_AC = A_ASSOCIATE_RQ = None
try:
    from scapy.contrib.dicom import DICOM
except ImportError:
    DICOM = None

LIMITS = Limits()
SEEDS = [seed for seed in fuzz_codec.SEEDS if seed[0] in {1, 2}]


def _text(value: object) -> str:
    raw = value if isinstance(value, bytes) else str(value).encode("ascii", "replace")
    return raw.strip(b" \0").decode("ascii", "replace")


def _plain(text: str) -> bool:
    """Say if both read a UID alike: digits and dots."""
    return bool(text) and all(each in "0123456789." for each in text)


def _ours(pdu: AAssociateRq | AAssociateAc) -> list[tuple[int, list[str]]]:
    if isinstance(pdu, AAssociateRq):
        return [(c.context_id, [c.abstract_syntax, *c.transfer_syntaxes]) for c in pdu.presentation_contexts]
    return [(c.context_id, [c.transfer_syntax]) for c in pdu.presentation_contexts if c.result == 0]


def _pynetdicom(kind: int, whole: bytes) -> list[tuple[int, list[str]]]:
    pdu = A_ASSOCIATE_RQ() if kind == 1 else A_ASSOCIATE_AC()
    pdu.decode(whole)
    if kind == 1:
        return [
            (each.presentation_context_id, [_text(each.abstract_syntax), *map(_text, each.transfer_syntax)])
            for each in pdu.presentation_context
        ]
    return [
        (each.presentation_context_id, [_text(each.transfer_syntax)])
        for each in pdu.presentation_context
        if each.result_reason == 0
    ]


def _titles(whole: bytes) -> tuple[str, str]:
    layer = DICOM(whole).payload
    return _text(layer.called_ae_title), _text(layer.calling_ae_title)


def one_input(data: bytes) -> None:
    if not data or data[0] not in {1, 2}:
        return
    try:
        pdu = decode_pdu(data[0], data[1:], LIMITS)
    except RemoteProtocolError:
        return
    if not isinstance(pdu, AAssociateRq | AAssociateAc):
        return
    ours = _ours(pdu)
    if not all(_plain(uid) for _, uids in ours for uid in uids):
        return
    whole = struct.pack(">BBI", data[0], 0, len(data) - 1) + data[1:]
    if A_ASSOCIATE_RQ is not None:
        # What pynetdicom refuses or stumbles over is no difference: it says so.
        with suppress(Exception):
            theirs = _pynetdicom(data[0], whole)
            if theirs != ours:
                sys.stderr.write(f"ours {ours}\npynetdicom {theirs}\n")
                raise _Difference("pynetdicom reads other presentation contexts")
    if DICOM is not None and isinstance(pdu, AAssociateRq):
        with suppress(Exception):
            if _titles(whole) != (_text(pdu.called_ae_title), _text(pdu.calling_ae_title)):
                raise _Difference("scapy reads other titles")


class _Difference(BaseException):
    """No Exception: what the other decoder raises is suppressed, this is not."""


if __name__ == "__main__":
    harness.main(one_input, SEEDS)
