"""Everything that is asked of one host, one connection at a time: which ports are open, and what stands behind them.

Rules of this file: what is seen is kept as it comes, so that a host that has to be left early still has its verdicts;
the rest of them is NOT_RUN with the reason. A host that slows down is left alone.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from dicomward.assess.observation import Protocol, Reach, ServerObservation
from dicomward.assess.plan import (
    NOBODYS_AE_TITLE,
    PATIENT_FIND,
    STUDY_FIND,
    VERIFICATION,
    WORKLIST_FIND,
    Tempo,
    nothing_patient_identifier,
    nothing_study_identifier,
    nothing_worklist_identifier,
)
from dicomward.assess.products import Known
from dicomward.assess.seen import AssociationSeen, DimseSeen, OperationSeen, Outcome, RateSeen, TlsFacts, WebSeen
from dicomward.io.assess.probe_connect import connect
from dicomward.io.assess.probe_dimse import AssessedPeer, close_writer, is_about_client_certificate
from dicomward.io.assess.probe_guard import Guard
from dicomward.io.assess.probe_http import (
    ADMIN_PATHS,
    ORTHANC_PATHS,
    HttpAnswer,
    get,
    orthanc_version,
    qido_path,
    read_answer,
)
from dicomward.io.assess.probe_result import HostTask, Port, observations_of
from dicomward.io.assess.probe_tls import (
    OBSOLETE,
    anyone,
    await_alert,
    chain_problem,
    connect_tls,
    facts_of,
    takes_version,
)
from dicomward.io.assess.sweep import Called, call_ports

_MOST_TITLES: Final = 8
_DICOM_OUTCOMES: Final = frozenset({Outcome.ACCEPTED, Outcome.REJECTED, Outcome.ABORTED})


class HostLeft(Exception):
    """The host is left alone; the message says why."""


class HostProbe:
    """The probes of one host."""

    def __init__(self, task: HostTask, guard: Guard, known: Known, now: Callable[[], datetime]) -> None:
        self._task = task
        self._guard = guard
        self._known = known
        self._now = now
        self._scope = guard.scope
        self._pace = guard.scope.pace
        self._tempo = Tempo(self._pace.slow_floor)
        self._ports: list[Port] = []
        self._at: Port = Port(port=0)
        self._peer: AssessedPeer | None = None
        titles = (*task.called_ae_titles, *task.network.called_ae_titles, *self._scope.called_ae_titles)
        self._titles = tuple(dict.fromkeys(titles))[:_MOST_TITLES]

    async def run(self, called: Sequence[Called] | None = None) -> tuple[list[ServerObservation], str]:
        """Look at the host; return its servers, and what its ports did in a word. Raises ProbingStopped.

        `called` is what its ports did when they were called; where that is not known they are called first.
        """
        stopped = ""
        try:
            # Of a host that is called gently even this takes its time; else the deadline is for what comes after it.
            async with asyncio.timeout(self._pace.host_seconds if self._task.network.fragile else None) as deadline:
                await self._discover(called)
                if deadline.when() is None:
                    deadline.reschedule(asyncio.get_running_loop().time() + self._pace.host_seconds)
                for each in self._in_order():
                    await self._look_at(each)
        except HostLeft as left:
            stopped = str(left)
            if self._at.reach is Reach.NOT_TRIED:
                self._at.reach = Reach.HALTED
        except TimeoutError:
            # Raised by the deadline above only: every wait below has its own.
            stopped = f"the host took longer than {self._pace.host_seconds:g} s"
        finally:
            if self._peer is not None:
                await self._peer.abort()
        for each in self._ports:
            if each.reach is Reach.NOT_TRIED or each is self._at:
                each.problem = each.problem or stopped
            if stopped:
                each.dimse = replace(each.dimse, stopped=each.dimse.stopped or stopped)
                each.web = None if each.web is None else replace(each.web, stopped=each.web.stopped or stopped)
        observations = list(observations_of(self._task, self._ports, self._known, self._now()))
        reaches = sorted({each.reach.value for each in self._ports})
        return observations, ", ".join(reaches)

    # --- which ports are open ---

    async def _discover(self, called: Sequence[Called] | None) -> None:
        """Call all ports at once: this costs no more than one connection may. On fragile networks one by one."""
        if called is not None:
            self._take(called)
            return
        ports = self._task.ports
        for each in [(port,) for port in ports] if self._task.network.fragile else [ports]:
            await self._pause()
            timeout = self._pace.connect_timeout
            self._take(await call_ports(self._guard, self._task.address, each, timeout, self._time))

    def _take(self, called: Sequence[Called]) -> None:
        for each in called:
            seen = Port(port=each.port, probes=1, reach=each.reach, problem=each.problem)
            seen.started_at, seen.ended_at = each.started_at, each.ended_at
            self._ports.append(seen)

    def _in_order(self) -> list[Port]:
        open_ports = [each for each in self._ports if each.reach is Reach.NOT_TRIED]
        return sorted(open_ports, key=lambda each: (self._is_web(each.port), each.port))

    def _is_web(self, port: int) -> bool:
        return port in self._scope.web_ports and port not in self._scope.dimse_ports

    def _time(self) -> str:
        return self._now().isoformat(timespec="seconds")

    async def _pause(self) -> None:
        if self._task.network.fragile:
            await asyncio.sleep(self._pace.fragile_pause)

    async def _before(self, action: str) -> None:
        """Be asked before each connection to the port that is being looked at."""
        await self._pause()
        await self._guard.before(self._task.address, (self._at.port,), action)
        self._at.probes += 1

    def _note(self, kind: str, milliseconds: int) -> None:
        """Take the time of an answer. Raises HostLeft where the host slows down."""
        self._at.slowest_ms = max(self._at.slowest_ms, milliseconds)
        if why := self._tempo.note(kind, milliseconds / 1000):
            raise HostLeft(why)

    # --- one port ---

    async def _look_at(self, port: Port) -> None:
        """Find out what the port speaks, and ask."""
        self._at = port
        if self._is_web(port.port):
            # A web server is not bothered with DICOM, unless it is none.
            found = await self._look_for_web(tls=False) or await self._look_inside_tls() or await self._look_for_dicom()
        else:
            found = await self._look_for_dicom() or await self._look_inside_tls()
            found = found or (port.reach is not Reach.HOSTILE and await self._look_for_web(tls=False))
        if found:
            return
        if port.reach is Reach.NOT_TRIED:
            port.reach = Reach.OTHER
            port.problem = port.problem or "open, but neither DICOM nor HTTP"
        port.ended_at = self._time()

    async def _look_for_dicom(self) -> bool:
        peer = await self._open(tls=False)
        if peer is None:
            self._at.problem = "it takes a connection and not the next one"
            return False
        hello = await self._associate(peer, self._scope.calling_ae_title, NOBODYS_AE_TITLE)
        if self._is_dicom(hello, peer):
            await self._converse(hello, peer, tls=False)
            return True
        await peer.close()
        return False

    def _is_dicom(self, hello: AssociationSeen, peer: AssessedPeer) -> bool:
        """Say if it is DICOM; what begins like it and breaks its rules is hostile, or ill."""
        if hello.outcome in _DICOM_OUTCOMES:
            self._at.reach = Reach.ANSWERED
            return True
        looks_like_it = len(peer.first) >= 2 and 1 <= peer.first[0] <= 7 and peer.first[1] == 0
        if looks_like_it:
            self._at.reach, self._at.problem = Reach.HOSTILE, hello.detail
            self._at.protocol = Protocol.DIMSE
        elif hello.outcome is Outcome.SILENT:
            self._at.problem = f"it takes the connection, and then: {hello.detail}"
        return False

    async def _look_inside_tls(self) -> bool:
        """Shake hands; return True if the port speaks TLS, whatever is inside."""
        port = self._at
        if port.reach is Reach.HOSTILE:
            return False
        await self._before("TLS handshake")
        try:
            reader, writer = await connect_tls(
                self._task.address,
                port.port,
                anyone(),
                server_name=self._task.host,
                timeout=self._pace.answer_timeout,
            )
        except ssl.SSLError as error:
            if not is_about_client_certificate(error):
                return False
            port.tls = TlsFacts(wants_certificate=True)
            self._note_tls_only()
            return True
        except OSError:
            return False
        port.problem = ""
        port.tls = facts_of(writer)
        self._peer = peer = AssessedPeer(reader, writer, self._pace.answer_timeout)
        says = await await_alert(reader, writer)
        is_web = self._is_web(port.port)
        if says or is_web:
            await peer.close()
        if says == "certificate":
            port.tls = replace(port.tls, wants_certificate=True)
            self._note_tls_only()
        elif not (is_web and await self._look_for_web(tls=True)):
            await self._look_for_dicom_in_tls(None if says or is_web else peer)
        await self._look_at_tls()
        return True

    def _note_tls_only(self) -> None:
        self._at.reach = Reach.CERTIFICATE_WANTED
        self._at.protocol = Protocol.HTTPS if self._is_web(self._at.port) else Protocol.DIMSE_TLS

    async def _look_for_dicom_in_tls(self, peer: AssessedPeer | None) -> None:
        """Ask for an association; in the connection that is open already if there is one."""
        port = self._at
        if peer is None:
            peer = await self._open(tls=True)
        else:
            await self._before("association")
        if peer is not None:
            hello = await self._associate(peer, self._scope.calling_ae_title, NOBODYS_AE_TITLE)
            if self._is_dicom(hello, peer):
                await self._converse(hello, peer, tls=True)
                return
            await peer.close()
            if peer.certificate_wanted and port.tls is not None:
                port.tls = replace(port.tls, wants_certificate=True)
                self._note_tls_only()
                return
        if port.reach is not Reach.HOSTILE and not self._is_web(port.port) and await self._look_for_web(tls=True):
            return
        if port.reach is Reach.NOT_TRIED:
            port.reach, port.problem = Reach.OTHER, "TLS, with neither DICOM nor HTTP inside"

    async def _look_at_tls(self) -> None:
        """See which obsolete versions are taken, and whether the chain is trusted."""
        port, timeout = self._at, self._pace.answer_timeout
        if port.tls is None:
            return
        taken, tried = [], True
        for version in OBSOLETE:
            await self._before(f"handshake with {version} only")
            took = await takes_version(self._task.address, port.port, version, timeout=timeout)
            tried = tried and took is not None
            taken += [version] if took else []
        port.tls = replace(port.tls, obsolete=tuple(taken), obsolete_was_tried=tried or bool(taken))
        await self._before("handshake that verifies the chain")
        problem = await chain_problem(
            self._task.address, port.port, self._scope.ca_file, server_name=self._task.host, timeout=timeout
        )
        port.tls = replace(port.tls, chain_problem=problem, trust_is_own=bool(self._scope.ca_file))
        port.ended_at = self._time()

    # --- DICOM ---

    async def _open(self, *, tls: bool, action: str = "association") -> AssessedPeer | None:
        """Open a connection for an association; None where there is none."""
        await self._before(action)
        address, port = self._task.address, self._at.port
        try:
            if tls:
                reader, writer = await connect_tls(
                    address, port, anyone(), server_name=self._task.host, timeout=self._pace.answer_timeout
                )
            else:
                reader, writer = await connect(address, port, self._pace.connect_timeout)
        except OSError:
            return None
        self._peer = AssessedPeer(reader, writer, self._pace.answer_timeout)
        return self._peer

    async def _associate(
        self, peer: AssessedPeer, calling_ae_title: str, called_ae_title: str, *, short: bool = False
    ) -> AssociationSeen:
        if short:
            seen = await peer.associate(calling_ae_title, called_ae_title, (VERIFICATION,))
        else:
            seen = await peer.associate(calling_ae_title, called_ae_title)
        if seen.outcome in _DICOM_OUTCOMES:
            self._note("an association", seen.milliseconds)
        return seen

    async def _converse(self, hello: AssociationSeen, peer: AssessedPeer, *, tls: bool) -> None:
        """Ask all that is asked of a DIMSE port; `peer` is the connection of the first association."""
        port = self._at
        port.protocol = Protocol.DIMSE_TLS if tls else Protocol.DIMSE
        port.dimse = DimseSeen(
            hello=hello, factory_is_allowed=self._scope.factory_titles, known_titles=bool(self._titles)
        )
        try:
            found: AssessedPeer | None = peer
            if not hello.is_accepted:
                await peer.close()
                found = await self._find_a_title(hello, tls=tls)
            best = port.dimse.best
            if found is not None and best is not None and best.is_accepted:
                await self._operate(found, best, tls=tls)
                await self._repeat(best, tls=tls)
        finally:
            port.ended_at = self._time()

    async def _find_a_title(self, hello: AssociationSeen, *, tls: bool) -> AssessedPeer | None:
        """Try the titles that are known, then those of factories if the scope allows it; return what is open."""
        if hello.says_calling or hello.outcome is not Outcome.REJECTED:
            return None
        for title in self._titles:
            seen, peer = await self._try(self._scope.calling_ae_title, title, tls=tls)
            if seen is not None:
                self._at.dimse = replace(self._at.dimse, known=seen)
                if peer is not None or seen.says_calling:
                    break
        else:
            peer, seen = None, None
        if peer is not None or not self._scope.factory_titles:
            return peer
        return await self._try_factory(seen.called_ae_title if seen is not None else "", tls=tls)

    async def _try_factory(self, called_ae_title: str, *, tls: bool) -> AssessedPeer | None:
        """Try called titles of factories, and calling ones where a called one is right (`called_ae_title`)."""
        for title in () if called_ae_title else self._known.factory_titles[:_MOST_TITLES]:
            seen, peer = await self._try(self._scope.calling_ae_title, title, tls=tls)
            self._keep_factory(seen)
            if peer is not None:
                return peer
            if seen is not None and seen.says_calling:
                called_ae_title = title
                break
        for title in self._known.factory_calling_titles if called_ae_title else ():
            seen, peer = await self._try(title, called_ae_title, tls=tls)
            self._keep_factory(seen)
            if peer is not None:
                return peer
        return None

    def _keep_factory(self, seen: AssociationSeen | None) -> None:
        if seen is not None:
            self._at.dimse = replace(self._at.dimse, factory=(*self._at.dimse.factory, seen))

    async def _try(
        self, calling_ae_title: str, called_ae_title: str, *, tls: bool
    ) -> tuple[AssociationSeen | None, AssessedPeer | None]:
        """Open one more association; the connection comes back only if it was accepted."""
        peer = await self._open(tls=tls, action=f"association, called {called_ae_title}, calling {calling_ae_title}")
        if peer is None:
            return None, None
        seen = await self._associate(peer, calling_ae_title, called_ae_title)
        if seen.is_accepted:
            return seen, peer
        await peer.close()
        return seen, None

    async def _operate(self, peer: AssessedPeer, best: AssociationSeen, *, tls: bool) -> None:
        """Send C-ECHO and the queries for nothing; each on the same association while it lives."""
        find = STUDY_FIND if STUDY_FIND in best.accepted else PATIENT_FIND
        identifier = nothing_study_identifier() if find == STUDY_FIND else nothing_patient_identifier()
        steps: tuple[tuple[str, str, bytes | None], ...] = (
            ("echo", VERIFICATION, None),
            ("find", find, identifier),
            ("worklist", WORKLIST_FIND, nothing_worklist_identifier()),
        )
        current: AssessedPeer | None = peer
        try:
            for name, uid, query in steps:
                if uid not in best.accepted:
                    continue
                if current is None or not current.is_open:
                    _, current = await self._try(best.calling_ae_title, best.called_ae_title, tls=tls)
                    if current is None:
                        self._at.problem = f"no association was given for {name} after what came before"
                        break
                seen = await self._send(current, name, uid, query)
                self._keep(name, seen)
                if seen.outcome is Outcome.BROKEN:
                    self._at.reach, self._at.problem = Reach.HOSTILE, seen.detail
        finally:
            if current is not None:
                await current.release()

    def _keep(self, name: str, seen: OperationSeen) -> None:
        match name:
            case "echo":
                self._at.dimse = replace(self._at.dimse, echo=seen)
            case "find":
                self._at.dimse = replace(self._at.dimse, find=seen)
            case _:
                self._at.dimse = replace(self._at.dimse, worklist=seen)

    async def _send(self, peer: AssessedPeer, name: str, uid: str, query: bytes | None) -> OperationSeen:
        await self._before("C-ECHO" if query is None else f"C-FIND ({name}) that matches nothing")
        seen = await peer.echo(uid) if query is None else await peer.find(uid, query)
        self._at.slowest_ms = max(self._at.slowest_ms, seen.milliseconds)
        return seen

    async def _repeat(self, best: AssociationSeen, *, tls: bool) -> None:
        """Open some associations, one after the other, to see whether anything limits them."""
        if self._task.network.fragile or VERIFICATION not in best.accepted:
            return
        accepted, ended, tried = 0, "", 0
        for _ in range(self._pace.rate_probe):
            tried += 1
            peer = await self._open(tls=tls, action="association, to see a rate limit")
            if peer is None:
                ended = "the connection was refused"
                break
            seen = await self._associate(peer, best.calling_ae_title, best.called_ae_title, short=True)
            await peer.release()
            if not seen.is_accepted:
                ended = f"{seen.outcome} (source {seen.source}, reason {seen.reason})" if seen.source else seen.outcome
                break
            accepted += 1
            self._at.dimse = replace(self._at.dimse, rate=RateSeen(tried=tried, accepted=accepted))
        self._at.dimse = replace(self._at.dimse, rate=RateSeen(tried=tried, accepted=accepted, ended=ended))

    # --- HTTP ---

    async def _look_for_web(self, *, tls: bool) -> bool:
        """Send the GETs; return False if the port speaks no HTTP."""
        port = self._at
        seen = WebSeen()
        paths = [("orthanc", each) for each in ORTHANC_PATHS]
        paths += [("dicomweb", qido_path(root)) for root in self._scope.dicomweb_roots]
        paths += [("admin", each) for each in ADMIN_PATHS]
        for kind, path in paths:
            answer = await self._get(path, tls=tls)
            if answer is None or not answer.status:
                if not seen.answers:
                    return False
                port.web = replace(seen, stopped="it stopped answering")
                break
            if answer.status == 400 and not tls and not seen.answers:
                # What servers say to plain HTTP on a port for HTTPS.
                return False
            port.protocol = Protocol.HTTPS if tls else Protocol.HTTP
            seen = replace(
                seen, answers=(*seen.answers, read_answer(kind, path, answer)), server=answer.headers.get("server", "")
            )
            if kind == "orthanc":
                seen = _with_orthanc(seen, answer)
            port.web = seen
        is_medical = bool(seen.product) or any(each.looks_right for each in seen.answers)
        asks = any(each.status in (401, 403) for each in seen.answers)
        port.reach = Reach.ANSWERED if is_medical or asks else Reach.OTHER
        port.problem = "" if is_medical or asks else "a web server, without DICOMweb at the usual places"
        port.ended_at = self._time()
        return True

    async def _get(self, path: str, *, tls: bool) -> HttpAnswer | None:
        await self._before(f"GET {path.partition('?')[0]}")
        address, port = self._task.address, self._at.port
        try:
            if tls:
                reader, writer = await connect_tls(
                    address, port, anyone(), server_name=self._task.host, timeout=self._pace.answer_timeout
                )
            else:
                reader, writer = await connect(address, port, self._pace.connect_timeout)
        except OSError:
            return None
        name = f"[{address}]" if ":" in address else address
        try:
            return await get(
                reader,
                writer,
                host=f"{self._task.host or name}:{port}",
                path=path,
                contact=self._scope.contact,
                timeout=self._pace.answer_timeout,
            )
        finally:
            with contextlib.suppress(OSError):
                await close_writer(writer)


def _with_orthanc(seen: WebSeen, answer: HttpAnswer) -> WebSeen:
    version = orthanc_version(answer)
    if version is not None and answer.status == 200:
        return replace(seen, product="Orthanc", version=version)
    if "orthanc" in answer.headers.get("www-authenticate", "").lower():
        return replace(seen, product="Orthanc")
    return seen
