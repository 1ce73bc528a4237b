"""Four workers of one process: limits, rates, budgets and revocation are one for all of them, to the last one."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.real import raw_peer as raw
from tests.real.clients import Route, data_set_of
from tests.real.gateway import Gateway
from tests.real.hospital import credentials_of
from tests.real.recording_archive import STUDY_FIND, VERIFICATION, RecordingArchive
from tests.real.site import ARCHIVE

WORKERS = 4
ASSOCIATIONS, QUERIES_PER_MINUTE, MATCHES, STUDIES = 8, 30, 25, 12
ROLES = ("crowd", "asker", "reader", "worker")
FREELY = "associations_per_minute = 100000\noperations_per_minute = 100000\n"
OWN = {
    "crowd": f"associations = {ASSOCIATIONS}\nfloor_associations = {ASSOCIATIONS}\n",
    "asker": f"associations = {ASSOCIATIONS}\nqueries_per_minute = {QUERIES_PER_MINUTE}\n",
    "reader": "associations = 16\nqueries_per_minute = 100000\n",
    "worker": "associations = 16\nqueries_per_minute = 100000\n",
}
SETTINGS = (
    "".join(f"\n[limits.role.{role}]\n{FREELY}{own}" for role, own in OWN.items())
    + f"\n[limits.network]\nassociations_per_minute = 100000\n[budgets.role.reader]\nmatches_per_hour = {MATCHES}\n"
)
CONTEXTS: raw.Contexts = {1: (VERIFICATION, [raw.IMPLICIT]), 3: (STUDY_FIND, [raw.IMPLICIT])}
ALL_STUDIES = raw.element(0x0008, 0x0052, "STUDY") + raw.element(0x0020, 0x000D, "")


class Here:
    """A gateway with four workers and an archive of some studies."""

    def __init__(self, gateway: Gateway, archive: RecordingArchive) -> None:
        self.gateway, self.archive = gateway, archive
        self.routes = {
            role: gateway.route(gateway.add_device(role, role.upper(), role=role), role.upper()) for role in ROLES
        }


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with RecordingArchive(ARCHIVE) as archive:
        for number in range(STUDIES):
            archive.instances[str(number)] = data_set_of({"PatientID": "P", "StudyInstanceUID": f"1.2.3.{number}"})
        gateway = Gateway(tmp_path_factory.mktemp("workers") / "gateway", archive=ARCHIVE, archive_port=archive.port)
        gateway.configure("gateway", workers=WORKERS)
        for role in ROLES:
            gateway.permit_everything_to(role, limits="\n")
        with gateway.configuration.open("a", encoding="utf-8") as configuration:
            configuration.write(SETTINGS)
        made = Here(gateway, archive)
        try:
            gateway.start()
            yield made
        finally:
            gateway.stop()


def _at_once(count: int, act: Callable[[int], object]) -> list[object]:
    """Do it so many times, from as many threads, all at the same moment."""
    together = threading.Barrier(count)

    def run(number: int) -> object:
        together.wait(timeout=60)
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def _open(route: Route, stack: ExitStack) -> Callable[[int], object]:
    """Return what opens an association and leaves it open; it returns the peer, or the numbers of a rejection."""
    context = credentials_of(route).client_context()

    def open_one(_: int) -> object:
        peer = stack.enter_context(raw.connect(route, context=context))
        peer.send(raw.request_on(route, CONTEXTS))
        answer = peer.receive()
        assert answer is not None
        return peer if answer.kind == raw.ASSOCIATE_AC else answer.numbers

    return open_one


def _opened(results: list[object]) -> list[raw.Connection]:
    return [each for each in results if isinstance(each, raw.Connection)]


def _query(peer: raw.Connection, message_id: int) -> tuple[int, int]:
    """Ask for all studies; return the matches that came and the final status."""
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: STUDY_FIND,
        raw.COMMAND_FIELD: raw.C_FIND,
        raw.MESSAGE_ID: message_id,
        raw.PRIORITY: 0,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
    }
    peer.send(raw.command(3, values), raw.p_data(3, ALL_STUDIES, command=False))
    matches = 0
    while True:
        status = int(peer.message()[raw.STATUS])
        if status not in {0xFF00, 0xFF01}:
            return matches, status
        matches += 1


def test_associations_are_counted_to_the_last_one(here: Here) -> None:
    route = here.routes["crowd"]
    # Python 3.11 tells the kernel no names, so threads are counted.
    assert len(list(Path(f"/proc/{here.gateway.child.process.pid}/task").iterdir())) > WORKERS
    for _ in range(3):
        with ExitStack() as stack:
            results = _at_once(40, _open(route, stack))
            opened = _opened(results)
            assert len(opened) == ASSOCIATIONS, Counter(map(str, results))
            assert {each for each in results if isinstance(each, str)} == {"2/3/2"}
            for peer in opened:
                peer.send(raw.pdu(raw.RELEASE_RQ, bytes(4)))
                peer.expect(raw.RELEASE_RP)
    assert here.gateway.run("audit", "verify").returncode == 0
    # Every association that was let in has ended and is on record, as has every one that was turned away.
    codes = Counter(str(record["code"]) for record in here.gateway.audit("--device", "crowd"))
    assert codes["DW-ASSOC-ALLOW"] == 3 * ASSOCIATIONS
    assert codes["DW-ASSOC-DENY"] == 3 * (40 - ASSOCIATIONS)


def test_a_rate_holds_across_workers(here: Here) -> None:
    with ExitStack() as stack:
        peers = _opened(_at_once(ASSOCIATIONS, _open(here.routes["asker"], stack)))
        assert len(peers) == ASSOCIATIONS
        began = time.monotonic()
        answers = _at_once(ASSOCIATIONS, lambda number: [_query(peers[number], i)[1] for i in range(1, 11)])
        took = time.monotonic() - began
    statuses = Counter(status for each in answers if isinstance(each, list) for status in each)
    assert set(statuses) == {0x0000, 0xA700}
    assert sum(statuses.values()) == 10 * ASSOCIATIONS
    # What has come back meanwhile, and not one more.
    assert QUERIES_PER_MINUTE <= statuses[0x0000] <= QUERIES_PER_MINUTE + took * QUERIES_PER_MINUTE / 60 + 1


def test_a_budget_is_spent_once(here: Here) -> None:
    with ExitStack() as stack:
        peers = _opened(_at_once(ASSOCIATIONS, _open(here.routes["reader"], stack)))
        answers = _at_once(ASSOCIATIONS, lambda number: _query(peers[number], 1))
    pairs = [each for each in answers if isinstance(each, tuple)]
    assert sum(matches for matches, _ in pairs) == MATCHES
    # Who got less than there is was told so.
    assert {status for matches, status in pairs if matches < STUDIES} == {0xA700}


def test_revocation_ends_what_every_worker_holds(here: Here) -> None:
    route = here.routes["worker"]
    with ExitStack() as stack:
        peers = _opened(_at_once(16, _open(route, stack)))
        assert len(peers) == 16
        here.gateway.must("device", "revoke", "worker")
        for peer in peers:
            assert peer.expect(raw.ABORT)
        with ExitStack() as later:
            assert set(map(str, _at_once(8, _open(route, later)))) == {"1/1/3"}
