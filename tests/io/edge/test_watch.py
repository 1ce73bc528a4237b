"""The status file, the page for Prometheus and the alarm, with senders that do nothing."""

import json
import logging
import time
from pathlib import Path
from typing import cast

import pytest

from dicomward.io.edge.sender import Senders
from dicomward.io.edge.watch import STATUS_NAME, EdgeWatch
from dicomward.settings.edge import parse_edge_settings
from tests.test_settings_edge import GOOD, SPOOL


class _Senders:
    name = "ct1"
    problem = "no route"
    delivered, delivered_bytes, set_aside, waiting = 3, 300, 1, 2

    def __init__(self, age: float) -> None:
        self._age = age

    def oldest(self) -> float:
        return time.time() - self._age


def watch(tmp_path: Path, age: float) -> EdgeWatch:
    settings = parse_edge_settings(GOOD + SPOOL, tmp_path / "edge.toml")
    settings.state_directory.mkdir()
    return EdgeWatch(settings, [cast("Senders", _Senders(age))], {})


def test_alarm_is_raised_for_what_is_overdue_and_told_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watching = watch(tmp_path, 16 * 60)
    with caplog.at_level(logging.ERROR):
        watching._look()
        watching._look()
    assert [record.getMessage()[:29] for record in caplog.records] == ["ALARM ct1: 2 objects wait, th"]
    assert watching.devices()["ct1"]["alarm"] is True
    status = json.loads((tmp_path / "state" / STATUS_NAME).read_text("utf-8"))
    assert status["devices"]["ct1"]["upstream"] == "no route"


def test_no_alarm_for_what_is_young(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watching = watch(tmp_path, 14 * 60)
    watching._look()
    assert not caplog.records
    assert watching.devices()["ct1"]["alarm"] is False


def test_page_has_each_number_of_each_device(tmp_path: Path) -> None:
    text = watch(tmp_path, 60)._page().text
    assert 'dicomward_edge_delivered_total{device="ct1"} 3\n' in text
    assert 'dicomward_edge_waiting{device="ct1"} 2\n' in text
    assert 'dicomward_edge_alarm{device="ct1"} 0\n' in text
    assert text.count("# TYPE ") == 6
