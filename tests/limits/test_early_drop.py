"""Random early drop, and how its chance rises."""

import pytest

from dicomward.limits.early_drop import drops_early


@pytest.mark.parametrize(
    ("waiting", "chance"), [(0, 0.0), (49, 0.0), (50, 0.0), (60, 0.2), (75, 0.5), (99, 0.98), (100, 1.0), (200, 1.0)]
)
def test_chance_rises_evenly_from_half_of_the_room_to_all_of_it(waiting: int, chance: float) -> None:
    draws = [number / 1000 for number in range(1000)]
    dropped = sum(drops_early(waiting, 100, draw) for draw in draws)
    assert dropped / len(draws) == pytest.approx(chance)


def test_room_without_places_drops_everybody() -> None:
    assert drops_early(1, 0, 0.999)
