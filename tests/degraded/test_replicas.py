"""An archive that is not there: its declared replica stands in for new associations, and for no open one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.dicom.pdu import AAbort, AAssociateRj
from dicomward.identity.registry import RegistrySnapshot
from dicomward.io.registry.store import write_snapshot
from tests.degraded.place import Application, Place, application
from tests.io.world import Peer, RawArchive, archive_at, device, raw_archive
from tests.relay.wire import c_store_rq, image, message


@pytest.fixture
def primary() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def replica() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, primary: RawArchive, replica: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "gateway", primary)
    pacs = archive_at(primary.endpoint)
    stand_in = replace(archive_at(replica.endpoint), name="pacs-b", replica_of="pacs")
    write_snapshot(
        made.settings.registry.snapshot,
        RegistrySnapshot(devices=(device("ct1", made.scanner),), archives=(pacs, stand_in), revision=7),
    )
    yield made
    made.close()


def store(peer: Peer, message_id: int = 1) -> int | None:
    peer.send(message(3, c_store_rq(message_id), image()))
    return peer.next_message().command.status


def ask_twice(running: Application) -> None:
    """Do what the health thread does, without its pauses."""
    running.gateway._health.check()
    running.gateway._health.check()


def archives(place: Place) -> list[str]:
    return [str(record["archive"]) for record in place.records() if record["code"] == "DW-ASSOC-ALLOW"]


def test_replica_stands_in_while_the_archive_is_away(place: Place, primary: RawArchive) -> None:
    with application(place) as running:
        assert store(place.peer().established()) == 0
        primary.close()
        ask_twice(running)
        assert store(place.peer().established()) == 0
    assert archives(place) == ["pacs", "pacs-b"]
    told = [(r["code"], r.get("archive")) for r in place.records() if r.get("component") == "archive"]
    assert told == [("DW-DEGR-ENTER", "pacs")]


def test_open_association_never_changes_its_archive(place: Place, primary: RawArchive) -> None:
    """It ends with the archive that it has; the next one finds the replica."""
    with application(place) as running:
        peer = place.peer().established()
        assert store(peer) == 0
        primary.close()
        ask_twice(running)
        assert isinstance(peer.next(), AAbort)


def test_association_with_the_replica_outlives_the_return_of_the_archive(
    place: Place, primary: RawArchive, replica: RawArchive
) -> None:
    with application(place) as running:
        primary.close()
        ask_twice(running)
        peer = place.peer().established()
        running.gateway._health._standing.clear()
        running.gateway._commands.reload_registry()
        assert store(peer) == 0


def test_without_a_replica_that_is_up_the_device_is_told_so(
    place: Place, primary: RawArchive, replica: RawArchive
) -> None:
    with application(place) as running:
        primary.close()
        replica.close()
        ask_twice(running)
        answer = place.peer().associate()
        assert isinstance(answer, AAssociateRj)
        assert (answer.result, answer.source, answer.reason) == (2, 3, 1)
