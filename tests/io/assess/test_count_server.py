"""Servers are counted exactly, capped ones too; hostile ones cost a bounded time and give a marked lower bound."""

import itertools
import socket
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from fleet.answers import studies_between
from fleet.server import Acceptor

import dicomward.io.assess.count_link as count_link_module
from dicomward.assess.count_limits import CountLimits
from dicomward.assess.count_result import Shortfall
from dicomward.assess.count_slices import slice_named
from dicomward.assess.count_tally import SliceNumbers
from dicomward.assess.countries import country_in
from dicomward.assess.observation import Count
from dicomward.assess.plan import Tempo
from dicomward.io.assess.count_link import CountTarget
from dicomward.io.assess.count_server import ServerCount, count_server
from dicomward.vocab.dimse import Status
from tests.assess.identifiers import identifier, response
from tests.io.count_peers import CALLER, archive, serving, simulated

TODAY = date(2026, 11, 25)
QUICK = CountLimits(
    connect_seconds=2, idle_seconds=1, slice_seconds=1, server_seconds=2, unsliced_matches=500, server_matches=20_000
)
MATCH = identifier(t00080020=b"20200101", t00100010=b"CANARY^SECRET", t00100020=b"4711")


class Notes:
    """A keeper in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def slices(self, address: str, port: int) -> list[tuple[str, str, dict[str, Any]]]:
        return [(name, "done", value) for name, value in self.rows.items()]

    def finish_slice(self, address: str, port: int, name: str, value: dict[str, Any], *, state: str = "done") -> None:
        assert state == "done"
        self.rows[name] = value


def count(
    port: int,
    limits: CountLimits | None = None,
    keeper: Notes | None = None,
    stop: Callable[[], bool] = lambda: False,
    tempo: Tempo | None = None,
) -> ServerCount:
    return count_server(
        CountTarget(address="127.0.0.1", port=port, caller=CALLER),
        limits=limits or CountLimits(unsliced_matches=100, idle_seconds=10),
        today=TODAY,
        key=b"k" * 32,
        country_of=country_in,
        keeper=keeper,
        is_stopped=stop,
        tempo=tempo,
    )


@pytest.mark.parametrize("studies", [0, 1, 23, 100, 1024])
def test_count_is_exact_whether_asked_once_or_in_slices(studies: int) -> None:
    server = archive(studies=studies, patients=max(studies // 3, 1), days=5000, kind="leaking" if studies else "empty")
    with serving(simulated(server)) as port:
        seen = count(port)
    assert seen.counts is not None
    assert seen.counts.studies == Count(value=studies)
    assert seen.counts.medical == Count(value=studies)
    assert seen.counts.patients == Count(value=studies // 3 or studies)
    assert seen.counts.open_to_tampering == seen.counts.records
    assert seen.storage_contexts == 6


def test_patients_of_other_countries_are_counted_as_codes() -> None:
    with serving(simulated(archive(studies=400, patients=100, abroad="FR", days=400))) as port:
        seen = count(port)
    assert seen.counts is not None
    assert seen.counts.countries == (("FR", 5),)


def test_silent_cap_is_found_and_split_until_the_count_is_exact() -> None:
    with serving(simulated(archive(studies=3000, patients=900, days=1500, cap=100))) as port:
        seen = count(port)
    assert seen.counts is not None
    assert (seen.counts.studies, seen.counts.patients) == (Count(value=3000), Count(value=900))
    assert seen.counts.problem == Shortfall.DATED_ONLY


def test_cap_that_a_single_day_reaches_gives_a_lower_bound() -> None:
    with serving(simulated(archive(studies=300, patients=90, days=2, cap=100))) as port:
        seen = count(port)
    assert seen.counts is not None
    assert seen.counts.studies == Count(value=200, is_lower_bound=True)
    assert Shortfall.CAPPED in seen.counts.problem


def test_guarded_server_is_not_counted() -> None:
    with serving(simulated(archive(kind="guarded"))) as port:
        seen = count(port)
    assert seen.rejected == (1, 1, 3)
    assert (seen.counts, seen.problem) == (None, "the association was rejected")


def test_server_without_queries_shows_its_storage_contexts() -> None:
    with serving(simulated(archive(kind="no-query"))) as port:
        seen = count(port)
    assert (seen.counts, seen.storage_contexts, seen.refused_status) == (None, 6, None)


def test_server_whose_queries_fail_is_left_alone_soon() -> None:
    with serving(simulated(archive(kind="failing"))) as port:
        seen = count(port)
    assert (seen.counts, seen.refused_status) == (None, Status.CANNOT_UNDERSTAND)
    assert seen.queries < 20


class Refusing(Acceptor):
    def _find(self) -> None:
        self._respond(Status.REFUSED_NOT_AUTHORISED)


def test_refusal_ends_it_with_the_first_query() -> None:
    with serving(simulated(archive(), Refusing)) as port:
        seen = count(port)
    assert (seen.counts, seen.refused_status, seen.queries) == (None, Status.REFUSED_NOT_AUTHORISED, 1)


class TooMany(Acceptor):
    """Refuses whatever gives more than 50, as some archives do."""

    def _find(self) -> None:
        dates = bytes(self._identifier).split(b"\x08\x00\x20\x00")[1][4:].decode("latin-1")
        first, last = (
            (slice_named(dates[:17]).first, slice_named(dates[:17]).last) if dates[0] in "12" else (None, None)
        )
        if len(studies_between(self._server, first, last)) > 50:
            self._respond(Status.REFUSED_OUT_OF_RESOURCES)
        else:
            super()._find()


def test_queries_that_find_too_much_are_split() -> None:
    with serving(simulated(archive(studies=333, patients=100, days=300), TooMany)) as port:
        seen = count(port, CountLimits(unsliced_matches=100))
    assert seen.counts is not None
    assert (seen.counts.studies, seen.counts.patients) == (Count(value=333), Count(value=100))


class DatesIgnored(Acceptor):
    def _find(self) -> None:
        self._connection.sendall(response(MATCH, message_id=self._number()) * 100)
        self._respond(Status.SUCCESS)

    def _number(self) -> int:
        return (self._command.message_id if self._command else None) or 0


def test_server_that_ignores_dates_counts_once() -> None:
    with serving(simulated(archive(), DatesIgnored)) as port:
        seen = count(port, CountLimits())
    assert seen.counts is not None
    assert seen.counts.studies == Count(value=100, is_lower_bound=True)
    assert seen.counts.problem == Shortfall.DATES_IGNORED


class Endless(DatesIgnored):
    def _find(self) -> None:
        chunk = response(MATCH, message_id=self._number()) * 100
        while True:
            self._connection.sendall(chunk)


class Drip(DatesIgnored):
    def _find(self) -> None:
        for byte in itertools.cycle(response(MATCH, message_id=self._number())):
            self._connection.sendall(bytes([byte]))
            time.sleep(0.01)


class Garbage(DatesIgnored):
    def _find(self) -> None:
        self._connection.sendall(b"CANARY" * 1000)


class GiantLength(DatesIgnored):
    def _find(self) -> None:
        self._connection.sendall(b"\4\0\xff\xff\xff\xff" + b"CANARY" * 100)


class Silent(DatesIgnored):
    def _find(self) -> None:
        self._connection.recv(1)


class BreaksOff(DatesIgnored):
    def _find(self) -> None:
        self._connection.sendall(response(MATCH, message_id=self._number()) * 3 + b"\4\0\0")
        raise OSError


class Aborts(DatesIgnored):
    def _find(self) -> None:
        self._connection.sendall(response(MATCH, message_id=self._number()) * 3 + b"\7\0\0\0\0\4\0\0\0\0")


@pytest.mark.parametrize("kind", [Endless, Drip, Garbage, GiantLength, Silent, BreaksOff, Aborts])
def test_hostile_servers_cost_a_bounded_time_and_are_told(
    kind: type[Acceptor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count_link_module, "DRAIN_SECONDS", 0.3)
    began = time.monotonic()
    with serving(simulated(archive(), kind)) as port:
        seen = count(port, QUICK)
    assert time.monotonic() - began < 15
    assert seen.counts is not None
    assert seen.counts.records is not None
    assert seen.counts.records.is_lower_bound
    assert seen.counts.problem
    assert "CANARY" not in repr(seen)


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\n\r\nCANARY" * 10, b"", b"\2\0\xff\xff\xff\xff", b"\4\0\0\0\0\0"])
def test_what_does_not_speak_dicom_is_told(data: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(data)

    with serving(serve) as port:
        seen = count(port, QUICK)
    assert seen.connected
    assert seen.contexts == frozenset()
    assert seen.problem
    assert "CANARY" not in repr(seen)


def test_server_that_never_answers_costs_the_idle_time() -> None:
    def serve(connection: socket.socket) -> None:
        while connection.recv(65_536):
            pass

    with serving(serve) as port:
        assert count(port, QUICK).problem == "no answer in time"


def test_closed_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    seen = count(port)
    assert not seen.connected
    assert seen.problem.startswith("the connection failed")


def test_stop_gives_a_lower_bound() -> None:
    answers = iter([False] * 5)
    with serving(simulated(archive(studies=3000, patients=900, days=3000))) as port:
        seen = count(port, stop=lambda: next(answers, True))
    assert seen.counts is not None
    assert seen.counts.studies is not None
    assert seen.counts.studies.is_lower_bound
    assert Shortfall.STOPPED in seen.counts.problem


class Slowing(Acceptor):
    """Answers ever later once it has been asked for a while: the load is ours."""

    asked = 0

    def _find(self) -> None:
        type(self).asked += 1
        if type(self).asked > 8:
            time.sleep(0.2)
        super()._find()


def test_server_that_slows_to_half_its_speed_is_left_alone() -> None:
    Slowing.asked = 0
    limits = CountLimits(unsliced_matches=100, idle_seconds=10)
    object.__setattr__(limits, "gauge_seconds", 0)
    with serving(simulated(archive(studies=3000, patients=900, days=3000), Slowing)) as port:
        began = time.monotonic()
        seen = count(port, limits, tempo=Tempo(0.1))
    assert seen.counts is not None
    assert Shortfall.SLOWED in seen.counts.problem
    assert "the host slows down" in seen.problem
    assert seen.counts.studies is not None
    assert seen.counts.studies.is_lower_bound
    assert Slowing.asked < 16
    assert time.monotonic() - began < 10


def test_server_of_even_speed_is_counted_to_its_end() -> None:
    limits = CountLimits(unsliced_matches=100, idle_seconds=10)
    object.__setattr__(limits, "gauge_seconds", 0)
    with serving(simulated(archive(studies=3000, patients=900, days=3000))) as port:
        seen = count(port, limits, tempo=Tempo(10))
    assert seen.counts is not None
    assert seen.counts.studies == Count(value=3000)


def test_pauses_are_made_between_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("dicomward.io.assess.count_server.time.sleep", pauses.append)
    with serving(simulated(archive(studies=100, patients=30, days=100))) as port:
        target = CountTarget(address="127.0.0.1", port=port, caller=CALLER)
        limits = CountLimits(unsliced_matches=50)
        seen = count_server(target, limits=limits, today=TODAY, key=b"k" * 32, country_of=country_in, pause=0.25)
    assert seen.queries > 2
    assert pauses == [0.25] * (seen.queries - 1)


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def test_stop_is_seen_in_the_middle_of_a_query() -> None:
    """An endless answer, and one that never comes: neither keeps us longer than a look takes."""
    for kind in (Endless, Silent):
        began = time.monotonic()
        with serving(simulated(archive(), kind)) as port:
            seen = count(port, CountLimits(unsliced_matches=10**9), stop=after(0.5))
        assert seen.counts is not None
        assert Shortfall.STOPPED in seen.counts.problem
        assert time.monotonic() - began < 8


def test_finished_slices_are_kept_and_a_break_counts_nothing_twice() -> None:
    server = archive(studies=3001, patients=900, days=3000)
    keeper = Notes()
    answers = iter([False] * 20)
    with serving(simulated(server)) as port:
        count(port, keeper=keeper, stop=lambda: next(answers, True))
        assert 0 < sum(SliceNumbers.from_json(row).studies for row in keeper.rows.values()) < 3001
        seen = count(port, keeper=keeper)
    assert seen.counts is not None
    assert (seen.counts.studies, seen.counts.patients) == (Count(value=3001), Count(value=900))


def test_after_a_break_in_a_large_server_slices_are_not_asked_again_and_patients_are_a_lower_bound() -> None:
    server = archive(studies=3001, patients=900, days=3000)
    keeper = Notes()
    limits = CountLimits(unsliced_matches=100, reread_matches=1)
    answers = iter([False] * 24)
    with serving(simulated(server)) as port:
        first = count(port, limits, keeper, lambda: next(answers, True))
        seen = count(port, limits, keeper)
    assert seen.counts is not None
    assert seen.counts.patients is not None
    assert seen.counts.studies == Count(value=3001)
    assert seen.counts.patients.is_lower_bound
    assert seen.queries < first.queries
