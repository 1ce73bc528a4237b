"""Signed heads that have left the machine, compared with the log: what finds out root, who has the key.

Heads are checkpoint lines as they are, or inside whatever a syslog receiver writes around them.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from dicomward.audit.chain import Checkpoint, decode_checkpoint
from dicomward.audit.encode_json import RecordError
from dicomward.audit.verify import Finding, Problem, SignatureError

# The members of a checkpoint in their canonical order; a receiver may have put backslashes before the quotation marks.
_HEAD: Final = re.compile(
    rb'\{"hash":"[0-9a-f]{64}","key":"[0-9a-f]{64}","seq":[0-9]+,"signature":"[0-9a-f]{128}"[^{}]*\}'
)


def find_heads(lines: Iterable[bytes]) -> Iterator[Checkpoint]:
    """Yield the heads in the lines of a file, whatever else stands there."""
    for line in lines:
        for found in _HEAD.findall(line.replace(b'\\"', b'"')):
            try:
                yield decode_checkpoint(found)
            except RecordError:
                continue


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsReport:
    """How many heads were found, up to which record they vouch for the log, and what is wrong."""

    heads: int
    vouched: int
    findings: tuple[Finding, ...]


def compare_heads(
    heads: Iterable[Checkpoint],
    records: Iterable[tuple[int, str]],
    *,
    before_first: tuple[int, str] | None,
    verify_signature: Callable[[Checkpoint], None],
) -> HeadsReport:
    """Compare heads that were kept elsewhere with the (number, hash) of each record, oldest first.

    `before_first` is number and hash of the record before the first one, where older ones were pruned or archived.
    """
    wanted: dict[int, list[Checkpoint]] = {}
    count = 0
    for head in heads:
        count += 1
        wanted.setdefault(head.seq, []).append(head)
    if not count:
        detail = "the file holds no signed head of an audit log: is it the right file?"
        return HeadsReport(heads=0, vouched=0, findings=(_finding(None, detail, Problem.NO_HEADS),))
    first = before_first[0] if before_first else 0
    vouched = last = first
    findings: list[Finding] = []
    for seq, hash_ in (*([before_first] if before_first else []), *records):
        last = seq
        for head in wanted.get(seq, ()):
            if head.hash != hash_:
                detail = (
                    f"record {seq} isn't the one whose head left this machine at {head.time}: "
                    f"the log was rewritten somewhere between record {vouched + 1} and here"
                )
                findings.append(_finding(vouched + 1, detail, Problem.REWRITTEN))
                return HeadsReport(heads=count, vouched=vouched, findings=tuple(findings))
            vouched = seq
    ahead = [head for seq, found in wanted.items() if seq > last for head in found]
    if ahead:
        newest = max(ahead, key=lambda head: head.seq)
        detail = f"the log ends at record {last}, but a head for record {newest.seq} left this machine at {newest.time}"
        findings.append(_finding(last + 1, detail, Problem.CUT_TAIL))
    findings += _bad_signatures(wanted.values(), verify_signature)
    return HeadsReport(heads=count, vouched=vouched, findings=tuple(findings))


def _bad_signatures(
    wanted: Iterable[list[Checkpoint]], verify_signature: Callable[[Checkpoint], None]
) -> Iterator[Finding]:
    """Yield the first head that this log's key hasn't signed."""
    for head in (head for found in wanted for head in found):
        try:
            verify_signature(head)
        except SignatureError as error:
            yield _finding(head.seq, f"the head of {head.time} for record {head.seq}: {error}", Problem.BAD_SIGNATURE)
            return


def _finding(seq: int | None, detail: str, problem: Problem) -> Finding:
    return Finding(problem=problem, seq=seq, place="heads", detail=detail)
