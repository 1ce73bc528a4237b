"""Judging whether an archive answers anyone but the gateway, from what was seen of its ports.

Rules of this file: an answer is an answer, also "no" and "log in first"; what did not run, or could not tell, never
counts as passed; where the gateway itself may call from, an answer proves nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# Besides the port of the registry: DICOM (104, 11112, 2762 with TLS, Orthanc's 4242), web (80, 443, Orthanc, dcm4chee).
USUAL_PORTS: Final = (104, 11112, 2762, 4242, 80, 443, 8042, 8080, 8443)
MOST_PORTS: Final = 64


class Verdict(StrEnum):
    """What is known."""

    PASS = "PASS"  # noqa: S105  (a verdict)
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_RUN = "NOT_RUN"


# The worst first: the verdict of several is the first of these among them.
_ORDER: Final = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.NOT_RUN, Verdict.PASS)


class Seen(StrEnum):
    """What a port did."""

    REFUSED = "refused"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    OPEN = "open"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ABORTED = "aborted"
    HTTP = "http"
    CERTIFICATE_WANTED = "certificate-wanted"
    NOT_TRIED = "not-tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen of one port; `is_tls`: inside TLS without a client certificate; `detail` for people."""

    address: str
    port: int
    seen: Seen
    is_tls: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where it was looked from.

    `gateway_runs_here`, `archive_is_here`: on this machine. `source` is the address that was called from, "" for any:
    naming one says that it stands for somebody else. `archive_is_up`: somebody vouches that silence is a firewall's.
    """

    gateway_runs_here: bool
    archive_is_here: bool
    source: str = ""
    archive_is_up: bool = False

    @property
    def may_be_the_gateway(self) -> bool:
        """Say if the archive may have to answer calls from here."""
        return not self.source and (self.gateway_runs_here or self.archive_is_here)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The verdict on one port."""

    address: str
    port: int
    service: str
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveVerdict:
    """The verdict on one archive."""

    archive: str
    verdict: Verdict
    why: str
    checks: tuple[Check, ...]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict of several; nothing at all is NOT_RUN."""
    found = set(verdicts)
    return next((each for each in _ORDER if each in found), Verdict.NOT_RUN)


def judge_port(observation: Observation, place: Place) -> Check:
    """Judge one port."""
    verdict, service, why = _judge(observation)
    if verdict is Verdict.FAIL and place.may_be_the_gateway:
        where = "the archive is on this machine" if place.archive_is_here else "the gateway runs on this machine"
        verdict = Verdict.INCONCLUSIVE
        why = (
            f"{why}, but {where}, which may call it; run this from another machine, or name another address of this "
            "one with --from"
        )
        if place.archive_is_here:
            why += "; bind the archive to 127.0.0.1, so that no other machine reaches it"
    return Check(address=observation.address, port=observation.port, service=service, verdict=verdict, why=why)


def _judge(observation: Observation) -> tuple[Verdict, str, str]:
    """Return verdict, service and reason, wherever it was looked from."""
    within = " inside TLS, without a client certificate" if observation.is_tls else ""
    detail = f" ({observation.detail})" if observation.detail else ""
    match observation.seen:
        case Seen.REFUSED:
            return Verdict.PASS, "", "the connection is refused"
        case Seen.SILENT:
            return Verdict.PASS, "", "no answer to the connection: dropped"
        case Seen.UNREACHABLE:
            return Verdict.PASS, "", f"not reachable from here{detail}"
        case Seen.CERTIFICATE_WANTED:
            return Verdict.PASS, "tls", "it speaks TLS, and ends it without a client certificate"
        case Seen.ACCEPTED:
            return Verdict.FAIL, "dimse", f"it accepts an association of a stranger{within}"
        case Seen.REJECTED:
            return Verdict.FAIL, "dimse", f"it answers DICOM{within}, and rejects by AE title, which anybody can type"
        case Seen.ABORTED:
            return Verdict.FAIL, "dimse", f"it answers DICOM{within} with an abort"
        case Seen.HTTP:
            return Verdict.FAIL, "https" if observation.is_tls else "http", f"a web server answers{detail}"
        case Seen.OPEN:
            return Verdict.INCONCLUSIVE, "", f"it takes connections, but answers neither DICOM nor HTTP{detail}"
        case Seen.NOT_TRIED:
            return Verdict.NOT_RUN, "", observation.detail


def judge_archive(name: str, observations: Sequence[Observation], place: Place, *, problem: str = "") -> ArchiveVerdict:
    """Judge one archive; `problem` says why nothing could be looked at."""
    if not observations:
        return ArchiveVerdict(
            archive=name, verdict=Verdict.NOT_RUN, why=problem or "no port of it was looked at", checks=()
        )
    checks = tuple(judge_port(each, place) for each in observations)
    verdict = worst(check.verdict for check in checks)
    silent = all(each.seen in (Seen.SILENT, Seen.UNREACHABLE) for each in observations)
    if verdict is Verdict.PASS and silent and not place.archive_is_up:
        return ArchiveVerdict(
            archive=name,
            verdict=Verdict.INCONCLUSIVE,
            why="nothing at all came back: a firewall that drops, or an archive that is off; if you know that it "
            "is up, say so with --archive-is-up",
            checks=checks,
        )
    if verdict is Verdict.PASS:
        return ArchiveVerdict(archive=name, verdict=verdict, why="nothing answers from here", checks=checks)
    worst_checks = [check for check in checks if check.verdict is verdict]
    why = "; ".join(f"port {check.port}: {check.why}" for check in worst_checks[:3])
    if len(worst_checks) > 3:
        why += f"; and {len(worst_checks) - 3} more"
    return ArchiveVerdict(archive=name, verdict=verdict, why=why, checks=checks)
