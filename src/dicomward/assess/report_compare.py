"""What has changed between two runs: which findings are closed, which are new, which are still there.

Rules of this file: closed needs a server that answered and refused. One that did not answer, was not looked at, or
whose control could not be judged is INCONCLUSIVE, because a server that is switched off looks the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from dicomward.assess.findings import CATALOGUE
from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import Control, Protocol, Reach, ServerObservation
from dicomward.assess.report_counts import is_leaking

COMPARISON_FORMAT: Final = 1


class Change(StrEnum):
    """What became of a finding."""

    NEW = "new"
    CHANGED = "changed"
    OPEN = "open"
    INCONCLUSIVE = "INCONCLUSIVE"
    CLOSED = "closed"


_ORDER: Final = tuple(Change)
# What a stranger can't do, once the server asks who he is before it says anything else.
_BEHIND_THE_DOOR: Final = frozenset(
    {
        Control.ECHO, Control.FIND, Control.GET, Control.MOVE, Control.STORE, Control.WORKLIST,
        Control.STORAGE_CONTEXTS, Control.CALLING_AE_TITLE, Control.CALLED_AE_TITLE, Control.FACTORY_AE_TITLE,
        Control.USER_IDENTITY, Control.RATE_LIMIT, Control.TLS_OFFERED, Control.TLS_REQUIRED,
        Control.CLIENT_CERTIFICATE,
    }
)  # fmt: skip
_CERTIFICATE_WHY: Final = "it answered, and asks for a client certificate first"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedFinding:
    """One finding on one server, then and now; evidence is "" where there was none."""

    address: str
    port: int
    host: str
    id: str
    change: Change
    why: str
    old_evidence: str = ""
    new_evidence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All of them: what needs attention first."""

    findings: tuple[ComparedFinding, ...]

    def of(self, change: Change) -> tuple[ComparedFinding, ...]:
        """Return those with this change."""
        return tuple(each for each in self.findings if each.change is change)

    @property
    def all_closed(self) -> bool:
        """Whether nothing is left: also nothing that could not be seen."""
        return all(each.change is Change.CLOSED for each in self.findings)


def compare_runs(
    old: Iterable[ServerObservation],
    new: Iterable[ServerObservation],
    reach_of: Callable[[str], str] = lambda _address: "",
) -> Comparison:
    """Compare by address and port.

    `reach_of` says what the ports of an address did in the new run ("refused, silent"), "" if it was not looked at.
    """
    before = {(each.address, each.port): each for each in old}
    after = {(each.address, each.port): each for each in new}
    compared: list[ComparedFinding] = []
    for key, earlier in before.items():
        compared += _compare_server(earlier, after.get(key), reach_of)
    for key, later in after.items():
        known = {each.id for each in before[key].findings} if key in before else set()
        why = "it was not there before" if key in before else "the server was not seen before"
        compared += [
            _compared(later, each.id, Change.NEW, why, new=each.evidence)
            for each in later.findings
            if each.id not in known
        ]
    order = {change: number for number, change in enumerate(_ORDER)}
    ids = {each: number for number, each in enumerate(CATALOGUE)}
    return Comparison(
        findings=tuple(
            sorted(
                compared,
                key=lambda each: (order[each.change], each.address, each.port, ids.get(each.id, len(ids)), each.id),
            )
        )
    )


def _compare_server(
    old: ServerObservation, new: ServerObservation | None, reach_of: Callable[[str], str]
) -> list[ComparedFinding]:
    evidence = {} if new is None else {each.id: each.evidence for each in new.findings}
    compared = []
    for finding in old.findings:
        if finding.id in evidence:
            now = evidence[finding.id]
            is_same = now == finding.evidence
            change, why = (Change.OPEN, "it is still there") if is_same else (Change.CHANGED, "it is there, otherwise")
            compared.append(_compared(old, finding.id, change, why, old=finding.evidence, new=now))
        else:
            change, why = _gone(finding.id, old, new, reach_of)
            compared.append(_compared(old, finding.id, change, why, old=finding.evidence))
    return compared


def _compared(
    server: ServerObservation, id_: str, change: Change, why: str, *, old: str = "", new: str = ""
) -> ComparedFinding:
    return ComparedFinding(
        address=server.address,
        port=server.port,
        host=server.host,
        id=id_,
        change=change,
        why=why,
        old_evidence=old,
        new_evidence=new,
    )


_NOT_SEEN: Final = {
    Reach.REFUSED: "the port is shut: whether it was closed on purpose or the service is down can't be seen",
    Reach.SILENT: "nothing answered: a firewall and a server that is off look the same",
    Reach.UNREACHABLE: "the address can't be reached",
    Reach.OTHER: "something else answers on the port",
    Reach.HOSTILE: "what it answered broke the protocol, so nothing could be judged",
    Reach.HALTED: "it slowed down and was left alone, so not all could be judged",
    Reach.NOT_TRIED: "nothing was sent",
}


def _gone(
    id_: str, old: ServerObservation, new: ServerObservation | None, reach_of: Callable[[str], str]
) -> tuple[Change, str]:
    """Return what it means that a finding is not there any more."""
    if new is None:
        reach = reach_of(old.address)
        why = f"no DICOM answered there (the ports were: {reach}); a server that is off looks the same"
        return Change.INCONCLUSIVE, why if reach else "the new run did not look at it"
    if new.reach in _NOT_SEEN:
        why = _NOT_SEEN[new.reach]
        return Change.INCONCLUSIVE, f"{why} ({new.problem})" if new.problem else why
    entry = CATALOGUE.get(id_)
    if entry is None:
        return Change.INCONCLUSIVE, "this version does not know the finding"
    asks_first = new.reach is Reach.CERTIFICATE_WANTED or (
        new.protocol in (Protocol.DIMSE_TLS, Protocol.HTTPS)
        and new.verdict_of(Control.CLIENT_CERTIFICATE) is Verdict.PASS
    )
    if entry.control is not None:
        return _by_control(entry.control, new, asks_first=asks_first)
    if id_ == "DWA-RECORDS-EXPOSED":
        return _records(old, new, asks_first=asks_first)
    if asks_first:
        return Change.CLOSED, f"strangers no longer reach the product: {_CERTIFICATE_WHY}"
    if new.product.version and new.product.version != old.product.version:
        return Change.CLOSED, f"the version is now {new.product.version}, without known vulnerabilities"
    return Change.INCONCLUSIVE, "which version answers could not be seen"


def _by_control(control: Control, new: ServerObservation, *, asks_first: bool) -> tuple[Change, str]:
    result = next((each for each in new.controls if each.control is control), None)
    verdict = new.verdict_of(control)
    if verdict is Verdict.PASS:
        return Change.CLOSED, (result.why if result is not None else "") or "it answered and refused"
    if asks_first and control in _BEHIND_THE_DOOR:
        return Change.CLOSED, _CERTIFICATE_WHY
    why = result.why if result is not None and result.why else "the new run did not judge it"
    return Change.INCONCLUSIVE, why


def _records(old: ServerObservation, new: ServerObservation, *, asks_first: bool) -> tuple[Change, str]:
    """Judge the leak: it is closed if every way by which records left is refused now."""
    if asks_first:
        return Change.CLOSED, _CERTIFICATE_WHY
    is_web = old.protocol in (Protocol.HTTP, Protocol.HTTPS)
    ways = (Control.DICOMWEB_TOKEN, Control.WEB_ADMINISTRATION) if is_web else (Control.FIND, Control.WORKLIST)
    used = [each for each in ways if old.verdict_of(each) is Verdict.FAIL] or [ways[0]]
    unsure = [each.value for each in used if new.verdict_of(each) is not Verdict.PASS]
    if unsure or is_leaking(new):
        return Change.INCONCLUSIVE, f"not counted this time, and not refused either: {', '.join(unsure) or 'counts'}"
    return Change.CLOSED, "it answered, and refuses what gave the records away"


# --- JSON and text ---------------------------------------------------------------------------------------------------


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON values."""
    return {
        "format": COMPARISON_FORMAT,
        "all_closed": comparison.all_closed,
        "counts": {change.value: len(comparison.of(change)) for change in Change},
        "findings": [
            {
                "change": each.change.value,
                "address": each.address,
                "port": each.port,
                "host": each.host or None,
                "id": each.id,
                "title": CATALOGUE[each.id].title if each.id in CATALOGUE else None,
                "why": each.why,
                "old_evidence": each.old_evidence or None,
                "new_evidence": each.new_evidence or None,
            }
            for each in comparison.findings
        ],
    }


def comparison_lines(comparison: Comparison) -> Sequence[str]:
    """Return the comparison for people: what needs attention first, and a line with the numbers last."""
    lines = []
    for each in comparison.findings:
        title = f": {CATALOGUE[each.id].title}" if each.id in CATALOGUE else ""
        lines.append(f"{each.change.value:<12}  {each.address} port {each.port}  {each.id}{title}")
        lines.append(f"              {each.why}" + _then_and_now(each))
    numbers: Mapping[Change, int] = {change: len(comparison.of(change)) for change in Change}
    return [*lines, ", ".join(f"{number} {change.value}" for change, number in numbers.items())]


def _then_and_now(each: ComparedFinding) -> str:
    if each.change is Change.CHANGED:
        return f"; then: {each.old_evidence or '-'}; now: {each.new_evidence or '-'}"
    return f"; {each.new_evidence}" if each.change is Change.NEW and each.new_evidence else ""
