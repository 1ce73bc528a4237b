"""docs/limits.md holds every rate and cap as it is built in, and what the peer is told."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dicomward.limits.book import TRACKED_NETWORKS
from dicomward.limits.settings import (
    LEAST_BYTES_PER_SECOND,
    ROLE_LIMITS,
    ArchiveLimits,
    DeviceLimits,
    NetworkLimits,
    StrangerLimits,
)
from dicomward.limits.tables import parse_limits
from dicomward.relay.refusals import reject_for, status_for
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode

TEXT = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")


def _section(title: str) -> str:
    """Return the text between a heading and the next one."""
    match = re.search(rf"^#+ {re.escape(title)}$\n(.*?)(?=^#+ |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert match, f"docs/limits.md has no section {title!r}"
    return match.group(1)


def _rows(section: str) -> list[tuple[str, ...]]:
    lines = (line for line in section.splitlines() if line.startswith("| `"))
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("Each device", DeviceLimits),
        ("Each network", NetworkLimits),
        ("Each archive, or device that listens", ArchiveLimits),
        ("Strangers, and keys that keep failing", StrangerLimits),
    ],
)
def test_every_limit_is_documented_with_its_default_unit_and_reason(title: str, kind: Any) -> None:
    expected = [
        (f"`{item.name}`", f"{item.default:,}", item.metadata["unit"], item.metadata["reason"]) for item in fields(kind)
    ]
    assert [row for row in _rows(_section(title)) if len(row) == 4] == expected


def test_every_built_in_number_of_a_role_is_documented() -> None:
    expected = [
        (f"`{role}`", f"`{name}`", f"{number:,}")
        for role, numbers in ROLE_LIMITS.items()
        for name, number in numbers.items()
    ]
    assert [row for row in _rows(_section("Each device")) if len(row) == 3] == expected


def test_constants_are_documented() -> None:
    assert f"{TRACKED_NETWORKS:,} networks" in _section("Each network")
    assert f"at\nleast {LEAST_BYTES_PER_SECOND:,}" in _section("How to change a number")


def test_example_can_be_read() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", _section("How to change a number"), re.DOTALL)
    settings = parse_limits(tomllib.loads(example)["limits"])
    assert settings.for_device("CT1", "modality").bytes_per_second == 250_000_000
    assert settings.for_archive("PACS").associations == 300


# --- what the peer is told -------------------------------------------------------------------------------------------

TOLD = {row[0].strip("`"): row[2] for row in _rows(_section("What the peer is told"))}
LIMIT_REASONS = (
    ReasonCode.DEVICE_ASSOCIATIONS,
    ReasonCode.NETWORK_ASSOCIATIONS,
    ReasonCode.ARCHIVE_ASSOCIATIONS,
    ReasonCode.ASSOCIATION_RATE,
    ReasonCode.OPERATION_RATE,
    ReasonCode.QUERY_RATE,
    ReasonCode.MATCHES_PER_QUERY,
    ReasonCode.BYTE_RATE,
    ReasonCode.CERTIFICATE_BACK_OFF,
    ReasonCode.ADDRESS_DELAY,
)


def test_every_reason_of_a_limit_is_documented() -> None:
    assert list(TOLD) == [reason.value for reason in LIMIT_REASONS]


@pytest.mark.parametrize(
    "reason",
    [
        ReasonCode.DEVICE_ASSOCIATIONS,
        ReasonCode.NETWORK_ASSOCIATIONS,
        ReasonCode.ARCHIVE_ASSOCIATIONS,
        ReasonCode.ASSOCIATION_RATE,
        ReasonCode.CERTIFICATE_BACK_OFF,
    ],
)
def test_reject_codes_are_those_that_are_sent(reason: ReasonCode) -> None:
    reject = reject_for(reason)
    assert f"RJ {int(reject.result)}/{int(reject.source)}/{int(reject.reason)}" in TOLD[reason]


@pytest.mark.parametrize(
    ("reason", "operation", "documented"),
    [
        (ReasonCode.OPERATION_RATE, Operation.C_STORE, "C-STORE {}"),
        (ReasonCode.OPERATION_RATE, Operation.C_MOVE, "C-MOVE and C-GET {}"),
        (ReasonCode.OPERATION_RATE, Operation.C_GET, "C-MOVE and C-GET {}"),
        (ReasonCode.OPERATION_RATE, Operation.C_ECHO, "others {}"),
        (ReasonCode.OPERATION_RATE, Operation.N_CREATE, "others {}"),
        (ReasonCode.QUERY_RATE, Operation.C_FIND, "C-FIND {}"),
        (ReasonCode.MATCHES_PER_QUERY, Operation.C_FIND, "C-FIND {}"),
    ],
)
def test_status_codes_are_those_that_are_sent(reason: ReasonCode, operation: Operation, documented: str) -> None:
    assert documented.format(f"{int(status_for(operation, reason)):04X}") in TOLD[reason]
