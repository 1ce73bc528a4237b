from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.relay import playbook

# A busy machine is no failure of the relay: hypothesis measures no time here.
settings.register_profile("no-clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no-clock")


@pytest.fixture(autouse=True)
def _playbooks_are_played() -> Iterator[None]:
    """A playbook that nobody has asked for its truth has tested nothing."""
    playbook.unfinished.clear()
    yield
    forgotten = len(playbook.unfinished)
    playbook.unfinished.clear()
    assert not forgotten, f"{forgotten} playbook(s) never played: write `assert Playbook(...) >> ... << ...`"
