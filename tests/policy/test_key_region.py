"""Sets of sets of keys, against listing all of them."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from dicomward.policy.key_region import KeyRegion, covers_everything, split

ALL = range(16)
MASKS = st.integers(0, 15)


@st.composite
def regions(draw: st.DrawFn) -> KeyRegion:
    region = KeyRegion()
    for having, keys in draw(st.lists(st.tuples(st.booleans(), st.integers(1, 15)), max_size=4)):
        region = (region.having(keys) if having else region.lacking(keys)) or region
    return region


def sets_of(region: KeyRegion) -> set[int]:
    return {keys for keys in ALL if region.contains(keys)}


@given(regions(), MASKS, MASKS)
def test_a_cut_has_every_set_once(region: KeyRegion, all_of: int, any_of: int) -> None:
    having, rest = split(region, all_of, any_of)
    inside = {keys for keys in sets_of(region) if keys & all_of == all_of and (not any_of or keys & any_of)}
    assert [keys for piece in having for keys in sorted(sets_of(piece))] == sorted(inside)
    assert sorted(keys for piece in rest for keys in sets_of(piece)) == sorted(sets_of(region) - inside)
    assert all(sets_of(piece) for piece in (*having, *rest))


@given(regions())
def test_the_smallest_set_is_one_of_the_region(region: KeyRegion) -> None:
    assert region.contains(region.smallest())


@given(st.lists(regions(), max_size=3))
def test_covering_everything_means_every_set(several: list[KeyRegion]) -> None:
    assert covers_everything(several) == (set().union(*map(sets_of, several)) == set(ALL))


def test_many_keys_cost_no_more_than_few() -> None:
    having, rest = split(KeyRegion(), (1 << 60) - 1, (1 << 200) - 1)
    assert (len(having), len(rest)) == (1, 60)


def test_equal_regions_are_written_alike() -> None:
    pairs = product((1, 2, 4), repeat=2)
    for first, second in pairs:
        one, other = KeyRegion().having(first), KeyRegion().having(second)
        assert one is not None
        assert other is not None
        assert one.having(second) == other.having(first)
