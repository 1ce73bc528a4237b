"""docs/audit.md says what the code does: every code, field, finding and number."""

import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from dicomward.audit.chain import MAX_RECORD_BYTES, decode_record
from dicomward.audit.encode_json import MAX_ITEMS
from dicomward.audit.event import EVENT_CLASSES
from dicomward.audit.fields import FIELD_RULES
from dicomward.audit.strangers import CoalescingLimits
from dicomward.audit.verify import Problem
from dicomward.io.audit.engine import EngineLimits
from dicomward.io.audit.log import AuditLogLimits, append_offline
from dicomward.io.audit.read import segment_path
from dicomward.vocab.reason import ReasonCode
from tests.io.audit_helpers import event

TEXT = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The rows of the first table after a heading, without backquotes."""
    section = TEXT.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in table[2:]]


def test_every_event_is_documented() -> None:
    assert [row[:2] for row in rows("Events")] == [[each.code, each.__name__] for each in EVENT_CLASSES]


def test_every_field_is_documented_with_its_kind_and_class() -> None:
    documented = {row[0]: (row[1], row[2]) for row in rows("Fields")}
    assert documented == {name: (rule.kind, rule.classification) for name, rule in FIELD_RULES.items()}


def test_the_bounds_of_texts_are_documented() -> None:
    assert f"{FIELD_RULES['detail'].max_characters:,} characters" in TEXT
    assert f"every other text {FIELD_RULES['device'].max_characters}, a list {MAX_ITEMS} items" in TEXT


def test_every_finding_of_verify_is_documented() -> None:
    documented = {name.strip() for row in rows("What `verify` proves") for name in row[0].split(",")}
    assert documented == set(Problem)


def test_every_degraded_state_is_documented() -> None:
    documented = {row[0].split(",")[0] for row in rows("When the log can't be written")}
    assert documented == {
        ReasonCode.AUDIT_DISK_FULL,
        ReasonCode.AUDIT_WRITE_FAILED,
        ReasonCode.AUDIT_STALLED,
        ReasonCode.AUDIT_KEY_UNUSABLE,
    }


def test_every_number_is_documented() -> None:
    numbers = {"longest record": float(MAX_RECORD_BYTES)}
    for limits in (AuditLogLimits(), EngineLimits(), CoalescingLimits()):
        for each in fields(limits):
            value = getattr(limits, each.name)
            if isinstance(value, int | float):
                numbers[each.name] = float(value)
    assert {row[0]: float(row[1].replace(",", "")) for row in rows("Numbers")} == numbers


def test_the_command_that_checks_a_line_without_our_software(tmp_path: Path) -> None:
    append_offline(tmp_path, event('a "quoted" text'))
    found = re.search(r"```sh\n(.*?)\n```", TEXT, re.DOTALL)
    assert found is not None
    done = subprocess.run(["sh", "-c", found[1]], cwd=tmp_path, capture_output=True, text=True, check=True)
    line = segment_path(tmp_path, 1).read_bytes().splitlines()[0]
    assert done.stdout.split()[0] == decode_record(line).hash


@pytest.mark.parametrize("option", ["--archived", "--against", "--public-key", "--redact", "--directory", "--follow"])
def test_the_options_that_it_names_exist(option: str) -> None:
    import argparse

    from dicomward.cli.audit import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    (actions,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    assert any(option in child.format_help() for child in actions.choices.values())
    assert option in TEXT
