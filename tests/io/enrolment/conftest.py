"""One enrolment server for a test file, as new for each test."""

from collections.abc import Iterator

import pytest

from tests.io.enrolment_place import Place, enrolment_place


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with enrolment_place(tmp_path_factory.mktemp("enrolment") / "gateway") as made:
        yield made


@pytest.fixture
def place(running: Place) -> Place:
    # A test's failures must not block the address for the next one.
    running.server.est.forget_failures()
    running.at = None
    return running
