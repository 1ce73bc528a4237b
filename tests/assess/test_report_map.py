"""The world map: shapes, shades, dots, and nothing that a name could smuggle in."""

import json
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from dicomward.assess.report_map import LAND, SERVERS_POWER, SHADES, World, WorldCountry, legend, map_svg, step_of
from dicomward.io.assess.report_render import read_world

SVG = "{http://www.w3.org/2000/svg}"
SMALL_WORLD = World(
    width=10,
    height=10,
    countries={
        "AA": WorldCountry(name="A & <B>", x=1, y=1, path="M0,0Z"),
        "BB": WorldCountry(name="Bee", x=2, y=2, path=""),
        "CC": WorldCountry(name="Cee", x=3, y=3, path="M1,1Z"),
    },
    unnamed=("M5,5Z",),
)


@pytest.mark.parametrize(
    ("value", "step"), [(0, 0), (1, 0), (999, 0), (1000, 1), (9_999, 1), (10_000, 2), (10**7, 5), (10**9, 5)]
)
def test_each_shade_is_ten_times_the_one_before(value: int, step: int) -> None:
    assert step_of(value) == step


def test_steps_of_servers_begin_at_ten() -> None:
    assert [step_of(each, SERVERS_POWER) for each in (9, 10, 100)] == [0, 1, 2]


def test_legend_has_the_shades_that_are_used() -> None:
    assert legend({"AA": 5, "BB": 40_000}) == ((SHADES[0], "fewer than 1,000"), (SHADES[2], "10,000 and more"))
    assert legend({"AA": 12}, SERVERS_POWER) == ((SHADES[1], "10 and more"),)


def test_country_has_its_shade_and_a_small_one_is_a_dot() -> None:
    svg = map_svg(SMALL_WORLD, {"AA": 5_000, "BB": 3}, {"AA": "5,000"}, label='"map"')
    root = ElementTree.fromstring(svg)  # noqa: S314  our own
    paths = {each.get("d"): each.get("fill") for each in root.iter(f"{SVG}path")}
    assert paths == {"M5,5Z": None, "M0,0Z": SHADES[1], "M1,1Z": None}
    assert [(each.get("cx"), each.get("fill")) for each in root.iter(f"{SVG}circle")] == [("2", SHADES[0])]
    assert [each.text for each in root.iter(f"{SVG}title")] == ["A & <B>: 5,000", "Bee: "]
    assert root.get("aria-label") == '"map"'


def test_shades_are_told_apart_without_colour() -> None:
    """Black and white print keeps lightness only: each step is darker than the one before, by enough to be seen."""

    def lightness(colour: str) -> float:
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    steps = [lightness(each) for each in (LAND, *SHADES)]
    assert all(lighter - darker >= 25 for lighter, darker in pairwise(steps))


def test_world_of_the_package_has_every_country_of_the_research() -> None:
    world = read_world()
    assert len(world.countries) > 230
    assert {"IN", "US", "ZA", "DE", "SG", "MT", "BH", "XK"} <= set(world.countries)
    assert world.countries["SG"].path == ""
    assert all(0 <= each.x <= world.width and 0 <= each.y <= world.height for each in world.countries.values())
    assert (world.name_of("DE"), world.name_of("Q1"), world.name_of("")) == ("Germany", "Q1", "unknown")


def test_no_shape_is_a_streak_across_the_map() -> None:
    """Naive decoding draws Russia and Fiji as lines from edge to edge."""
    world = read_world()
    for code in ("FJ", "RU"):
        for part in world.countries[code].path.split("M")[1:]:
            points = [float(pair.split(",")[0]) for pair in part.strip("Z").split("L")]
            assert max(abs(a - b) for a, b in pairwise(points)) < world.width / 4


def test_world_is_small_enough_for_each_report() -> None:
    assert len(json.dumps({code: each.path for code, each in read_world().countries.items()})) < 200_000
