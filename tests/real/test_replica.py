"""An archive goes away in earnest: its replica takes images and moves, and only who was asked may answer."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.clients import Pynetdicom, Route
from tests.real.hospital import Hospital, hospital
from tests.real.processes import LOOPBACK
from tests.real.recording_archive import RecordingArchive
from tests.real.samples import sample
from tests.real.site import ARCHIVE, study_of

CT = sample("CT_small.dcm")
DOWN, UP = re.compile(rf"archive {ARCHIVE} is down"), re.compile(rf"archive {ARCHIVE} is up again")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hospital]:
    with hospital(tmp_path) as running:
        running.gateway.stop()
        running.gateway.configure("health", interval_seconds=1, timeout_seconds=2)
        running.gateway.start()
        yield running


def test_replica_takes_over_and_a_move_belongs_to_it(here: Hospital) -> None:
    with RecordingArchive("REPLICA") as replica:
        replica.hold(CT)
        target = f"REPLICA@{LOOPBACK}:{replica.port}"
        here.gateway.must("archive", "add", "replica", target, "--replica-of", ARCHIVE)
        reader = here.device("reader", "READER")
        _, destination = here.listening_device("station", "STATION")
        replica.destinations["STATION"] = here.gateway.archive_port
        assert Pynetdicom().echo(reader).succeeded
        with here.archive.away():
            here.gateway.child.wait_until_it_says(DOWN)
            assert Pynetdicom().store(reader, [CT]).succeeded
            assert [one.sop_instance_uid for one in replica.stored] == [CT.sop_instance_uid]
            assert Pynetdicom().move(reader, study_of(CT), "STATION").succeeded
            assert [one.sop_instance_uid for one in destination.stored] == [CT.sop_instance_uid]
            # The archive itself was never asked for it.
            stray = Route(port=here.gateway.archive_port, calling_ae_title=ARCHIVE, called_ae_title="STATION")
            assert not Pynetdicom().store(stray, [CT]).succeeded
        here.gateway.child.wait_until_it_says(UP)
        assert Pynetdicom().echo(reader).succeeded
    allowed = here.gateway.audit("--code", "DW-ASSOC-ALLOW")
    asked = [record["archive"] for record in allowed if record["device"] == "reader"]
    assert asked == [ARCHIVE, "replica", "replica", ARCHIVE]
    assert here.gateway.run("audit", "verify").returncode == 0
