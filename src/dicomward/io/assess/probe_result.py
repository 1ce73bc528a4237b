"""What was seen of one host, port by port, and the observations that it comes to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from dicomward.assess.findings import findings_of
from dicomward.assess.judge import judge_dimse
from dicomward.assess.judge_web import judge_web
from dicomward.assess.observation import ControlResult, Protocol, Reach, ServerObservation, TlsSeen
from dicomward.assess.plan import STORAGE
from dicomward.assess.products import Known, Recognised, better, recognise, weaknesses_of
from dicomward.assess.scope import ScopeNetwork
from dicomward.assess.seen import AssociationSeen, DimseSeen, TlsFacts, WebSeen


@dataclass(slots=True, kw_only=True)
class Port:
    """What is known of one port until now."""

    port: int
    reach: Reach = Reach.NOT_TRIED
    protocol: Protocol = Protocol.UNKNOWN
    dimse: DimseSeen = field(default_factory=DimseSeen)
    web: WebSeen | None = None
    tls: TlsFacts | None = None
    problem: str = ""
    started_at: str = ""
    ended_at: str = ""
    probes: int = 0
    slowest_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTask:
    """One host to be looked at. `host` is a name, "" if none; `called_ae_titles` those that somebody knows."""

    address: str
    network: ScopeNetwork
    ports: tuple[int, ...]
    host: str = ""
    called_ae_titles: tuple[str, ...] = ()
    is_named: bool = False


def observations_of(task: HostTask, ports: Sequence[Port], known: Known, now: datetime) -> Iterator[ServerObservation]:
    """Yield what is worth keeping: servers, and closed ports of hosts that were named or have a server."""
    seen = [each for each in ports if each.reach not in (Reach.REFUSED, Reach.SILENT, Reach.UNREACHABLE)]
    web = next((each.web for each in ports if each.web is not None and each.web.product), None)
    offers_tls = any(each.protocol is Protocol.DIMSE_TLS for each in ports)
    for each in ports:
        if seen or task.is_named:
            yield _observation(task, each, web, known, now, offers_tls=offers_tls)


def _observation(
    task: HostTask, port: Port, web: WebSeen | None, known: Known, now: datetime, *, offers_tls: bool
) -> ServerObservation:
    names = [each for each in (task.address, task.host) if each]
    best = port.dimse.best
    recognised = Recognised(guess=recognise(known, None, port.web).guess)
    controls: tuple[ControlResult, ...] = ()
    if port.protocol in (Protocol.DIMSE, Protocol.DIMSE_TLS) and port.reach is not Reach.NOT_TRIED:
        recognised = recognise(known, best, web)
        controls = judge_dimse(
            port.dimse,
            tls=port.tls,
            names=names,
            now=now,
            host_offers_tls=offers_tls,
            decides_later=recognised.decides_later,
        )
    elif port.web is not None or port.protocol is Protocol.HTTPS:
        controls = judge_web(port.web or WebSeen(), tls=port.tls, names=names, now=now)
    observation = ServerObservation(
        address=task.address,
        port=port.port,
        protocol=port.protocol,
        reach=port.reach,
        host=task.host,
        site=task.network.site,
        country=task.network.country,
        country_source="site" if task.network.country else "",
        called_ae_title=best.called_ae_title if best is not None and best.is_accepted else "",
        product=better(recognised.guess, recognise(known, None, port.web).guess),
        vulnerabilities=weaknesses_of(known, recognised),
        tls=_tls_seen(port.tls),
        controls=controls,
        storage_contexts=_storage_contexts(best),
        started_at=port.started_at,
        ended_at=port.ended_at or now.isoformat(timespec="seconds"),
        probes=port.probes,
        slowest_ms=port.slowest_ms,
        problem=port.problem,
    )
    return replace(observation, findings=findings_of(observation))


def _storage_contexts(best: AssociationSeen | None) -> int:
    return len(best.accepted.intersection(STORAGE)) if best is not None else 0


def _tls_seen(tls: TlsFacts | None) -> TlsSeen | None:
    if tls is None:
        return None
    certificate = tls.certificate
    if certificate is None:
        return TlsSeen(version=tls.version, cipher=tls.cipher, obsolete_versions=tls.obsolete)
    return TlsSeen(
        version=tls.version,
        cipher=tls.cipher,
        subject=certificate.subject,
        issuer=certificate.issuer,
        not_before=certificate.not_before.isoformat(),
        not_after=certificate.not_after.isoformat(),
        key=f"{certificate.key_type} {certificate.key_bits}",
        names=(*certificate.dns_names, *certificate.addresses),
        certificate_sha256=certificate.sha256,
        obsolete_versions=tls.obsolete,
    )
