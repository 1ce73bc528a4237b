"""The documents are true: commands, options, codes, numbers, tests and pages that they name exist and say the same."""

import argparse
import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from dicomward import __version__
from dicomward.assess.count_limits import CountLimits
from dicomward.assess.scope import Pace
from dicomward.audit.event import EVENT_CLASS_BY_CODE
from dicomward.audit.strangers import CoalescingLimits
from dicomward.cli.main import COMMANDS, build_parser, join_command
from dicomward.dicom import dimse, head, nesting, proxy_protocol
from dicomward.dicom.limits import Limits
from dicomward.edge import commitment as edge_commitment
from dicomward.enrolment import upkeep as enrolment_upkeep
from dicomward.io import control, logs, tls
from dicomward.io.audit.engine import EngineLimits
from dicomward.io.audit.log import AuditLogLimits
from dicomward.io.audit.store import RESERVE_BYTES
from dicomward.io.ca import local as local_ca
from dicomward.io.edge import committer as edge_committer
from dicomward.io.edge import front as edge_front
from dicomward.io.edge import report_front as edge_report_front
from dicomward.io.edge import report_scp as edge_report_scp
from dicomward.io.edge import scp as edge_scp
from dicomward.io.edge import spool as edge_spool
from dicomward.io.edge import waiting_room as edge_waiting_room
from dicomward.io.gateway import correlations, gate, session, wire
from dicomward.io.gateway import server as gateway
from dicomward.io.people import ldap as person_ldap
from dicomward.io.people import verifier as person_verifier
from dicomward.io.registry import change as registry_change
from dicomward.io.system import select_poll
from dicomward.limits import people
from dicomward.limits.budget_settings import DeviceBudgets
from dicomward.limits.settings import ArchiveLimits, DeviceLimits, NetworkLimits, StrangerLimits
from dicomward.relay import negotiation, relay
from dicomward.relay.refusals import reject_for, status_for
from dicomward.settings import SECTIONS, GatewaySettings, TlsSettings
from dicomward.settings.edge import BandwidthRule, EdgeSettings, SpoolSettings
from dicomward.vocab.ae_title import AE_TITLE_BYTES
from dicomward.vocab.association import AbortReason
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import OPERATIONS_OF_SERVICE, SERVICE_OF_SOP_CLASS, Service, is_clinical_floor
from dicomward.vocab.uid import APPLICATION_CONTEXT, UID_BYTES
from tests.docs.pages import DOCS, README, ROOT, blocks_of, pages, read, rows_of, section_of

PAGES: Final = pages()
NAMES: Final = [str(page.relative_to(ROOT)) for page in PAGES]
INLINE: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FENCED: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def inline_code(page: Path) -> list[str]:
    """Return what stands in `code` in the running text."""
    return INLINE.findall(FENCED.sub("", page.read_text(encoding="utf-8")))


# --- commands --------------------------------------------------------------------------------------------------------


@cache
def _actions(command: str) -> dict[str, set[str]]:
    """Return the options of each action of a command; of the command itself under ""."""
    known: dict[str, set[str]] = {}
    for action in build_parser(command)._actions:
        if isinstance(action, argparse._SubParsersAction):
            _collect(action.choices[command], "", known)
    return known


def _collect(parser: argparse.ArgumentParser, name: str, known: dict[str, set[str]]) -> None:
    known[name] = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child, its_parser in action.choices.items():
                _collect(its_parser, child, known)


def mistake_in(text: str) -> str | None:
    """Return what is wrong with a command as a page writes it, after the word dicomward."""
    words = join_command(shlex.split(text.rstrip("\\&")))
    if not words or words[0].startswith("-"):
        return None if not words or words[0] in ("--help", "--version", "-h") else f"no option {words[0]}"
    if words[0] not in COMMANDS:
        return None if words[0].isupper() else f"no command {words[0]!r}"
    known = _actions(words[0])
    action = ""
    if len(known) > 1 and len(words) > 1:
        action = words[1]
        if action not in known:
            return f"{words[0]} has no {action!r}"
    for word in words[1:]:
        option = word.partition("=")[0]
        if option.startswith("-") and option not in known[action]:
            return f"{words[0]} {action} has no {option}"
    return None


def commands_in(page: Path) -> Iterator[str]:
    """Yield each command of ours on a page, without the word dicomward."""
    text = page.read_text(encoding="utf-8")
    for code in inline_code(page):
        first, _, rest = code.partition(" ")
        if first == "dicomward":
            yield rest
        elif first in ("device", "archive", "policy", "audit") and rest and re.match(r"[a-z]+\b", rest):
            # "`device suspend` and `revoke`": the word dicomward is often left out.
            yield code
    for block in (*blocks_of(text, "console"), *blocks_of(text, "sh")):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.removeprefix("$ ").split("2>")[0].split("#")[0].strip()
            if words.startswith("dicomward "):
                yield words.removeprefix("dicomward ")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_and_option_exists(page: Path) -> None:
    mistakes = {text: wrong for text in commands_in(page) if (wrong := mistake_in(text)) is not None}
    assert not mistakes


def test_wrong_commands_would_be_found() -> None:
    assert mistake_in("devise list") == "no command 'devise'"
    assert mistake_in("device remove ct1") == "device has no 'remove'"
    assert mistake_in("device add ct1 --ip 10.0.0.1") == "device add has no --ip"
    assert mistake_in("echo HOST PORT -aet X --plain") is None


def test_every_command_is_on_the_readme_or_the_command_page() -> None:
    assert all(f"`dicomward {command}" in read("cli.md") for command in COMMANDS)
    for command in ("init", "gateway", "check-config", "device", "policy", "audit", "echo", "renew-gateway"):
        assert f"dicomward {command}" in README


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = {code.split()[1] for code in inline_code(page) if re.match(r"make [a-z]", code)}
    named |= set(re.findall(r"^make ([a-z-]+)", "\n".join(blocks_of(text, "sh")), re.MULTILINE))
    assert named <= targets


# --- pages -----------------------------------------------------------------------------------------------------------


def test_check_docs_passes() -> None:
    """Links, anchors, reason codes, paths of one machine."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "check_docs.py"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout


def test_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)", README))
    wanted = {f"docs/{page.name}" for page in DOCS.glob("*.md")}
    wanted |= {page.name for page in ROOT.glob("*.md")} - {"README.md"}
    assert wanted <= linked
    assert any(name.startswith("docs/adr/") for name in linked)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_test_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        file = ROOT / path
        assert file.is_file(), path
        if name:
            assert name in _functions_of(file), f"{path}::{name}"
    for name in re.findall(r"`test_patient_safety\.py::(\w+)`", text):
        assert name in _functions_of(ROOT / "tests" / "docs" / "test_patient_safety.py"), name


@cache
def _functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_event_code_exists(page: Path) -> None:
    named = set(re.findall(r"\bDW-[A-Z]+(?:-[A-Z]+)*\b", page.read_text(encoding="utf-8")))
    assert named <= set(EVENT_CLASS_BY_CODE)


def test_every_setting_or_limit_that_is_named_exists() -> None:
    known = {item.name for kind in (*SECTIONS.values(), Limits) for item in fields(kind)}
    known |= {
        i.name
        for kind in (DeviceLimits, NetworkLimits, ArchiveLimits, StrangerLimits, DeviceBudgets)
        for i in fields(kind)
    }
    known |= {
        item.name for kind in (AuditLogLimits, EngineLimits, CoalescingLimits, CountLimits) for item in fields(kind)
    }
    # edge.toml has settings of its own.
    known |= {item.name for kind in (EdgeSettings, SpoolSettings, BandwidthRule) for item in fields(kind)}
    # Fields of audit records.
    known |= {item.name for kind in EVENT_CLASS_BY_CODE.values() for item in fields(kind)}
    known |= {item.name for item in fields(Pace)}
    # A metric has a name of its own: tests/io/monitoring/test_state.py knows them.
    pattern = re.compile(
        r"(?:\w+\.)?(?!dicomward_|process_)([a-z]+(?:_[a-z]+)*_(?:seconds|bytes|minute|days|pdu|associations|query|per_\w+))"
    )
    for page in PAGES:
        named = {match[1] for code in inline_code(page) if (match := pattern.fullmatch(code))}
        assert named <= known, page.name


@pytest.mark.parametrize("path", sorted((DOCS / "adr").glob("*.md")), ids=lambda path: path.stem)
def test_decision_has_every_part(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.stem[:4]}: ")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[:2] == ["Context", "Drivers"]
    assert any(heading.startswith("Options") for heading in headings)
    assert any("utcome" in heading for heading in headings)
    assert headings[-1] == "Negative consequences"
    assert "Status: " in text


def test_decisions_are_numbered_without_gaps_and_code_names_real_ones() -> None:
    numbers = sorted(path.name[:4] for path in (DOCS / "adr").glob("*.md"))
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
    for path in (ROOT / "src").rglob("*.py"):
        assert set(re.findall(r"docs/adr/(\d{4})", path.read_text(encoding="utf-8"))) <= set(numbers)


def test_changelog_names_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert __version__ in headings


def test_gateway_imports_nothing_heavy() -> None:
    """docs/adr/0007: what the gateway's start may not cost."""
    script = (
        "import sys, dicomward.cli.gateway, dicomward.app\n"
        "heavy = {'sqlalchemy', 'alembic', 'cryptography', 'pydicom', 'pynetdicom', 'asyncio', 'pydantic', 'typer'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- reason codes ----------------------------------------------------------------------------------------------------

REASONS: Final = {row[0].strip("`"): row for row in rows_of(read("reason-codes.md"))}


def test_every_reason_code_has_its_row() -> None:
    order = [reason.value for reason in ReasonCode]
    assert list(REASONS) == sorted(REASONS, key=order.index)
    assert set(REASONS) == {reason.value for reason in ReasonCode}
    assert all(len(row) == 4 and all(row) for row in REASONS.values())


@pytest.mark.parametrize("reason", list(ReasonCode), ids=str)
def test_codes_that_the_peer_is_told_are_those_that_are_sent(reason: ReasonCode) -> None:
    told = REASONS[reason][2]
    reject = reject_for(reason)
    rejects = re.findall(r"(?:RJ )?\b(\d/\d/\d)\b", told)
    if reason is ReasonCode.MALFORMED_PDU:
        # Two of its cases have codes of their own.
        assert rejects == ["1/1/2", "1/2/2"]
    elif rejects:
        assert rejects == [f"{int(reject.result)}/{int(reject.source)}/{int(reject.reason)}"]
    sent = {f"{int(status_for(operation, reason)):04X}" for operation in Operation}
    assert set(re.findall(r"\b([0-9A-F]{4})H", told)) <= sent


@pytest.mark.parametrize(("reason", "number"), [("unexpected-pdu", AbortReason.UNEXPECTED_PDU), ("limit-exceeded", 6)])
def test_abort_reasons_are_those_that_are_sent(reason: str, number: int) -> None:
    assert f"reason {int(number)}" in REASONS[reason][2]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_reason_that_a_table_names_exists(page: Path) -> None:
    """A column with the heading "reason" holds reason codes."""
    known = {reason.value for reason in ReasonCode}
    reasons = -1
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            reasons = -1
        elif "reason" in cells and "unit" not in cells and "default" not in cells:
            reasons = cells.index("reason")
        elif 0 <= reasons < len(cells):
            assert set(INLINE.findall(cells[reasons])) <= known, line


# --- limits ----------------------------------------------------------------------------------------------------------


def test_every_number_of_the_protocol_limits_is_documented() -> None:
    expected = [
        (f"`{item.name}`", f"{item.default:,}", item.metadata["reason"], f"{item.metadata['ceiling']:,}")
        for item in fields(Limits)
    ]
    assert rows_of(section_of(read("limits.md"), "Protocol sizes")) == expected


def _default(kind: Any, name: str) -> Any:
    return next(item.metadata["default"] for item in fields(kind) if item.name == name)


FIXED: Final[dict[str, float]] = {
    "least maximum length that a peer may state": negotiation.LEAST_MAXIMUM_LENGTH,
    "longest value that is kept of a head or identifier": head.MAX_VALUE_BYTES,
    "depth of sequences in a head": head.MAX_DEPTH,
    "bytes that a deflated head may grow to": head.MAX_INFLATED_BYTES,
    "characters of an AE title": AE_TITLE_BYTES,
    "characters of a UID": UID_BYTES,
    "characters of an error comment": dimse._COMMENT_CHARACTERS,
    "times that a deflated data set may grow, where its depth is looked at": nesting._MOST_INFLATION,
    "bytes of a PROXY protocol header": proxy_protocol.MAX_PROXY_HEADER_BYTES,
}
TIMES: Final[dict[str, float]] = {
    "after a handshake with a certificate that is not good": relay._UNKNOWN_SECONDS,
    "until a peer that has its last PDU must have closed": session._LINGER_SECONDS,
    "between two TCP keep-alive probes": wire._KEEP_ALIVE_SECONDS,
    "until bytes that a peer doesn't take end the connection": wire._UNREAD_MILLISECONDS / 1000,
    "bytes that may wait for a slow peer before the gateway stops reading from it": session._MOST_WAITING_BYTES,
    "connections of one address, or of one certificate, that are no association yet": gate._MOST_IN_A_ROOM,
    "all connections that are no association yet": gate.MOST_WAITING,
    "failed connections are held back only while fewer connections are open than": gate._MOST_HELD,
    "most seconds that a failed connection from a registered network is held back": gate._HOLD_REGISTERED_SECONDS,
    "connections that wait in the kernel to be accepted": gateway._BACKLOG,
    "for how long a name's address is remembered": gate._RESOLVED_SECONDS,
    "days that a pending storage commitment is kept": correlations.COMMITMENT_DAYS,
    "bytes of a command to the control socket": control._MOST_BYTES,
    "persons of all devices that wait for a verdict": person_verifier.MOST_WAITING,
    "persons of one device that wait for a verdict": person_verifier.MOST_OF_A_DEVICE,
    "for how long a directory of persons that has failed is not asked again": person_ldap.RETRY_SECONDS,
    "wrong passcodes of a person that are free": people.FREE_PERSON_FAILURES,
    "most seconds that a person waits after wrong passcodes": people.PERSON_SECONDS,
    "wrong passcodes and tokens of a device that are free": people.FREE_DEVICE_FAILURES,
    "most seconds that everybody at a device waits": people.DEVICE_SECONDS,
    "for how long a command waits for the running gateway": registry_change.ANSWER_SECONDS,
}


EDGE: Final[dict[str, float]] = {
    "associations of a device with its agent, at once": edge_front.MOST_ASSOCIATIONS,
    "objects in one request for Storage Commitment": edge_commitment.MOST_REFERENCES,
    "bytes of a report of Storage Commitment": edge_commitment.MOST_REPORT_BYTES,
    "seconds that an association listens for reports": edge_committer._REPORT_SECONDS,
    "seconds until an archive without a report is asked anew": edge_committer._ASK_AGAIN_SECONDS,
    "seconds until an archive that offers no commitment is asked again": edge_committer._NOT_OFFERED_SECONDS,
    "seconds that a device's request for a commitment waits for its objects": edge_scp.COMMITMENT_SECONDS,
    "seconds that the archive may take to accept the other services of an association": edge_scp._PASSAGE_SECONDS,
    "seconds that `edge retry` waits for a running agent": edge_spool._RETRY_SECONDS,
    "associations from the gateway to a device that spools, at once": edge_report_front.MOST_ASSOCIATIONS,
    "seconds that the agent waits for what the device says to a report": edge_report_scp._ANSWER_SECONDS,
    "associations that are rejected at once while there is no certificate": edge_waiting_room._MOST_AT_ONCE,
    "seconds until the enrolment server is asked again if the device is still welcome": enrolment_upkeep.LOOK_SECONDS,
    "most seconds between two tries after no answer": enrolment_upkeep._MOST_SECONDS,
    "seconds until a refusal is asked about again": enrolment_upkeep._REFUSED_SECONDS,
}


def _numbers(title: str) -> dict[str, str]:
    """Return the second column of a section's tables with three columns, by the first."""
    found = {}
    for line in section_of(read("limits.md"), title).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and cells[0] not in ("what", "---"):
            found[cells[0]] = cells[1]
    return found


def test_every_fixed_number_is_documented() -> None:
    assert _numbers("Protocol sizes") == {what: f"{number:,}" for what, number in FIXED.items()}


def test_every_number_of_the_edge_agent_is_documented() -> None:
    assert _numbers("Edge agent") == {what: f"{int(number):,}" for what, number in EDGE.items()}


def _constants(source: Path) -> dict[str, float]:
    """Return the numbers at the top of a file that only Windows can import."""
    found = {}
    for node in ast.parse(source.read_text()).body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, int | float):
            found[target.id] = value.value
    return found


def test_every_number_of_the_agent_on_windows_is_documented() -> None:
    windows = _constants(ROOT / "src/dicomward/io/system/windows.py")
    seconds_to_serve = _constants(ROOT / "packaging/windows/edge_service.py")["SECONDS_TO_SERVE"]
    assert f"SECONDS_TO_SERVE:-{int(seconds_to_serve)}}}" in (ROOT / "packaging/edge-update").read_text()
    assert _numbers("Edge agent on Windows") == {
        "connections that one `select` looks at": f"{select_poll._AT_ONCE:,}",
        "seconds that a file which somebody has open is tried for": f"{windows['_TRIES'] * windows['_TRY_SECONDS']:g}",
        "files of a service's log": f"{logs._OLD_FILES + 1:,}",
        "bytes of each of them": f"{logs._FILE_BYTES:,}",
        "seconds that a release has to serve (on Linux too)": f"{seconds_to_serve:g}",
    }


def test_every_time_and_connection_number_is_documented() -> None:
    found = _numbers("Connections and times")
    names = [name for name in found if name.startswith("`")]
    assert {name: found[name] for name in names} == {
        name: f"{_default(GatewaySettings, name.strip('`')):,}" for name in names
    }
    wanted = [item.name for item in fields(GatewaySettings) if item.name.endswith("_seconds")]
    assert sorted(name.strip("`") for name in names) == sorted(wanted)
    assert {what: found[what] for what in found if what not in names} == {
        what: f"{number:,g}" if number % 1 else f"{int(number):,}" for what, number in TIMES.items()
    }


def test_numbers_in_other_pages_are_those_of_the_code() -> None:
    safety, behaviour, concepts = read("patient-safety.md"), read("behaviour.md"), read("concepts.md")
    assert f"`expired_certificate_grace_days` ({_default(TlsSettings, 'expired_certificate_grace_days')})" in safety
    assert f"`upstream_connect_seconds` ({_default(GatewaySettings, 'upstream_connect_seconds')})" in safety
    assert f"reserve of {RESERVE_BYTES // 2**20} MiB" in safety
    assert f"not answered for {AuditLogLimits().stall_seconds:g} s" in safety
    assert f"up to {StrangerLimits().certificate_max_seconds / 60:g} minutes" in safety
    assert f"kept on disk for {correlations.COMMITMENT_DAYS} days" in concepts
    assert f"{relay._UNKNOWN_SECONDS:g} s to send A-ASSOCIATE-RQ" in behaviour
    assert f"below {negotiation.LEAST_MAXIMUM_LENGTH} bytes" in behaviour
    assert f"beyond {gate._MOST_IN_A_ROOM} of one address" in behaviour
    assert f"doubles up to {StrangerLimits().address_max_delay_seconds:g} s" in behaviour


# --- conformance and the clinical floor ------------------------------------------------------------------------------


def test_conformance_lists_every_service_with_its_operations() -> None:
    rows = {
        row[0].strip("`"): row[2] for row in rows_of(section_of(read("conformance.md"), "2.3 Services and operations"))
    }
    assert set(rows) == {service.value for service in Service}
    for service in Service:
        if service is not Service.OTHER:
            assert {text.strip() for text in rows[service].split(",")} == {
                operation.label.upper() for operation in OPERATIONS_OF_SERVICE[service]
            }
    assert rows["other"] == "all"
    assert OPERATIONS_OF_SERVICE[Service.OTHER] == frozenset(Operation)


def test_conformance_names_what_the_gateway_says_on_the_wire() -> None:
    text = read("conformance.md")
    limits = Limits()
    for value in (
        negotiation.IMPLEMENTATION_CLASS_UID,
        negotiation.IMPLEMENTATION_VERSION_NAME,
        APPLICATION_CONTEXT,
        f"{limits.max_pdu_bytes:,} bytes",
        f"at most {limits.max_operations_window};",
        f"up to {limits.max_pdu_tolerance_bytes} bytes longer",
        f"{local_ca.LEAF_DAYS} days",
    ):
        assert value in text
    assert __version__.startswith(re.findall(r"for Dicomward (\d+\.\d+)", text)[0])


def test_conformance_names_the_suites_that_are_on() -> None:
    (row,) = re.findall(r"^\| TLS 1\.2 suites \| (.+) \|$", read("conformance.md"), re.MULTILINE)
    suites = tls._TLS12_SUITES.split(":")
    assert len(suites) == 6
    assert all(suite.startswith("ECDHE-") for suite in suites)
    named = {"AES256-GCM-SHA384": "AES-256-GCM-SHA384", "AES128-GCM-SHA256": "AES-128-GCM-SHA256"}
    named["CHACHA20-POLY1305"] = "ChaCha20-Poly1305-SHA256"
    assert {suite.split("-", 2)[2] for suite in suites} == set(named)
    assert all(name in row for name in named.values())


def test_clinical_floor_is_the_one_of_the_code() -> None:
    table = section_of(read("patient-safety.md"), "The clinical floor")
    listed = {
        (service, operation.strip())
        for service, operations in re.findall(r"^\| ([^|]+?) \| ([CN]-[^|]+?) \|$", table, re.MULTILINE)
        for operation in operations.split(",")
    }
    words = {
        Service.VERIFICATION: "Verification",
        Service.STORAGE: "Storage, and private SOP classes",
        Service.OTHER: "Storage, and private SOP classes",
        Service.WORKLIST: "Modality Worklist",
        Service.MPPS: "Modality Performed Procedure Step",
        Service.STORAGE_COMMITMENT: "Storage Commitment",
    }
    classes = {service: uid for uid, service in SERVICE_OF_SOP_CLASS.items()} | {Service.OTHER: "1.2.3.4"}
    floor = {
        (words[service], operation.label.upper())
        for service, uid in classes.items()
        for operation in Operation
        if is_clinical_floor(operation, uid)
    }
    assert listed == floor
