"""The wall clock jumps (a real process under libfaketime): nothing that is measured gets longer or shorter."""

import time
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import pytest

from dicomward.dicom.pdu import AAbort
from tests.degraded.place import Place, process
from tests.io.audit_helpers import records_of
from tests.io.world import Peer, RawArchive, raw_archive
from tests.relay.wire import c_find_rq, identifier, message

LIBRARY = next(iter(glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)
IDLE_SECONDS = 3

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="faketime is not installed (tools/setup.sh peers)")


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "gateway", archive)
    yield made
    made.close()


def find(peer: Peer) -> int | None:
    peer.send(message(5, c_find_rq(50), identifier()))
    return peer.next_message().command.status


@pytest.mark.parametrize("jump", ["+1d", "-1d"])
def test_limits_and_idle_time_do_not_follow_a_jump(place: Place, tmp_path: Path, jump: str) -> None:
    place.configure(idle_seconds=IDLE_SECONDS)
    with place.settings.path.open("a", encoding="utf-8") as file:
        file.write("\n[limits.device.ct1]\nqueries_per_minute = 2\n")
    offset = tmp_path / "offset"
    offset.write_text("+0")
    environment = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with process(place, environment=environment) as running:
        peer = place.peer().established()
        assert [find(peer), find(peer)] == [0, 0]
        offset.write_text(jump)
        # A jump of a day would fill the bucket, and end the association as idle.
        assert find(peer) != 0
        assert peer.echo() == 0
        began = time.monotonic()
        assert isinstance(peer.next(), AAbort)
        waited = time.monotonic() - began
        peer.close()
        assert running.stop() == 0
    assert IDLE_SECONDS - 0.5 < waited < IDLE_SECONDS + 10
    records = place.records()
    # It did jump: the wall clock's dates differ.
    assert len({record.time[:10] for record in records_of(place.settings.audit.directory)}) == 2
    (end,) = [record for record in records if record["code"] == "DW-ASSOC-END"]
    assert end["reason"] == "idle"
    assert 0 < int(end["duration_ms"]) < 60_000
