"""The comparison of the matrix says what differs; Orthanc and PixelMed are clients like the others."""

from pathlib import Path

import pytest

from tests.real.clients import Outcome, Route
from tests.real.interoperability import agent_in_front, verdict
from tests.real.orthanc_client import OrthancClient
from tests.real.pixelmed_client import PixelmedClient
from tests.real.processes import free_port
from tests.real.site import site

GOOD, BAD = Outcome(succeeded=True, statuses=("0000",)), Outcome(succeeded=False, statuses=("0124",))


@pytest.mark.parametrize(
    ("outcomes", "word"),
    [
        ((GOOD, GOOD, GOOD, GOOD), "equal"),
        ((BAD, BAD, BAD, BAD), "equal (fails)"),
        ((GOOD, BAD, GOOD, GOOD), "TLS differs"),
        ((GOOD, GOOD, BAD, GOOD), "zone differs"),
        ((GOOD, GOOD, GOOD, BAD), "agent differs"),
    ],
)
def test_verdict(outcomes: tuple[Outcome, Outcome, Outcome, Outcome], word: str) -> None:
    assert verdict(*outcomes) == word


def test_orthanc_as_a_client_ends_alike_on_all_four_ways(tmp_path: Path) -> None:
    with site("storescp", tmp_path) as here:
        client = OrthancClient()
        direct = here.outcome(client, "echo", gateway=False)
        assert direct.succeeded, direct
        assert here.outcome(client, "echo", gateway=True) == direct
        assert here.zone_outcome(client, "echo") == direct
        with agent_in_front(here, tmp_path) as agent:
            stored = here.outcome(client, "store", gateway=False)
            assert stored.succeeded, stored
            assert here.outcome_by(agent, client, "store") == stored


def test_pixelmed_as_a_client_ends_alike_on_all_four_ways(tmp_path: Path) -> None:
    """Java starts slowly: a service for each way. `make interoperability` does all on all."""
    client = PixelmedClient()
    with site("pynetdicom", tmp_path) as here, agent_in_front(here, tmp_path) as agent:
        direct = {each: here.outcome(client, each, gateway=False) for each in ("find", "store", "move")}
        assert all(outcome.succeeded for outcome in direct.values()), direct
        assert direct["find"].matches
        assert direct["move"].received
        assert here.outcome(client, "find", gateway=True) == direct["find"]
        assert here.zone_outcome(client, "move") == direct["move"]
        assert here.outcome_by(agent, client, "store") == direct["store"]


def test_pixelmed_says_that_nobody_is_there() -> None:
    told = PixelmedClient().echo(Route(port=free_port(), calling_ae_title="READER", called_ae_title="ARCHIVE"))
    assert not told.succeeded
    assert "refused" in told.statuses[0]
