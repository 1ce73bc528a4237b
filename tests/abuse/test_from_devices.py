"""Abuse from devices: all is survived, others are served meanwhile, memory stays, and the archive sees none of it."""

from collections.abc import Iterator

import pytest

from tests.abuse.place import Place, place
from tests.abuse.run import FAMILIES, cases

FEWEST_CASES = 150
PEAK_MIB, END_MIB = 64.0, 20.0


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("abuse")) as running:
        yield running


def test_there_are_enough_cases() -> None:
    assert sum(1 for _ in cases()) >= FEWEST_CASES


# cryptography and pydicom warn about the values of certificates and queries, which are odd on purpose.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_survived(here: Place, family: str) -> None:
    table = here.run(family)
    assert not table.hung, table.hung
    assert not table.slow, table.slow
    assert table.peak_mib - table.start_mib <= PEAK_MIB, table
    assert table.end_mib - table.start_mib <= END_MIB, table
    assert here.tap.associations
    assert here.breaches == []
    # Nothing of it was a defect of ours.
    assert "internal-error" not in here.gateway.reasons()
