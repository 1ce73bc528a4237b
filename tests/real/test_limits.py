"""Limits as devices meet them: the standard's codes, and never a Success for less than was asked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.clients import Pynetdicom, Route, data_set_of, refused
from tests.real.gateway import Gateway
from tests.real.hospital import direct_route, open_association
from tests.real.recording_archive import VERIFICATION, RecordingArchive
from tests.real.samples import sample

LIMITS = """
[limits.role.small]
queries_per_minute = 5
matches_per_query = 10
associations = 2
floor_associations = 2
"""


class Small:
    """An archive, a gateway with low limits, and one device."""

    def __init__(self, archive: RecordingArchive, gateway: Gateway, route: Route) -> None:
        self.archive, self.gateway, self.route = archive, gateway, route


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    with RecordingArchive("ARCHIVE") as archive:
        gateway = Gateway(tmp_path / "gateway", archive="ARCHIVE", archive_port=archive.port)
        gateway.permit_everything_to("small", limits=LIMITS)
        credentials = gateway.add_device("small", "SMALL", role="small")
        try:
            gateway.start()
            yield Small(archive, gateway, gateway.route(credentials, "SMALL"))
        finally:
            gateway.stop()


def test_queries_beyond_the_rate_are_refused_and_images_still_pass(small: Small) -> None:
    keys = {"QueryRetrieveLevel": "STUDY", "PatientID": "1CT1"}
    outcomes = [Pynetdicom().find(small.route, keys) for _ in range(8)]
    assert [outcome.succeeded for outcome in outcomes[:5]] == [True] * 5
    assert not outcomes[-1].succeeded
    assert "query-rate" in small.gateway.reasons()
    assert Pynetdicom().store(small.route, [sample("CT_small.dcm")]).succeeded


def test_matches_beyond_the_limit_never_end_in_success(small: Small) -> None:
    for number in range(30):
        small.archive.instances[str(number)] = data_set_of(
            {"PatientID": "1CT1", "StudyInstanceUID": f"1.2.826.0.1.3680043.10.543.3.{number}"}
        )
    keys = {"QueryRetrieveLevel": "STUDY", "PatientID": "1CT1", "StudyInstanceUID": ""}
    direct = Pynetdicom().find(direct_route(small.archive), keys)
    assert direct.succeeded
    assert len(direct.matches) == 30
    outcome = Pynetdicom().find(small.route, keys)
    assert not outcome.succeeded
    assert len(outcome.matches) <= 10
    assert "matches-per-query" in small.gateway.reasons()


def test_associations_beyond_the_limit_are_rejected_as_transient(small: Small) -> None:
    """PS3.8 §9.3.4: result 2 (transient), source 3 (presentation), reason 2 (local limit exceeded)."""
    held = [open_association(small.route, VERIFICATION) for _ in range(2)]
    third = Pynetdicom().associate(small.route, Pynetdicom().contexts(VERIFICATION))
    assert refused(third).statuses == ("rejected 2/3/2",)
    assert "device-associations" in small.gateway.reasons()
    for association in held:
        association.release()
    assert Pynetdicom().echo(small.route).succeeded


def test_greedy_device_cannot_use_an_archive_up(small: Small) -> None:
    """Of six places two are kept for each device that has none: a fifth is refused, and the other one comes in."""
    gateway = small.gateway
    assert gateway.stop() == 0
    with gateway.configuration.open("a", encoding="utf-8") as configuration:
        configuration.write("\n[limits.archive]\nassociations = 6\nreserve_per_device = 2\n")
    greedy = gateway.route(gateway.add_device("greedy", "GREEDY", role="workstation"), "GREEDY")
    gateway.start()
    client = Pynetdicom()
    held = []
    while (association := client.associate(greedy, client.contexts(VERIFICATION))).is_established:
        held.append(association)
    assert refused(association).statuses == ("rejected 2/3/2",)
    assert len(held) == 4
    assert "archive-associations" in gateway.reasons()
    assert Pynetdicom().store(small.route, [sample("CT_small.dcm")]).succeeded
    for each in held:
        each.release()
