"""Heads to a file, the alarm of the disk, retention: what the keeper does when it looks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.audit.chain import decode_checkpoint
from dicomward.audit.event import AuditEvent, AuditPruned, DegradedEntered, DegradedLeft, SecurityAlert
from dicomward.audit.headroom import Headroom, HeadroomMeter
from dicomward.io.audit.log import append_offline
from dicomward.io.audit.outlets import AuditOutlets, days_before
from dicomward.io.audit.read import list_segments
from dicomward.io.tls import TlsConfigurationError
from dicomward.settings import Settings, parse_settings
from tests.io.audit_helpers import FakeClock
from tests.io.small_log import make_log


class Place:
    def __init__(self, tmp_path: Path, text: str = "") -> None:
        self.settings: Settings = parse_settings(text, path=tmp_path / "dicomward.toml")
        self.directory = self.settings.audit.directory
        self.clock = FakeClock()
        self.records: list[AuditEvent] = []
        self.is_kept = True
        self.outlets = AuditOutlets(
            self.settings, record=self.records.append, record_durably=self._durably, clock=self.clock
        )

    def _durably(self, event: AuditEvent, done: Callable[[bool], None]) -> None:
        if self.is_kept:
            append_offline(self.directory, event)
        self.records.append(event)
        done(self.is_kept)


def test_each_new_head_goes_to_the_file_once(tmp_path: Path) -> None:
    place = Place(tmp_path, '[audit]\nheads_file = "heads"\n')
    make_log(place.directory, 3)
    place.outlets.look()
    place.outlets.look()
    make_log(place.directory, 2)
    place.outlets.look()
    heads = [decode_checkpoint(line).seq for line in (tmp_path / "heads").read_bytes().splitlines()]
    assert heads == [3, 5]


def test_a_file_of_heads_that_can_not_be_written_is_an_alarm_until_it_can(tmp_path: Path) -> None:
    place = Place(tmp_path, '[audit]\nheads_file = "away/heads"\n')
    make_log(place.directory, 1)
    place.outlets.look()
    place.outlets.look()
    (tmp_path / "away").mkdir()
    place.outlets.look()
    entered, left = place.records
    assert isinstance(entered, DegradedEntered)
    assert isinstance(left, DegradedLeft)
    assert entered.component == left.component == "file of signed heads"


def test_the_disk_has_alarms_by_hours_that_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)
    make_log(place.directory, 1)
    hours = iter([None, 100.0, 100.0, 3.0, 500.0])

    def measure(_self: HeadroomMeter, **_values: object) -> Headroom:
        return Headroom(free_bytes=1000, bytes_per_hour=1.0, hours=next(hours))

    monkeypatch.setattr(HeadroomMeter, "measure", measure)
    for _ in range(5):
        place.outlets.look()
    told = [(type(each).__name__, getattr(each, "state", None)) for each in place.records]
    assert told == [
        ("DegradedEntered", "less than 168 h"),
        ("DegradedEntered", "less than 4 h"),
        ("SecurityAlert", None),
        ("DegradedLeft", "ok"),
    ]
    assert any(isinstance(each, SecurityAlert) for each in place.records)
    assert place.outlets.headroom.hours == 500.0


def test_the_disk_is_really_measured(tmp_path: Path) -> None:
    place = Place(tmp_path)
    make_log(place.directory, 1)
    place.outlets.look()
    place.clock.now += 3600
    make_log(place.directory, 5)
    place.outlets.look()
    status = place.outlets.answer_status({})
    assert status["ok"] is True
    assert isinstance(status["headroom_hours"], float)
    assert status["destinations"] == []


def test_retention_prunes_and_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path, "[audit]\nretention_days = 1\n")
    made = make_log(place.directory, 12)
    count = len(list_segments(place.directory))
    place.clock.now = made.now + 2 * 86_400
    place.outlets.look()
    assert len(list_segments(place.directory)) < count
    assert any(isinstance(each, AuditPruned) and each.action == "retention" for each in place.records)
    place.records.clear()
    place.outlets.look()
    assert place.records == []


def test_the_command_prunes_through_the_gateway(tmp_path: Path) -> None:
    place = Place(tmp_path)
    made = make_log(place.directory, 12)
    place.clock.now = made.now + 2 * 86_400
    assert place.outlets.answer_prune({"days": 0})["ok"] is False
    place.is_kept = False
    assert "could not be written" in str(place.outlets.answer_prune({"days": 1})["error"])
    place.is_kept = True
    answer = place.outlets.answer_prune({"days": 1, "audit": {"operator": "anna"}})
    assert answer["ok"] is True
    assert isinstance(place.records[-1], AuditPruned)
    assert place.records[-1].operator == "anna"


def test_a_destination_whose_files_are_missing_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(TlsConfigurationError, match="must be readable PEM files"):
        Place(tmp_path, '[audit.syslog]\naddress = "h:1"\nca = "none.pem"\n')


def test_start_and_stop_write_the_newest_head(tmp_path: Path) -> None:
    place = Place(tmp_path, '[audit]\nheads_file = "heads"\n')
    make_log(place.directory, 2)
    place.outlets.start()
    place.outlets.divert([("t", {"code": "DW-GW-START"})])
    make_log(place.directory, 2)
    place.outlets.stop()
    last = (tmp_path / "heads").read_bytes().splitlines()[-1]
    assert decode_checkpoint(last).seq == 4


def test_days_before() -> None:
    assert days_before(1_769_900_000_000_000_000, 1.5) == "2026-01-30T10:53:20.000000Z"
    assert replace(Headroom(1, 1.0, None), hours=2.0).hours == 2.0
