"""The report as JSON, held to its published schema, and as CSV."""

import csv
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dicomward.assess.report_counts import COUNT_NAMES
from dicomward.assess.report_data import COLUMNS, report_to_csv, report_to_json
from dicomward.assess.report_model import Options, RunFacts, build_report
from dicomward.io.assess.report_render import read_world
from tests.assess.report_runs import FACTS, GUARDED, SERVERS, counts, leaking

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "schema" / "assessment-report.schema.json").read_text(encoding="utf-8")
)
WORLD = read_world()


def strict(schema: Any) -> Any:
    """Return the schema without room for members that it doesn't name: so it names all that is written."""
    if isinstance(schema, dict):
        closed = {key: strict(value) for key, value in schema.items()}
        return {**closed, "additionalProperties": False} if schema.get("type") == "object" else closed
    return [strict(each) for each in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("options", [Options(), Options(shared=True, addresses=False)])
@pytest.mark.parametrize("servers", [SERVERS, ()])
def test_json_is_what_the_schema_says(servers: tuple[Any, ...], options: Options) -> None:
    value = json.loads(json.dumps(report_to_json(build_report(FACTS, servers, WORLD, options))))
    jsonschema.Draft202012Validator(strict(SCHEMA)).validate(value)


def test_schema_refuses_what_is_not_a_report() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    value = report_to_json(build_report(FACTS, SERVERS, WORLD, Options()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**value, "totals": {}}, SCHEMA)


def test_json_has_the_totals_and_each_server() -> None:
    value = report_to_json(build_report(FACTS, SERVERS, WORLD, Options()))
    assert value["totals"]["records"] == {"value": 17_126_239, "is_lower_bound": True, "text": "at least 17,126,239"}
    first = value["servers"][0]
    assert (first["address"], first["port"], first["host"]) == ("198.51.100.20", 104, "pacs.north.example")
    assert first["vulnerabilities"] == ["CVE-2023-33466"]
    assert value["run"]["owner"] == "Regional Hospitals North"


def test_shared_json_has_no_address_and_no_small_count() -> None:
    text = json.dumps(report_to_json(build_report(FACTS, SERVERS, WORLD, Options(shared=True, addresses=False))))
    assert "198.51.100" not in text
    assert "203.0.113" not in text
    assert "north.example" not in text
    value = json.loads(text)
    france = next(each for each in value["countries"] if each["code"] == "FR")
    assert france["records"] == {"value": None, "is_lower_bound": False, "text": "<5"}


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


def test_csv_has_a_line_for_each_finding_of_each_server() -> None:
    lines = rows(report_to_csv(build_report(FACTS, SERVERS, WORLD, Options())))
    assert len(lines) == sum(len(each.findings) for each in SERVERS)
    assert set(lines[0]) == set(COLUMNS)
    india = next(each for each in lines if each["country"] == "IN")
    assert (india["records"], india["finding"]) == (">=9640000", "DWA-RECORDS-EXPOSED")
    assert next(each for each in lines if each["country"] == "BR")["records"] == ""


def test_csv_has_a_line_for_a_server_without_findings() -> None:
    quiet = replace(GUARDED, findings=())
    (line,) = rows(report_to_csv(build_report(FACTS, [quiet], WORLD, Options())))
    assert (line["guarded"], line["finding"], line["remedy"]) == ("yes", "", "")


def test_shared_csv_hides_small_counts() -> None:
    lines = rows(report_to_csv(build_report(FACTS, SERVERS, WORLD, Options(shared=True, addresses=False))))
    assert {each["records"] for each in lines if each["country"] == "FR"} == {"<5"}


def test_csv_cells_are_no_formulas() -> None:
    server = leaking("192.0.2.1", "DE", counts(9, personal=3, patients=5), site='=HYPERLINK("x")')
    lines = rows(report_to_csv(build_report(FACTS, [server], WORLD, Options())))
    assert {each["site"] for each in lines} == {'\'=HYPERLINK("x")'}


def test_csv_of_nothing_is_its_head() -> None:
    assert report_to_csv(build_report(RunFacts(), (), WORLD, Options())).strip() == ",".join(COLUMNS)
    assert set(COUNT_NAMES) <= set(COLUMNS)
