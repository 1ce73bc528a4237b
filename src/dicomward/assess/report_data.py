"""The report as JSON (docs/schema/assessment-report.schema.json) and as CSV.

Rules of this file: members are added, never renamed or removed; a CSV cell never begins with what a spreadsheet would
take for a formula.
"""

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any, Final

from dicomward.assess.report_counts import COUNT_NAMES, ShownCount
from dicomward.assess.report_model import PlaceRow, Report, ServerRow

REPORT_FORMAT: Final = 1
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def report_to_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON values."""
    run = report.run
    return {
        "format": REPORT_FORMAT,
        "shared": report.options.shared,
        "run": {
            "owner": run.owner,
            "authorisation": run.authorisation,
            "contact": run.contact,
            "scope_sha256": run.scope_sha256,
            "started_at": run.started_at,
            "ended_at": run.ended_at,
            "hosts": run.hosts,
            "hosts_done": run.hosts_done,
            "excluded": run.excluded,
        },
        "summary": report.summary,
        "totals": {
            "servers_reached": report.servers_reached,
            "servers_leaking": report.servers_leaking,
            "servers_guarded": report.servers_guarded,
            "countries": sum(1 for row in report.countries if row.code),
            **{name: _count(report.counts[name]) for name in COUNT_NAMES},
        },
        "countries": [{"code": row.code, **_place(row)} for row in report.countries],
        "sites": [_place(row) for row in report.sites],
        "patient_countries": [
            {"code": code, "name": name, "patients": _count(count)} for code, name, count in report.patient_countries
        ],
        "findings": [
            {
                "id": row.entry.id,
                "title": row.entry.title,
                "severity": {
                    "cvss_vector": row.severity.vector,
                    "cvss_score": row.severity.score,
                    "rating": row.severity.rating,
                },
                "remedy": row.entry.remedy,
                "found_at": [{"server": each.server, "evidence": each.evidence} for each in row.found_at],
            }
            for row in report.findings
        ],
        "servers": [_server(row, report) for row in report.servers],
        "not_answered": report.not_answered,
    }


def _count(count: ShownCount) -> dict[str, Any]:
    return {"value": count.value, "is_lower_bound": count.is_lower_bound, "text": count.text}


def _place(row: PlaceRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "servers": row.servers,
        "leaking": row.leaking,
        "patients": _count(row.patients),
        "records": _count(row.records),
        "open_to_tampering": _count(row.open_to_tampering),
    }


def _server(row: ServerRow, report: Report) -> dict[str, Any]:
    seen = row.observation
    is_told = report.options.addresses
    return {
        "name": row.name,
        "address": seen.address if is_told else None,
        "port": seen.port if is_told else None,
        "host": (seen.host or None) if is_told else None,
        "protocol": seen.protocol.value,
        "reach": seen.reach.value,
        "site": seen.site or None,
        "country": seen.country or None,
        "country_source": seen.country_source or None,
        "product": {
            "vendor": seen.product.vendor,
            "product": seen.product.product,
            "version": seen.product.version,
            "confidence": seen.product.confidence.value,
        },
        "guarded": row.guarded,
        "vulnerabilities": [each.id for each in seen.vulnerabilities],
        "vulnerabilities_not_verified": [each.id for each in seen.vulnerabilities if not each.is_verified],
        "controls": [
            {
                "control": each.control.value,
                "verdict": each.verdict.value,
                "why": "" if report.options.shared else each.why,
            }
            for each in seen.controls
        ],
        "findings": [each.id for each in seen.findings],
        "counts": {name: _count(row.counts[name]) for name in COUNT_NAMES},
    }


# --- CSV -------------------------------------------------------------------------------------------------------------

COLUMNS: Final = (
    "server", "site", "country", "protocol", "reach", "product", "guarded", *COUNT_NAMES, "finding", "title",
    "rating", "cvss_score", "cvss_vector", "evidence", "remedy",
)  # fmt: skip
_NOTHING: Final = ("",) * (len(COLUMNS) - COLUMNS.index("finding"))


def report_to_csv(report: Report) -> str:
    """Return a line for each finding of each server, and one for a server without any; UTF-8, comma, CRLF."""
    findings: dict[str, list[tuple[str, ...]]] = {}
    for row in report.findings:
        entry, severity = row.entry, row.severity
        rating = (severity.rating, str(severity.score), severity.vector)
        for each in row.found_at:
            line: tuple[str, ...] = (entry.id, entry.title, *rating, each.evidence, entry.remedy)
            findings.setdefault(each.server, []).append(line)
    out = StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for server in report.servers:
        for line in findings.get(server.name, [_NOTHING]):
            writer.writerow([_cell(text) for text in (*_head_of(server), *line)])
    return out.getvalue()


def _head_of(server: ServerRow) -> Sequence[str]:
    seen = server.observation
    counts = (_number(server.counts[name]) for name in COUNT_NAMES)
    place = (server.name, seen.site, seen.country, seen.protocol.value, seen.reach.value)
    return (*place, server.product, server.guarded, *counts)


def _number(count: ShownCount) -> str:
    """Return a plain number where there is one: spreadsheets add up."""
    if count.value is None:
        return "" if count.text == "not counted" else count.text
    return f">={count.value}" if count.is_lower_bound else str(count.value)


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
