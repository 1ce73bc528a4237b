"""kill -9 at random moments: nothing is lost that was acknowledged, and the gateway starts again by itself."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomward.io.audit.verify import verify_directory
from tests.degraded.place import Place, Process, process
from tests.io.world import GoneError, RawArchive, raw_archive
from tests.relay.wire import c_store_rq, image, message

ROUNDS = 5
SEED = 20_270_301


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "gateway", archive)
    yield made
    made.close()


def stored_until_it_is_gone(place: Place, names: Iterator[int], acknowledged: list[str]) -> None:
    """Store images, one after the other, on association after association; note each that got a Success."""
    try:
        while True:
            peer = place.peer().established()
            for message_id in range(1, 8):
                instance = f"1.2.99.{next(names)}"
                peer.send(message(3, c_store_rq(message_id, instance=instance), image(instance)))
                assert peer.next_message().command.status == 0
                acknowledged.append(instance)
            peer.release()
            peer.close()
    except (GoneError, OSError):
        return


def kill_after(started: Process, seconds: float) -> None:
    """Kill it at a moment that has nothing to do with what it does just then."""
    timer = threading.Timer(seconds, started.kill)
    timer.start()
    timer.join()


# CPython's wrap_socket leaves a socket open that was reset before it could look at it (SSLSocket._create).
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_nothing_that_was_acknowledged_is_lost_whenever_it_is_killed(place: Place) -> None:
    chance = random.Random(SEED)
    acknowledged: list[str] = []
    names = iter(range(1, 1_000_000))
    for _ in range(ROUNDS):
        with process(place) as started:
            working = threading.Thread(target=stored_until_it_is_gone, args=(place, names, acknowledged))
            working.start()
            kill_after(started, chance.uniform(0.05, 0.8))
            working.join()
            place.close()
            place.peers.clear()
    with process(place) as started:
        assert place.peer().established().echo() == 0
        place.close()
        assert started.stop() == 0
    assert len(acknowledged) > ROUNDS
    records = place.records()
    allowed = {record.get("sop_instance_uid") for record in records if record["code"] == "DW-OP-ALLOW"}
    assert set(acknowledged) <= allowed
    assert verify_directory(place.settings.audit.directory).report.findings == ()
    assert [record["code"] for record in records].count("DW-GW-START") == ROUNDS + 1
