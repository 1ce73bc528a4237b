"""Promise: whatever bytes a log's files hold, reading them gives records, damage or findings, and never another error.

And: what is read as a record is written with exactly the same bytes; what is printed of it is one line that no terminal
obeys; repairing the end keeps every byte. An input is a segment, a separator, and the checkpoints.
"""

import os
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import harness

with harness.instrumented():
    from dicomward.audit.chain import GENESIS, Checkpoint, Head, Record, decode_record, encode_checkpoint, seal
    from dicomward.audit.encode_json import RecordError, decode_event, event_members
    from dicomward.audit.event import AssociationDenied, DeviationsCounted, OperationCompleted
    from dicomward.audit.search import Query, format_record, redact, search_lines
    from dicomward.audit.verify import Segment, verify_log
    from dicomward.io.audit.read import find_tail, read_lines
    from dicomward.vocab.reason import ReasonCode

SEPARATOR = b"\n--\n"
TIME = "2026-01-31T23:59:59.123456Z"
EVENTS = (
    AssociationDenied(reason=ReasonCode.NOT_TLS, address="192.0.2.1", detail="wrong version number"),
    OperationCompleted(device="CT1", operation="c-store", status=0, bytes=524288, rule_ids=("modality-store",)),
    DeviationsCounted(device="CT1", deviations=(("uid-leading-zero", 3), ("ae-title-nul-padding", 1))),
)


def _seed(count: int, torn: bytes = b"") -> bytes:
    head, lines = GENESIS, []
    for number in range(count):
        head, line = seal(head, TIME, event_members(EVENTS[number % len(EVENTS)]))
        lines.append(line)
    checkpoints = [
        encode_checkpoint(Checkpoint(seq=each.seq, hash=each.hash, time=TIME, key="b" * 64, signature="c" * 128))
        for each in (GENESIS, head)
    ]
    return b"".join(lines) + torn + SEPARATOR + b"".join(checkpoints)


SEEDS = [_seed(0), _seed(1), _seed(4), _seed(3, b'{"address":'), _seed(2, b"\0" * 100)]
QUERIES = (
    Query(),
    Query(device="CT1"),
    Query(since=TIME, until="2027", address="192.0.2.0/24", aet="CT1", text="wrong"),
)
# A file in memory: a disk would set the pace, and the fuzzer ends without tidying up.
_MEMORY = os.memfd_create("segment")
_FILE = Path(f"/proc/self/fd/{_MEMORY}")


def _check_record(line: bytes) -> None:
    record = decode_record(line)
    _, again = seal(Head(record.seq - 1, record.prev), record.time, record.members)
    if again[:-1] != line:
        raise AssertionError("a record has two encodings")
    for members in (dict(record.members), redact(record)):
        if not format_record(record, members).isprintable():
            raise AssertionError("a terminal could obey what is printed")
    try:
        event_members(decode_event(record.members))
    except RecordError:
        pass


def _rehashed(line: bytes) -> bytes:
    """Give a line the hash that fits it, so that what comes after the check of the hash is reached."""
    body = line[:-75] + b"}"
    return b'%b,"hash":"%b"}' % (body[:-1], sha256(body).hexdigest().encode())


def one_input(data: bytes) -> None:
    log, _, checkpoints = data.partition(SEPARATOR)
    lines = BytesIO(log).readlines()
    for line in lines:
        try:
            _check_record(_rehashed(line.removesuffix(b"\n")))
        except RecordError:
            continue
    records = 0
    for line in lines:
        try:
            _check_record(line.removesuffix(b"\n"))
            records += 1
        except RecordError:
            continue
    for query in QUERIES:
        if sum(isinstance(each, Record) for each in search_lines(query, lines)) > records:
            raise AssertionError("more was found than there is")
    report = verify_log(
        [Segment(name="log", lines=lines)], BytesIO(checkpoints).readlines(), verify_signature=lambda _: None
    )
    if report.records > records or (report.is_good and report.records + bool(report.incomplete_bytes) != len(lines)):
        raise AssertionError("the report counts other records than there are")
    os.ftruncate(_MEMORY, 0)
    os.pwrite(_MEMORY, log, 0)
    if b"".join(read_lines(_FILE)) != log:
        raise AssertionError("reading loses bytes")
    tail = find_tail(_FILE)
    if tail.good_bytes + tail.bad_bytes != len(log) or (tail.record is None) != (tail.good_bytes == 0):
        raise AssertionError("the repair of the end loses bytes")


if __name__ == "__main__":
    harness.main(one_input, SEEDS)
