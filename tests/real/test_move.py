"""C-MOVE: from the archive to a destination device behind TLS, by the gateway's archive side."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.clients import Outcome, Pynetdicom, Route
from tests.real.hospital import Hospital, hospital
from tests.real.processes import free_port
from tests.real.recording_archive import Originator, RecordingArchive
from tests.real.samples import Sample, sample
from tests.real.servers import StoreScp
from tests.real.site import IMAGES, study_of

CT, MR = sample("CT_small.dcm"), sample("MR_small.dcm")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with hospital(tmp_path_factory.mktemp("move")) as running:
        _fill(running)
        yield running


def _fill(running: Hospital) -> None:
    for name in IMAGES:
        running.archive.hold(sample(name))


def _know(running: Hospital, title: str) -> None:
    """Configure the archive: it reaches this title at the gateway's archive side."""
    running.archive.destinations[title] = running.gateway.archive_port


def test_images_arrive_at_the_destination_over_tls(here: Hospital) -> None:
    reader = here.device("reader1", "READER1")
    _, destination = here.listening_device("station1", "STATION1")
    _know(here, "STATION1")
    outcome = Pynetdicom().move(reader, study_of(CT), "STATION1")
    assert outcome == Outcome(succeeded=True, statuses=("0000",))
    assert [stored.sop_instance_uid for stored in destination.stored] == [CT.sop_instance_uid]
    # The destination sees the archive's title, as it would without the gateway, and who asked.
    assert destination.stored[0].calling_ae_title == "ARCHIVE"
    assert destination.stored[0].called_ae_title == "STATION1"
    assert destination.stored[0].move_originator == ("READER1", 1)


def test_direct_and_gateway_destinations_get_the_same_bytes(here: Hospital) -> None:
    with RecordingArchive("PLAINDEST") as plain:
        here.archive.destinations["PLAINDEST"] = plain.port
        direct = Pynetdicom().move(here.direct, study_of(MR), "PLAINDEST")
        reader = here.device("reader2", "READER2")
        _, destination = here.listening_device("station2", "STATION2")
        _know(here, "STATION2")
        assert Pynetdicom().move(reader, study_of(MR), "STATION2") == direct
        assert [one.data_set for one in destination.stored] == [one.data_set for one in plain.stored]
        assert plain.stored


def test_a_device_moves_to_itself(here: Hospital) -> None:
    station, listener = here.listening_device("station3", "STATION3")
    _know(here, "STATION3")
    assert Pynetdicom().move(station, study_of(CT), "STATION3").succeeded
    assert len(listener.stored) == 1


def test_a_plaintext_device_is_reached_where_the_registry_says_so(here: Hospital) -> None:
    reader = here.device("reader4", "READER4")
    _, destination = here.listening_device("station4", "STATION4", plain=True)
    _know(here, "STATION4")
    assert Pynetdicom().move(reader, study_of(CT), "STATION4").succeeded
    assert len(destination.stored) == 1


def test_unknown_destination_is_answered_with_a801_and_the_archive_is_not_asked(here: Hospital) -> None:
    reader = here.device("reader5", "READER5")
    # The archive would know it: only the gateway's registry does not.
    here.archive.destinations["ELSEWHERE"] = free_port()
    outcome = Pynetdicom().move(reader, study_of(CT), "ELSEWHERE")
    assert outcome == Outcome(succeeded=False, statuses=("A801",))
    assert "move-destination-unknown" in here.gateway.reasons()


def test_destination_that_does_not_answer_never_ends_in_success(here: Hospital) -> None:
    reader = here.device("reader6", "READER6")
    here.gateway.add_device("station6", "STATION6", role="tester", address=free_port())
    _know(here, "STATION6")
    outcome = Pynetdicom().move(reader, study_of(CT), "STATION6")
    assert not outcome.succeeded


def test_store_from_the_archive_without_a_move_is_refused(here: Hospital) -> None:
    """Whoever speaks as the archive can't push images into a device: nothing is pending."""
    _, destination = here.listening_device("station7", "STATION7")
    route = Route(port=here.gateway.archive_port, calling_ae_title="ARCHIVE", called_ae_title="STATION7")
    outcome = Pynetdicom().store(route, [sample("SC_rgb.dcm")])
    assert not outcome.succeeded
    assert destination.stored == []
    assert "no-pending-move" in here.gateway.reasons()


def test_a_stranger_at_the_archive_side_is_refused(here: Hospital) -> None:
    route = Route(port=here.gateway.archive_port, calling_ae_title="NOBODY", called_ae_title="STATION1")
    assert not Pynetdicom().echo(route).succeeded
    assert "archive-unknown" in here.gateway.reasons()


def test_storescp_with_tls_is_a_destination(here: Hospital, tmp_path: Path) -> None:
    port = free_port()
    credentials = here.gateway.add_device("storescp", "STORESCP", role="tester", address=port, key="rsa")
    server = StoreScp("STORESCP", tmp_path / "storescp", credentials=credentials, port=port)
    try:
        reader = here.device("reader8", "READER8")
        _know(here, "STORESCP")
        assert Pynetdicom().move(reader, study_of(CT), "STORESCP").succeeded
        assert [kept.sop_instance_uid for kept in server.kept()] == [CT.sop_instance_uid]
    finally:
        server.stop()


@pytest.mark.parametrize("originator", list(Originator))
def test_moves_of_two_devices_never_mix(tmp_path: Path, originator: Originator) -> None:
    """Two devices move different studies to two destinations at once, again and again, with the same message IDs."""
    with hospital(tmp_path, originator=originator) as running:
        _fill(running)
        work: list[tuple[str, Sample]] = [("A", CT), ("B", MR)]
        routes = {}
        listeners = {}
        for letter, _ in work:
            routes[letter] = running.device(f"reader{letter}", f"READER{letter}")
            _, listeners[letter] = running.listening_device(f"station{letter}", f"STATION{letter}")
            _know(running, f"STATION{letter}")
        outcomes: list[Outcome] = []

        def move_again_and_again(letter: str, image: Sample) -> None:
            for _ in range(4):
                outcomes.append(Pynetdicom().move(routes[letter], study_of(image), f"STATION{letter}"))

        threads = [threading.Thread(target=move_again_and_again, args=pair) for pair in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert [outcome.statuses for outcome in outcomes] == [("0000",)] * 8
        assert {one.sop_instance_uid for one in listeners["A"].stored} == {CT.sop_instance_uid}
        assert {one.sop_instance_uid for one in listeners["B"].stored} == {MR.sop_instance_uid}
        assert len(listeners["A"].stored) == len(listeners["B"].stored) == 4


@pytest.mark.parametrize("originator", [Originator.REQUESTOR, Originator.NONE])
def test_moves_of_two_devices_to_one_destination_all_arrive(tmp_path: Path, originator: Originator) -> None:
    with hospital(tmp_path, originator=originator) as running:
        _fill(running)
        _, destination = running.listening_device("station", "STATION")
        _know(running, "STATION")
        routes = [running.device(f"reader{number}", f"READER{number}") for number in (1, 2)]
        outcomes: list[Outcome] = []
        threads = [
            threading.Thread(
                target=lambda r=route, i=image: outcomes.append(Pynetdicom().move(r, study_of(i), "STATION"))
            )
            for route, image in zip(routes, (CT, MR), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert [outcome.statuses for outcome in outcomes] == [("0000",)] * 2
        assert sorted(one.sop_instance_uid for one in destination.stored) == sorted(
            [CT.sop_instance_uid, MR.sop_instance_uid]
        )
