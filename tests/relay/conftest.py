from collections.abc import Iterator

import pytest

from tests.relay import playbook


@pytest.fixture(autouse=True)
def _playbooks_are_played() -> Iterator[None]:
    """A playbook that nobody has asked for its truth has tested nothing."""
    playbook.unfinished.clear()
    yield
    forgotten = len(playbook.unfinished)
    playbook.unfinished.clear()
    assert not forgotten, f"{forgotten} playbook(s) never played: write `assert Playbook(...) >> ... << ...`"
