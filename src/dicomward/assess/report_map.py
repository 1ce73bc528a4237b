"""The world map of a report, as SVG: darker is more, in steps of ten times; a country too small for a shape is a dot.

Rules of this file: grey steps with a border, so that it can be read in black and white; the table beside the map says
the same in numbers. The shapes come as values (data/world.json); their licence is in tools/world_map/README.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from math import log10
from typing import Any, Final

# From light to dark; colour-blind safe, since only lightness carries the meaning.
SHADES: Final = ("#c9d9e5", "#9fbdd2", "#6f9dba", "#3f7599", "#1d4d6e", "#0a2338")
LAND: Final = "#f4f4f1"
_BORDER: Final = "#8a8f94"
# The first step ends at this power of ten: 1,000 records, 10 servers.
RECORDS_POWER: Final = 3
SERVERS_POWER: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldCountry:
    """A country of the map: its dot, and its path, "" if it is too small for one."""

    name: str
    x: float
    y: float
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The shapes; `unnamed` are those without an ISO code."""

    width: int
    height: int
    countries: Mapping[str, WorldCountry]
    unnamed: tuple[str, ...] = ()

    def name_of(self, code: str) -> str:
        """Return the English name of a country; the code itself if it isn't known, "unknown" for none."""
        known = self.countries.get(code)
        return known.name if known is not None else code or "unknown"


def world_from_json(value: Mapping[str, Any]) -> World:
    """Read data/world.json."""
    return World(
        width=value["width"],
        height=value["height"],
        countries={code: WorldCountry(**each) for code, each in value["countries"].items()},
        unnamed=tuple(value["unnamed"]),
    )


def step_of(value: int, power: int = RECORDS_POWER) -> int:
    """Return which shade a number has, 0 to 5; the first is for what is below ten to the `power`."""
    return min(max(int(log10(value)) - power + 1, 0), len(SHADES) - 1) if value > 0 else 0


def legend(values: Mapping[str, int], power: int = RECORDS_POWER) -> tuple[tuple[str, str], ...]:
    """Return the shades that the map uses, and what they mean."""
    used = {step_of(each, power) for each in values.values()}
    texts = [f"fewer than {10**power:,}", *(f"{10 ** (power + step):,} and more" for step in range(len(SHADES) - 1))]
    return tuple((SHADES[step], texts[step]) for step in range(len(SHADES)) if step in used)


def map_svg(
    world: World, values: Mapping[str, int], texts: Mapping[str, str], *, label: str, power: int = RECORDS_POWER
) -> str:
    """Return the map; `values` decide the shade of each country, `texts` are what it says when pointed at."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {world.width} {world.height}" role="img" '
        f'aria-label="{escape(label)}">',
        f'<g stroke="{_BORDER}" stroke-width="0.4" fill="{LAND}">',
    ]
    parts += [f'<path d="{path}"/>' for path in world.unnamed]
    dots = []
    for code, country in world.countries.items():
        value = values.get(code)
        title = f"<title>{escape(country.name)}: {escape(texts.get(code, ''))}</title>"
        if value is None:
            if country.path:
                parts.append(f'<path d="{country.path}"/>')
            continue
        shade = SHADES[step_of(value, power)]
        if country.path:
            parts.append(f'<path d="{country.path}" fill="{shade}" stroke="#222" stroke-width="0.6">{title}</path>')
        else:
            dots.append(
                f'<circle cx="{country.x}" cy="{country.y}" r="4" fill="{shade}" stroke="#222" stroke-width="1">'
                f"{title}</circle>"
            )
    return "".join((*parts, *dots, "</g></svg>"))
