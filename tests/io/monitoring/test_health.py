"""Archives are asked if they are there; two answers in a row decide."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.audit.event import AuditEvent, DegradedEntered, DegradedLeft
from dicomward.identity.registry import Archive, Endpoint, RegistrySnapshot
from dicomward.io.echo import EchoFailed, EchoRejected
from dicomward.io.monitoring.health import ArchiveHealth, Check, HealthSettings, ask_archive, health_settings
from dicomward.settings import parse_settings
from tests.io.world import SECONDS, archive_at, raw_archive, running

PACS = archive_at(Endpoint(host="127.0.0.1", port=104))
REPLICA = replace(PACS, name="replica", replica_of="pacs")
ALONE = replace(PACS, name="alone", ae_title="ALONE", called_ae_titles=("ALONE",))


class Here:
    """Archives that answer, or do not, as a test says."""

    def __init__(self) -> None:
        self.registry = RegistrySnapshot(devices=(), archives=(PACS, REPLICA, ALONE), revision=1)
        self.settings = HealthSettings(interval=3600.0, timeout=1.0, check=Check.REPLICAS)
        self.problems: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.events: list[AuditEvent] = []
        self.changed = threading.Condition()
        self.health = ArchiveHealth(
            registry=lambda: self.registry,
            settings=lambda: self.settings,
            ask=self.ask,
            record=self.events.append,
        )

    def ask(self, archive: Archive, timeout: float) -> None:
        assert timeout == self.settings.timeout
        with self.changed:
            self.asked.append(archive.name)
            self.changed.notify_all()
        if archive.name in self.problems:
            raise self.problems[archive.name]

    def wait(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, SECONDS)


@pytest.fixture
def here() -> Iterator[Here]:
    made = Here()
    yield made
    made.health.stop()


def test_only_archives_with_replicas_and_these_are_asked(here: Here) -> None:
    here.health.check()
    assert here.asked == ["pacs", "replica"]
    assert here.health.states() == {"pacs": True, "replica": True}


def test_all_are_asked_if_that_is_wanted(here: Here) -> None:
    here.settings = replace(here.settings, check=Check.ALL)
    here.health.check()
    assert here.asked == ["pacs", "replica", "alone"]


def test_two_failures_in_a_row_make_it_down_and_two_successes_up_again(here: Here) -> None:
    here.problems = {"pacs": EchoFailed("connection refused")}
    here.health.check()
    assert not here.health.is_down("pacs")
    here.health.check()
    assert here.health.is_down("pacs")
    assert not here.health.is_down("replica")
    here.health.check()
    assert here.events == [
        DegradedEntered(component="archive", archive="pacs", state="down", detail="connection refused")
    ]
    here.problems = {}
    here.health.check()
    assert here.health.is_down("pacs")
    here.health.check()
    assert not here.health.is_down("pacs")
    assert here.events[1:] == [DegradedLeft(component="archive", archive="pacs")]


def test_one_failure_now_and_then_is_nothing(here: Here) -> None:
    for _ in range(3):
        here.problems = {"pacs": EchoFailed("busy")}
        here.health.check()
        here.problems = {}
        here.health.check()
    assert here.events == []


def test_archive_that_says_no_is_there(here: Here) -> None:
    here.problems = {"pacs": EchoRejected("calling AE title not recognised")}
    here.health.check()
    here.health.check()
    assert not here.health.is_down("pacs")


def test_nobody_is_down_where_nobody_is_asked_any_more(here: Here) -> None:
    here.problems = {"pacs": EchoFailed("connection refused")}
    here.health.check()
    here.health.check()
    here.settings = replace(here.settings, check=Check.OFF)
    here.health.check()
    assert not here.health.is_down("pacs")
    assert here.health.states() == {}


def test_first_failure_and_a_call_that_failed_are_followed_up_soon(here: Here) -> None:
    """The interval is an hour here."""
    here.health.start()
    here.wait(lambda: here.asked.count("replica") >= 1)
    here.problems = {"pacs": EchoFailed("connection refused")}
    here.health.call_failed()
    here.wait(lambda: here.asked.count("pacs") >= 3)
    here.health.stop()
    assert here.health.is_down("pacs")


def test_defect_does_not_end_the_asking(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    here.problems = {"pacs": RuntimeError("a defect")}
    here.health.start()
    here.wait(lambda: here.asked.count("pacs") >= 1)
    here.problems = {}
    here.health.call_failed()
    here.wait(lambda: here.asked.count("replica") >= 1)
    assert "could not be asked" in caplog.text


def test_settings_are_those_of_the_file() -> None:
    text = '[health]\ncheck = "all"\ninterval_seconds = 7\ntimeout_seconds = 2\n'
    assert health_settings(parse_settings(text, path=Path("x.toml"))) == HealthSettings(
        interval=7.0, timeout=2.0, check=Check.ALL
    )


def test_question_is_a_c_echo_of_the_gateway_itself(tmp_path: Path) -> None:
    with raw_archive() as archive:
        target = archive_at(archive.endpoint)
        with running(tmp_path / "gateway", target) as world:
            ask_archive(world.gate, world.settings, target, SECONDS)
            plain = replace(target, endpoint=Endpoint(host="192.0.2.1", port=104))
            with pytest.raises(EchoFailed, match="no TLS"):
                ask_archive(world.gate, world.settings, plain, SECONDS)
