"""`dicomward audit`: what it prints, how it exits, and that each use is itself on record."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomward.audit.chain import Record
from dicomward.audit.encode_json import decode_event
from dicomward.audit.event import AssociationAllowed, AssociationDenied, AuditAccessed, OperationDenied
from dicomward.audit.search import Query
from dicomward.cli import audit
from dicomward.cli.audit_common import parse_moment
from dicomward.cli.main import main
from dicomward.io.audit.log import append_offline
from dicomward.io.audit.read import find_records, segment_path
from dicomward.io.audit.store import AuditStore
from dicomward.io.control import ControlServer
from dicomward.vocab.reason import ReasonCode
from tests.io.audit_helpers import records_of, story_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A gateway directory with three records in its log."""
    (tmp_path / "dicomward.toml").write_text("")
    for event in (
        AssociationAllowed(device="CT1", association="a1", address="10.1.2.3"),
        OperationDenied(device="CT1", association="a1", reason=ReasonCode.NO_MATCHING_RULE, detail="two words"),
        AssociationDenied(device="WS7", reason=ReasonCode.NETWORK_NOT_ALLOWED, calling_ae_title="WS7"),
    ):
        append_offline(tmp_path / "audit", event)
    return tmp_path


@pytest.fixture
def run_audit(site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SUDO_USER", "anna")

    def run_command(*arguments: object) -> tuple[int, str, str]:
        where = () if "--directory" in arguments else ("--config", str(site / "dicomward.toml"))
        capsys.readouterr()
        code = main(["audit", *map(str, arguments), *where])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command


def codes(output: str) -> list[str]:
    return [line.split()[2] for line in output.splitlines()]


# --- search -----------------------------------------------------------------------------------------------------------


def test_search_prints_a_line_for_each_record(run_audit: Run) -> None:
    code, out, err = run_audit("search")
    assert (code, err) == (0, "")
    first, second, third = out.splitlines()
    assert first.split()[1:] == ["1", "DW-ASSOC-ALLOW", "address=10.1.2.3", "association=a1", "device=CT1"]
    assert second.endswith('DW-OP-DENY association=a1 detail="two words" device=CT1 reason=no-matching-rule')
    assert third.endswith("DW-ASSOC-DENY calling_ae_title=WS7 device=WS7 reason=network-not-allowed")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--device", "CT1"], ["DW-ASSOC-ALLOW", "DW-OP-DENY"]),
        (["--reason", "no-matching-rule"], ["DW-OP-DENY"]),
        (["--code", "DW-ASSOC-DENY"], ["DW-ASSOC-DENY"]),
        (["--association", "a1", "--address", "10.0.0.0/8"], ["DW-ASSOC-ALLOW"]),
        (["--archive", "pacs"], []),
        (["--aet", "WS7"], ["DW-ASSOC-DENY"]),
        (["--text", "TWO WORDS"], ["DW-OP-DENY"]),
        (["--since", "1h"], ["DW-ASSOC-ALLOW", "DW-OP-DENY", "DW-ASSOC-DENY"]),
        (["--until", "1h"], []),
        (["--since", "2999-01-01"], []),
        (["--limit", "2"], ["DW-OP-DENY", "DW-ASSOC-DENY"]),
    ],
)
def test_search_finds(run_audit: Run, arguments: list[str], expected: list[str]) -> None:
    code, out, err = run_audit("search", *arguments)
    assert (code, codes(out), err) == (0, expected, "")


def test_search_prints_json(run_audit: Run, site: Path) -> None:
    code, out, _ = run_audit("search", "--json", "--reason", "no-matching-rule")
    record = records_of(site / "audit")[1]
    assert code == 0
    assert json.loads(out) == {
        "seq": 2,
        "time": record.time,
        "prev": record.prev,
        "hash": record.hash,
        "code": "DW-OP-DENY",
        "device": "CT1",
        "association": "a1",
        "reason": "no-matching-rule",
        "detail": "two words",
    }


def test_search_masks_what_is_not_public(run_audit: Run) -> None:
    _, out, _ = run_audit("search", "--redact")
    assert "10.1.2.3" not in out
    assert "two words" not in out
    assert "address=(masked)" in out
    assert "reason=no-matching-rule" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", "ten"], "does not appear to be an IPv4 or IPv6 network"),
        (["--since", "yesterday"], "'yesterday' isn't a time: write 2026-01-31T14:00, or 2h for two hours ago"),
        (["--limit", "0"], "isn't a whole number above zero"),
        (["--limit", "few"], "isn't a whole number above zero"),
        (["--operator", ""], "the operator's name must have"),
    ],
)
def test_a_wrong_argument_is_a_usage_error_and_not_on_record(
    run_audit: Run, site: Path, arguments: list[str], message: str
) -> None:
    code, out, err = run_audit("search", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(records_of(site / "audit")) == 3


def test_damage_is_told_and_fails_the_command(run_audit: Run, site: Path) -> None:
    path = segment_path(site / "audit", 1)
    path.write_bytes(path.read_bytes().replace(b"two words", b"two wards"))
    code, out, err = run_audit("search")
    assert (code, codes(out)) == (1, ["DW-ASSOC-ALLOW", "DW-ASSOC-DENY"])
    assert "damaged: audit-000000000001.jsonl:2: the record doesn't match its own hash" in err
    assert "run `dicomward audit verify`" in err


def test_a_log_that_is_not_there_is_refused(run_audit: Run, tmp_path: Path) -> None:
    code, _, err = run_audit("search", "--directory", tmp_path / "missing")
    assert code == 1
    assert "there is no audit log in" in err


# --- the use itself ---------------------------------------------------------------------------------------------------


def test_each_use_is_on_record(run_audit: Run, site: Path) -> None:
    run_audit("search", "--device", "CT1", "--text", "x y")
    run_audit("verify", "--operator", "berta")
    run_audit("tail")
    used = [decode_event(each.members) for each in records_of(site / "audit")[3:]]
    assert used == [
        AuditAccessed(operator="anna", action="audit search", count=0, detail="device=CT1 text=x y"),
        AuditAccessed(operator="berta", action="audit verify", count=4),
        AuditAccessed(operator="anna", action="audit tail", count=5),
    ]


def test_reading_a_copy_writes_nothing(run_audit: Run, site: Path) -> None:
    before = sorted((each.name, each.read_bytes()) for each in (site / "audit").iterdir())
    for command in ("search", "tail", "verify"):
        code, _, _ = run_audit(command, "--directory", site / "audit")
        assert code == 0
    assert sorted((each.name, each.read_bytes()) for each in (site / "audit").iterdir()) == before


@pytest.fixture
def writer(site: Path) -> Iterator[AuditStore]:
    """A gateway that holds the log."""
    store = AuditStore(site / "audit")
    store.open()
    yield store
    store.close()


def test_while_a_gateway_writes_it_records_the_use(run_audit: Run, site: Path, writer: AuditStore) -> None:
    heard: list[dict[str, object]] = []

    def handle(request: dict[str, object]) -> dict[str, object]:
        heard.append(request)
        return {"ok": True}

    from dicomward.settings import load_settings

    state_directory = load_settings(site / "dicomward.toml").gateway.state_directory
    state_directory.mkdir(parents=True, exist_ok=True)
    server = ControlServer(state_directory, handle)
    server.start()
    try:
        code, out, err = run_audit("search", "--device", "CT1")
    finally:
        server.stop()
    assert (code, len(out.splitlines()), err) == (0, 2, "")
    (request,) = heard
    assert request["do"] == "audit-accessed"
    members = request["audit"]
    assert isinstance(members, dict)
    assert decode_event(members) == AuditAccessed(operator="anna", action="audit search", count=2, detail="device=CT1")


@pytest.mark.parametrize(
    ("answer", "why"),
    [({"ok": False, "error": "not now"}, "not now"), ({"ok": "yes"}, "None"), (None, "no gateway answered")],
)
def test_a_use_that_the_gateway_does_not_record_is_told(
    run_audit: Run, writer: AuditStore, monkeypatch: pytest.MonkeyPatch, answer: dict[str, object] | None, why: str
) -> None:
    monkeypatch.setattr("dicomward.io.control.call", lambda *_: answer)
    code, _, err = run_audit("search")
    assert code == 0
    assert f"this use of the audit log could not be recorded: {why}" in err


def test_a_gateway_that_hangs_does_not_keep_the_answer_back(
    run_audit: Run, writer: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomward.io.control import ControlError

    def hang(*_: object) -> None:
        raise ControlError("timed out")

    monkeypatch.setattr("dicomward.io.control.call", hang)
    code, out, err = run_audit("verify")
    assert (code, out.splitlines()[-1]) == (0, "good")
    assert "could not be recorded: timed out" in err


def test_a_log_that_may_only_be_read_can_be_read(run_audit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from dicomward.io.audit.log import AuditLogError

    def refuse(*_: object) -> None:
        raise AuditLogError("the audit record could not be written")

    monkeypatch.setattr("dicomward.io.audit.log.append_offline", refuse)
    code, out, err = run_audit("search")
    assert (code, len(out.splitlines())) == (0, 3)
    assert "could not be recorded: the audit record could not be written" in err


def test_a_use_is_on_record_also_if_it_was_interrupted(
    run_audit: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("dicomward.audit.search.format_record", interrupt)
    assert run_audit("search")[0] == 1
    assert story_of(site / "audit")[3:] == ["DW-AUDIT-ACCESS"]


# --- tail -------------------------------------------------------------------------------------------------------------


def test_tail_prints_the_newest(run_audit: Run) -> None:
    code, out, _ = run_audit("tail", "-n", 2)
    assert (code, codes(out)) == (0, ["DW-OP-DENY", "DW-ASSOC-DENY"])


def test_tail_follows_until_it_is_interrupted(run_audit: Run, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def pause() -> bool:
        steps.append("pause")
        if len(steps) == 1:
            append_offline(site / "audit", AssociationAllowed(device="MR2"))
            path = segment_path(site / "audit", 1)
            path.write_bytes(path.read_bytes() + b"damaged\n")
        if len(steps) == 3:
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(audit, "_pause", pause)
    code, out, err = run_audit("tail", "--follow", "-n", 1)
    assert code == 0
    # What the command itself put on record is new as well.
    assert codes(out) == ["DW-ASSOC-DENY", "DW-AUDIT-ACCESS", "DW-ASSOC-ALLOW"]
    assert "damaged: the line doesn't end in its hash" in err


def test_a_record_that_comes_while_the_newest_are_read_is_printed_once(
    run_audit: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append_and_find(directory: Path, query: Query, limit: int | None) -> Iterator[Record | str]:
        append_offline(directory, AssociationAllowed(device="MR2"))
        return find_records(directory, query, limit)

    goes_on = iter([True, False])
    monkeypatch.setattr("dicomward.io.audit.read.find_records", append_and_find)
    monkeypatch.setattr(audit, "_pause", lambda: next(goes_on))
    code, out, _ = run_audit("tail", "--follow", "-n", 1)
    assert (code, codes(out)) == (0, ["DW-ASSOC-ALLOW", "DW-AUDIT-ACCESS"])


def test_following_an_empty_directory_ends_when_it_is_told(
    run_audit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(audit, "_pause", lambda: False)
    assert run_audit("tail", "-f", "--directory", tmp_path / "empty") == (0, "", "")


def test_the_pause_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_FOLLOW_SECONDS", 0.0)
    assert audit._pause()


# --- verify -----------------------------------------------------------------------------------------------------------


def test_verify_says_that_all_is_well(run_audit: Run, site: Path) -> None:
    code, out, err = run_audit("verify")
    last = records_of(site / "audit")[2]
    assert (code, err) == (0, "")
    first, second, third = out.splitlines()
    assert first == f"records: 1 to 3 (segments: 1); the last one has the hash {last.hash}"
    assert second.startswith("checkpoints: 4, the newest good one for record 3; key ")
    assert third == "good"


def test_verify_names_the_first_bad_record_and_leaves_the_log_as_it_is(run_audit: Run, site: Path) -> None:
    path = segment_path(site / "audit", 1)
    path.write_bytes(path.read_bytes().replace(b"two words", b"two wards"))
    before = path.read_bytes()
    code, out, err = run_audit("verify")
    assert code == 1
    assert (
        "BAD bad-record: record 2 (audit-000000000001.jsonl:2): record 2: the record doesn't match its own hash" in out
    )
    assert out.splitlines()[-1].startswith("NOT GOOD")
    assert "this use isn't recorded" in err
    assert path.read_bytes() == before


def test_verify_prints_json(run_audit: Run, site: Path) -> None:
    code, out, _ = run_audit("verify", "--json")
    report = json.loads(out)
    assert (code, report["ok"], report["records"], report["signed"], report["findings"]) == (0, True, 3, 3, [])
    path = segment_path(site / "audit", 1)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]) + b"torn")
    code, out, _ = run_audit("verify", "--json")
    report = json.loads(out)
    (finding,) = report["findings"]
    assert (code, report["ok"], report["last"], report["incomplete_bytes"]) == (1, False, 2, 4)
    assert (finding["problem"], finding["seq"], finding["place"]) == ("cut-tail", 3, "checkpoints")


def test_verify_tells_of_a_torn_end(run_audit: Run, site: Path) -> None:
    path = segment_path(site / "audit", 1)
    path.write_bytes(path.read_bytes() + b"torn")
    code, out, _ = run_audit("verify")
    assert code == 0
    assert "4 bytes at the end: a record being written, or torn by a crash" in out
    assert "DW-AUDIT-LOST audit-record-torn" in story_of(site / "audit")


def test_verify_tells_of_missing_checkpoints(run_audit: Run, site: Path) -> None:
    (site / "audit" / "checkpoints.jsonl").unlink()
    segment_path(site / "audit", 1).unlink()
    code, out, _ = run_audit("verify")
    assert code == 1
    assert "records: none" in out
    assert "BAD no-checkpoint: checkpoints (checkpoints): there is no checkpoint" in out


def test_verify_against_copies(run_audit: Run, site: Path, tmp_path: Path) -> None:
    for name in ("checkpoints.jsonl", "checkpoint.pub"):
        (tmp_path / name).write_bytes((site / "audit" / name).read_bytes())
    copies = ("--against", tmp_path / "checkpoints.jsonl", "--public-key", tmp_path / "checkpoint.pub")
    assert run_audit("verify", *copies)[0] == 0
    (tmp_path / "checkpoints.jsonl").write_bytes(b"another\n")
    code, out, _ = run_audit("verify", *copies)
    assert code == 1
    assert "BAD withdrawn: checkpoints" in out


def test_verify_with_a_key_that_is_none(run_audit: Run, site: Path) -> None:
    (site / "audit" / "checkpoint.pub").write_bytes(b"x")
    code, _, err = run_audit("verify")
    assert code == 1
    assert "isn't a public key in PEM" in err


def test_verify_of_an_archived_start(run_audit: Run, site: Path) -> None:
    path = segment_path(site / "audit", 1)
    rest = b"".join(path.read_bytes().splitlines(keepends=True)[1:])
    path.unlink()
    segment_path(site / "audit", 2).write_bytes(rest)
    code, out, _ = run_audit("verify")
    assert (code, "BAD missing-start: record 1" in out) == (1, True)
    code, out, _ = run_audit("verify", "--archived")
    assert (code, out.splitlines()[-1]) == (0, "good")


# --- times ------------------------------------------------------------------------------------------------------------

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("45s", "2026-01-31T11:59:15.000000Z"),
        ("30m", "2026-01-31T11:30:00.000000Z"),
        ("2h", "2026-01-31T10:00:00.000000Z"),
        ("7d", "2026-01-24T12:00:00.000000Z"),
        ("1w", "2026-01-24T12:00:00.000000Z"),
        ("now", "2026-01-31T12:00:00.000000Z"),
        ("2026-01-31T14:00:00Z", "2026-01-31T14:00:00.000000Z"),
        ("2026-01-31T14:00:00.5+02:00", "2026-01-31T12:00:00.500000Z"),
    ],
)
def test_times_that_people_type(text: str, expected: str) -> None:
    assert parse_moment(text, NOON) == expected


def test_a_time_without_a_zone_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert parse_moment("2026-01-31", NOON) == "2026-01-30T23:00:00.000000Z"
        assert parse_moment("2026-07-31T14:00", NOON) == "2026-07-31T12:00:00.000000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_time_that_is_none(run_audit: Run) -> None:
    for text in ("", "2026-13-01", "h", "1y", "12345678d"):
        with pytest.raises(ValueError, match="isn't a time"):
            parse_moment(text, NOON)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--code", "DW-ASOC-DENY", "no event has the code 'DW-ASOC-DENY'; did you mean 'DW-ASSOC-DENY'?"),
        ("--code", "", "no event has the code ''; the known ones are DW-"),
        ("--reason", "no-maching-rule", "there is no reason 'no-maching-rule'; did you mean 'no-matching-rule'?"),
        ("--operation", "c-fnd", "'c-fnd' is not an operation; did you mean 'c-find'?"),
    ],
)
def test_a_misspelt_code_is_no_empty_answer(run_audit: Run, option: str, value: str, message: str) -> None:
    for command in ("search", "export"):
        code, out, err = run_audit(command, option, value)
        assert (code, out) == (2, "")
        assert message in err


def test_a_span_that_holds_no_time_is_a_usage_error(run_audit: Run) -> None:
    code, out, err = run_audit("search", "--since", "2026-02-01", "--until", "2026-01-31")
    assert (code, out) == (2, "")
    assert "--until 2026-01-31 is not after --since 2026-02-01" in err


@pytest.mark.parametrize(
    "words", [("--code", "dw-assoc-deny"), ("--reason", "NOT-TLS"), ("--operation", "C-MOVE"), ("--operation", "n-get")]
)
def test_codes_and_operations_may_be_written_in_either_case(run_audit: Run, words: tuple[str, str]) -> None:
    assert run_audit("search", *words)[0] == 0


@pytest.mark.parametrize("code", ["DW-OP-ALLOW", "DW-ASSOC-DENY", "DW-OBSERVED", "DW-CONN-COALESCE", "DW-LOCKDOWN"])
def test_every_code_can_be_looked_for(run_audit: Run, code: str) -> None:
    assert run_audit("search", "--code", code)[0] == 0
