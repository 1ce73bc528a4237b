"""Reports as HTML and PDF: what both say is put together here once, and each template lays it out.

The HTML page holds all that it needs, and its policy forbids it to load anything. Typst gets its data as JSON, so that
nothing that a server says of itself is ever code.
"""

import json
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from dicomward import __version__
from dicomward.assess.report_map import (
    LAND,
    RECORDS_POWER,
    SERVERS_POWER,
    World,
    legend,
    map_svg,
    world_from_json,
)
from dicomward.assess.report_model import PlaceRow, Report, ServerRow

# A page that a browser can show and a person can read; CSV and JSON have all.
MOST_PLACES: Final = 100
MOST_SERVERS: Final = 500


class RendererMissingError(Exception):
    """What makes PDFs is not installed; the message says how to install it."""


def read_world() -> World:
    """Return the shapes of countries that come with the package."""
    return world_from_json(json.loads(files("dicomward.assess").joinpath("data/world.json").read_text("utf-8")))


def render_html(report: Report, world: World, made_at: datetime) -> str:
    """Return the report as one HTML page."""
    from jinja2 import DictLoader, Environment, StrictUndefined, select_autoescape
    from markupsafe import Markup

    names = ("report.html", "places.html")
    environment = Environment(
        loader=DictLoader({name: _template(name) for name in names}),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    style = _template("report.css")
    places = environment.get_template("places.html")
    return environment.get_template("report.html").render(
        **_shared_values(report, made_at),
        report=report,
        run=report.run,
        servers=_worst_first(report)[:MOST_SERVERS],
        most_places=MOST_PLACES,
        version=__version__,
        land=LAND,
        style=Markup(style),  # noqa: S704  our own file
        style_hash=b64encode(sha256(style.encode()).digest()).decode(),
        map=Markup(_map(report, world)),  # noqa: S704  made by map_svg, which escapes
        places=lambda rows, heading: Markup(places.render(rows=rows, heading=heading)),  # noqa: S704  escaped there
    )


def render_pdf(report: Report, world: World, made_at: datetime) -> bytes:
    """Return the report as PDF. Raises RendererMissingError."""
    try:
        import typst
    except ImportError as error:
        raise RendererMissingError(
            "PDF needs Typst, which is not installed: pip install 'dicomward[pdf]'; "
            "or make the HTML report and print it from a browser"
        ) from error
    data = {**_shared_values(report, made_at), "map": _map(report, world), **_pdf_tables(report)}
    result = typst.compile(_template("report.typ").encode(), sys_inputs={"data": json.dumps(data)}, format="pdf")
    if not isinstance(result, bytes):
        raise TypeError("Typst has returned several files for one")
    return result


def _template(name: str) -> str:
    return files("dicomward.io.assess.report_templates").joinpath(name).read_text("utf-8")


def _shared_values(report: Report, made_at: datetime) -> dict[str, Any]:
    """Return what both templates show, as JSON values."""
    run = report.run
    power = RECORDS_POWER if report.map_is_of_records else SERVERS_POWER
    first, last = run.started_at[:10], run.ended_at[:10]
    meta = [
        f"Assessed {first}" + (f" to {last}" if last not in ("", first) else "") if first else "",
        f"Authorised by {run.authorisation}" if run.authorisation else "",
        f"Contact {run.contact}" if run.contact else "",
        f"Report made {made_at:%Y-%m-%d %H:%M} UTC",
    ]
    return {
        "title": "DICOM exposure assessment" + (f": {run.owner}" if run.owner else ""),
        "meta": [each for each in meta if each],
        "notices": _notices(report),
        "summary": report.summary,
        "figures": [
            {"name": "DICOM servers reached", "text": f"{report.servers_reached:,}"},
            {"name": "of them leak", "text": f"{report.servers_leaking:,}"},
            {"name": "Records exposed", "text": report.counts["records"].text},
            {"name": "Open to tampering", "text": report.counts["open_to_tampering"].text},
        ],
        "map_caption": "Exposed records by country; darker is more, in steps of ten times."
        if report.map_is_of_records
        else "Servers that were reached, by country; darker is more, in steps of ten times.",
        "legend": [{"colour": colour, "text": text} for colour, text in legend(report.map_values, power)],
        "how": _how(report),
    }


def _notices(report: Report) -> list[str]:
    run, notices = report.run, []
    if run.hosts_done < run.hosts or not run.ended_at:
        notices.append(
            f"Not finished: {run.hosts_done:,} of {run.hosts:,} addresses have been looked at. What follows is what is "
            "known so far."
        )
    if report.options.shared:
        numbers = "" if report.options.addresses else ", and servers have numbers in the place of addresses"
        notices.append(
            "This is a report to be shared: counts of fewer than five are shown as <5, totals beside them are rounded, "
            f"evidence is left out{numbers}."
        )
    return notices


def _how(report: Report) -> str:
    run = report.run
    return (
        f"{run.hosts_done:,} of {run.hosts:,} addresses of the scope were looked at; {run.excluded:,} were left alone "
        f"because the scope says so; {report.not_answered:,} ports that were tried are no DICOM server or did not "
        "answer. Nothing was stored, changed or retrieved: what would be accepted is learned from what a server "
        "offers. What could not be told is never counted as safe."
    )


def _map(report: Report, world: World) -> str:
    unit = "records" if report.map_is_of_records else "servers"
    texts = {
        row.code: row.records.text if report.map_is_of_records else f"{row.servers:,}"
        for row in report.countries
        if row.code in report.map_values
    }
    label = f"World map of {'exposed records' if report.map_is_of_records else 'servers that were reached'}"
    power = RECORDS_POWER if report.map_is_of_records else SERVERS_POWER
    told = {code: f"{text} {unit}" for code, text in texts.items()}
    return map_svg(world, report.map_values, told, label=label, power=power)


def _worst_first(report: Report) -> Sequence[ServerRow]:
    """Return the servers: those that leak most first, then those with most findings."""

    def order(row: ServerRow) -> tuple[int, int]:
        counts = row.observation.counts
        records = counts.records.value if counts is not None and counts.records is not None else 0
        return -records, -len(row.observation.findings)

    return sorted(report.servers, key=order)


def _pdf_tables(report: Report) -> dict[str, Any]:
    servers = _worst_first(report)
    return {
        "types": [{"type": row.type, "count": row.count, "description": row.description} for row in report.types],
        "countries": [_place(row) for row in report.countries],
        "sites": [_place(row) for row in report.sites],
        "patient_countries": [[name, count.text] for _, name, count in report.patient_countries],
        "findings": [
            {
                "title": row.entry.title,
                "rating": row.severity.rating,
                "score": str(row.severity.score),
                "id": row.entry.id,
                "vector": row.severity.vector,
                "remedy": row.entry.remedy,
                "number": f"{len(row.found_at):,}",
                "found_at": [{"server": each.server, "evidence": each.evidence} for each in row.found_at[:MOST_PLACES]],
                "more": max(len(row.found_at) - MOST_PLACES, 0),
            }
            for row in report.findings
        ],
        "servers": [
            [
                row.name,
                row.product,
                row.observation.protocol.value,
                row.guarded,
                row.counts["records"].text,
                f"{len(row.observation.findings)}",
            ]
            for row in servers[:MOST_SERVERS]
        ],
        "more_servers": max(len(servers) - MOST_SERVERS, 0),
    }


def _place(row: PlaceRow) -> list[str]:
    return [
        row.name,
        f"{row.servers:,}",
        f"{row.leaking:,}",
        row.patients.text,
        row.records.text,
        row.open_to_tampering.text,
    ]
