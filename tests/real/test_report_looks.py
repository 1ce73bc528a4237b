"""The report as people see it: in a real browser and on paper. Not blank, nothing cut off, readable without colour."""

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from PIL import Image, ImageStat

from dicomward.assess.report_map import SHADES
from dicomward.assess.report_model import Options, build_report
from dicomward.io.assess.report_render import read_world, render_html, render_pdf
from tests.assess.report_runs import FACTS, SERVERS
from tests.real.processes import run
from tests.real.servers import need

CHROMIUM: Final = Path("/usr/bin/chromium")
PDFTOPPM: Final = Path("/usr/bin/pdftoppm")
NOW: Final = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
# Adds what the page measures to its title; the page's own policy would forbid it, so this copy goes without one.
MEASURE: Final = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter((each) => {
    const box = each.getBoundingClientRect();
    return box.right > innerWidth + 1 && !each.closest(".scroll");
  }).map((each) => each.tagName + ":" + (each.textContent || "").slice(0, 40));
  const light = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map(Number).map((each) => each / 255)
      .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (each) => {
    for (let at = each; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = "h1,h2,h3,p,li,td,th,dt,dd,span,code,summary,figcaption,strong,footer div";
  const pale = [...document.querySelectorAll(texts)]
    .filter((each) => {
      const [one, other] = [getComputedStyle(each).color, behind(each)].map(light).sort((a, b) => b - a);
      return each.textContent.trim() && (one + 0.05) / (other + 0.05) < 4.5;
    }).map((each) => each.tagName + ":" + each.textContent.trim().slice(0, 40));
  const map = document.querySelector("figure svg").getBoundingClientRect();
  document.body.dataset.measured = JSON.stringify({
    scroll: document.documentElement.scrollWidth, width: innerWidth, wide, pale, map: [map.width, map.height]
  });
});</script>"""


def page() -> str:
    world = read_world()
    return render_html(build_report(FACTS, SERVERS, world, Options()), world, NOW)


def chromium(directory: Path, *options: str, seconds: float = 60.0) -> "subprocess.CompletedProcess[str]":
    command: list[str | Path] = [
        need(CHROMIUM, "chromium"),
        *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"),
        *("--no-first-run", f"--user-data-dir={directory / 'profile'}", *options),
    ]
    done = run(command, seconds=seconds)
    assert done.returncode == 0, done.stdout
    return done


def shades_in(image: Image.Image) -> set[str]:
    """Return which shades of the map are areas of the picture."""
    counted = {
        count_and_colour[1]: count_and_colour[0] for count_and_colour in image.convert("RGB").getcolors(2**24) or ()
    }
    as_rgb = {tuple(int(each[at : at + 2], 16) for at in (1, 3, 5)): each for each in SHADES}
    return {name for rgb, name in as_rgb.items() if counted.get(rgb, 0) > 20}


def ink(image: Image.Image) -> float:
    """Return which share of a picture is not paper."""
    dark = image.convert("L").point(lambda level: 255 if level < 200 else 0)
    return float(ImageStat.Stat(dark).mean[0]) / 255


@pytest.mark.parametrize("width", [1280, 600])
def test_page_in_a_browser(tmp_path: Path, width: int) -> None:
    file = tmp_path / "report.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page())
    file.write_text(text.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    dumped = chromium(
        tmp_path, f"--window-size={width},2000", "--virtual-time-budget=3000", "--dump-dom", file.as_uri()
    )
    measured = re.search(r'data-measured="([^"]*)"', dumped.stdout)
    assert measured is not None
    values = json.loads(measured[1].replace("&quot;", '"').replace("&gt;", ">").replace("&lt;", "<"))
    assert values["width"] == width
    assert values["scroll"] <= width
    assert values["wide"] == []
    assert values["pale"] == []
    assert values["map"][0] > width / 2
    assert values["map"][1] > width / 5


def test_page_as_it_is_looks_like_something(tmp_path: Path) -> None:
    """Its policy lets its own style through, and nothing else: a blocked style would be a page in black on white."""
    file = tmp_path / "report.html"
    file.write_text(page(), encoding="utf-8")
    picture = tmp_path / "page.png"
    done = chromium(
        tmp_path, "--window-size=1280,2200", "--enable-logging=stderr", f"--screenshot={picture}", file.as_uri()
    )
    assert "Content Security Policy" not in done.stdout
    with Image.open(picture) as image:
        assert image.size == (1280, 2200)
        assert 0.01 < ink(image) < 0.4
        # India and South Africa are darker than Germany, and Germany than Singapore, which is a dot.
        assert {SHADES[0], SHADES[1], SHADES[3], SHADES[4]} <= shades_in(image)
        assert image.getpixel((640, 3))[:3] == (27, 74, 107)  # type: ignore[index]


def test_pdf_pages(tmp_path: Path) -> None:
    world = read_world()
    file = tmp_path / "report.pdf"
    file.write_bytes(render_pdf(build_report(FACTS, SERVERS, world, Options()), world, NOW))
    text = run([need(Path("/usr/bin/pdftotext"), "poppler-utils"), "-layout", file, "-"]).stdout
    for words in ("DICOM exposure assessment: Regional Hospitals North", "17,126,239", "South Africa", "CRITICAL"):
        assert words in text
    assert "CVSS:4.0/AV:N" in text.replace("\u200b", "")
    done = run([need(PDFTOPPM, "poppler-utils"), "-r", "50", "-png", file, tmp_path / "page"])
    assert done.returncode == 0, done.stdout
    pages = sorted(tmp_path.glob("page-*.png"))
    assert 3 <= len(pages) <= 12
    colours: set[str] = set()
    for path in pages:
        with Image.open(path) as image:
            width, height = image.size
            assert 0.003 < ink(image) < 0.4, path.name
            # Nothing runs into the margins, where a printer would cut it off.
            for edge in ((0, 0, width // 20, height), (width - width // 20, 0, width, height)):
                assert ink(image.crop(edge)) == 0, path.name
            colours |= shades_in(image)
    assert {SHADES[3], SHADES[4]} <= colours
