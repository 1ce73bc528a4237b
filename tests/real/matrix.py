"""The cases of the matrix; one test file for each server takes them over, so that the files run side by side."""

from collections.abc import Iterator

import pytest

from tests.real.clients import STACKS, Stack
from tests.real.site import SERVICES, Site, site

ALL_SERVICES = ("echo", "store", "find", "worklist", "get", "move")


def cases(server: str) -> list[tuple[Stack, str]]:
    """Return every pair of client stack and service that the server and the stack both have."""
    return [
        (stack, service)
        for stack in STACKS
        for service in ALL_SERVICES
        if service in SERVICES[server] and service in stack.services
    ]


@pytest.fixture(scope="module")
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run the server that the test file names, with both routes to it."""
    server: str = request.module.SERVER
    with site(server, tmp_path_factory.mktemp(server)) as running:
        yield running


def test_direct_pair_works(here: Site, case: tuple[Stack, str]) -> None:
    stack, service = case
    outcome = here.outcome(stack, service, gateway=False)
    assert outcome.succeeded, outcome
    if service in {"find", "worklist"}:
        assert outcome.matches, outcome
    if service in {"get", "move"}:
        assert outcome.received, outcome


def test_pair_through_the_gateway_has_the_same_result(here: Site, case: tuple[Stack, str]) -> None:
    stack, service = case
    direct = here.outcome(stack, service, gateway=False)
    assert here.outcome(stack, service, gateway=True) == direct
