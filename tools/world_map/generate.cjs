// Write the world map of the reports: the paths of countries, and a dot for each, as JSON for
// src/dicomward/assess/data/world.json. Run it where the packages that README.md names are installed:
//   NODE_PATH=node_modules node tools/world_map/generate.cjs >src/dicomward/assess/data/world.json
const { geoNaturalEarth1, geoPath, geoArea, geoCentroid } = require("d3-geo");
const { feature } = require("topojson-client");
const countries = require("i18n-iso-countries");
const shapes = require("world-atlas/countries-110m.json");
const all = require("world-atlas/countries-10m.json");

const WIDTH = 960;
const HEIGHT = 470;
// Three that have no ISO number on the map; Kosovo has a code in use, the others none.
const CODES_BY_NAME = { Kosovo: "XK" };
// The names of the map are plainer than the official ones where states disagree about a name.
const PLAIN_NAMES = { TW: "Taiwan", US: "United States", RU: "Russia", GB: "United Kingdom", IR: "Iran" };

function codeOf(item) {
  const number = item.id === undefined ? "" : String(item.id).padStart(3, "0");
  return (number && countries.numericToAlpha2(number)) || CODES_BY_NAME[item.properties.name] || "";
}

const world = feature(shapes, shapes.objects.countries);
// Antarctica takes room and has no servers.
world.features = world.features.filter((item) => item.properties.name !== "Antarctica");
const projection = geoNaturalEarth1().fitSize([WIDTH, HEIGHT], world);
const path = geoPath(projection).digits(1);
const result = { width: WIDTH, height: HEIGHT, countries: {}, unnamed: [] };
for (const item of world.features) {
  const code = codeOf(item);
  if (code) result.countries[code] = { name: item.properties.name, path: path(item) };
  else result.unnamed.push(path(item));
}
for (const item of feature(all, all.objects.countries).features) {
  const code = codeOf(item);
  if (!code || code === "AQ") continue;
  // The middle of the largest part: that of France is not in the Atlantic.
  const parts = item.geometry.type === "Polygon" ? [item.geometry.coordinates] : item.geometry.coordinates;
  const polygons = parts.map((coordinates) => ({ type: "Polygon", coordinates }));
  const largest = polygons.reduce((best, each) => (geoArea(each) > geoArea(best) ? each : best));
  const [x, y] = projection(geoCentroid(largest)).map((value) => Math.round(value * 10) / 10);
  // Islands near Antarctica lie outside of what is drawn.
  if (y > HEIGHT || x < 0 || x > WIDTH) continue;
  const known = result.countries[code] || { name: item.properties.name, path: "" };
  result.countries[code] = { name: PLAIN_NAMES[code] || countries.getName(code, "en") || known.name, x, y, path: known.path };
}
const sorted = Object.fromEntries(Object.entries(result.countries).sort());
process.stdout.write(`${JSON.stringify({ ...result, countries: sorted })}\n`);
