"""The status file, the page for Prometheus and the alarm, with senders that do nothing."""

import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from dicomward import __version__
from dicomward.edge.queue import Waiting
from dicomward.io.edge.reverse import ReverseLine
from dicomward.io.edge.sender import Senders
from dicomward.io.edge.spool import Spool
from dicomward.io.edge.watch import STATUS_NAME, EdgeWatch
from dicomward.settings.edge import parse_edge_settings
from tests.test_settings_edge import GOOD, SPOOL


class _Committer:
    waiting, committed, problem = 1, 2, "it waits"

    def __init__(self, age: float) -> None:
        self._age = age

    def oldest(self) -> float:
        return time.time() - self._age


class _Senders:
    name = "ct1"
    problem = "no route"
    committer: _Committer | None = None
    delivered, delivered_bytes, set_aside, waiting = 3, 300, 1, 2

    def __init__(self, age: float) -> None:
        self._age = age
        self.retried: list[Waiting] | None = None

    def oldest(self) -> float:
        return time.time() - self._age

    def mark_overdue(self, before: float) -> int:
        return int(self.oldest() < before)

    def retry(self, taken_back: list[Waiting]) -> None:
        self.retried = taken_back


class _Spool:
    taken_back: list[tuple[str, Waiting]] | None = None

    def retry_if_asked(self) -> list[tuple[str, Waiting]] | None:
        return self.taken_back


def watch(tmp_path: Path, age: float, *, spool: _Spool | None = None, senders: _Senders | None = None) -> EdgeWatch:
    settings = parse_edge_settings(GOOD + SPOOL, tmp_path / "edge.toml")
    settings.state_directory.mkdir()
    return EdgeWatch(
        settings, [cast("Senders", senders or _Senders(age))], {}, cast("Spool", spool or _Spool()), {}, {}
    )


def test_alarm_is_raised_for_what_is_overdue_and_told_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watching = watch(tmp_path, 16 * 60)
    with caplog.at_level(logging.ERROR):
        watching._look()
        watching._look()
    assert [record.getMessage()[:29] for record in caplog.records] == ["ALARM ct1: 2 objects wait (0 "]
    assert watching.devices()["ct1"]["alarm"] is True
    status = json.loads((tmp_path / "state" / STATUS_NAME).read_text("utf-8"))
    assert status["devices"]["ct1"]["upstream"] == "no route"
    assert status["version"] == __version__


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
    assert 'dicomward_edge_uncommitted{device="ct1"} 0\n' in text
    assert text.count("# TYPE ") == 14


def test_what_is_overdue_is_counted(tmp_path: Path) -> None:
    watching = watch(tmp_path, 16 * 60)
    watching._quarantine()
    assert watching.devices()["ct1"]["overdue"] == 1


def test_what_is_not_committed_to_alarms_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    senders = _Senders(0.0)
    senders.problem, senders.committer = "", _Committer(16 * 60)
    watching = watch(tmp_path, 0.0, senders=senders)
    watching._look()
    assert [record.getMessage() for record in caplog.records] == [
        "ALARM ct1 (commitment): 1 objects are stored and not committed to, the oldest for 960 s: it waits"
    ]
    told = watching.devices()["ct1"]
    assert (told["committed"], told["uncommitted"], told["commitment"]) == (2, 1, "it waits")
    assert told["alarm"] is True


def test_operators_wish_reaches_the_device_that_it_is_about(tmp_path: Path) -> None:
    spool, senders = _Spool(), _Senders(0.0)
    watching = watch(tmp_path, 0.0, spool=spool, senders=senders)
    watching._retry()
    assert senders.retried is None
    mine = Waiting(name="1", study="1", size=1, received=0.0)
    spool.taken_back = [("ct1", mine), ("ct2", replace(mine, name="2"))]
    watching._retry()
    assert senders.retried == [mine]


class _Reverse:
    def status(self) -> dict[str, object]:
        return {"parked": 2, "used": 5, "problem": "ok"}


def test_reverse_connections_are_in_the_status_and_on_the_page(tmp_path: Path) -> None:
    watching = watch(tmp_path, 1.0)
    watching._reverse = {"ct1": cast("ReverseLine", _Reverse())}
    watching._look()
    status = json.loads((tmp_path / "state" / STATUS_NAME).read_text("utf-8"))
    assert status["reverse"] == {"ct1": {"parked": 2, "used": 5, "problem": "ok"}}
    page = watching._page().text
    assert 'dicomward_edge_reverse_parked{device="ct1"} 2' in page
    assert 'dicomward_edge_reverse_used_total{device="ct1"} 5' in page
