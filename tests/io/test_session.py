"""The session: two connections, one relay; everything that peers can do to it over real sockets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.io.world import RawArchive, World, archive_at, raw_archive, running


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as serving:
        yield serving


@pytest.fixture
def world(tmp_path: Path, archive: RawArchive) -> Iterator[World]:
    with running(tmp_path / "gateway", archive_at(archive.endpoint)) as ready:
        yield ready


def test_echo_through_the_gateway(world: World) -> None:
    peer = world.peer().established()
    assert peer.echo() == 0
    peer.release()
    peer.close()
    assert world.gate.wait_until_empty(10)
