"""What was issued comes into force: many with one write."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.audit.chain import Record
from dicomward.audit.search import Query
from dicomward.io.audit.read import find_records
from dicomward.io.ca import publish as ca_publish
from dicomward.io.ca.publish import Publisher, bring_into_force, follow
from dicomward.io.registry.change import MOST_TOLD
from dicomward.io.registry.file import read_registry
from dicomward.io.registry.store import RegistryStore
from dicomward.settings import Settings
from tests.directory_helpers import copy_directory, now, running_gateway
from tests.io.ca_helpers import grant, issuer, make_ca, spki


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return copy_directory(tmp_path / "gateway")


def issue(settings: Settings, number: int) -> int:
    """Issue to so many devices; return the revision."""
    ca = make_ca(settings.enrolment.ca, now())
    with RegistryStore.open(settings.registry.url) as store:
        issuing = issuer(store, ca)
        return [issuing.issue(spki(), grant(f"d{each}"), now()).revision for each in range(number)][-1]


def test_a_gateway_that_starts_later_finds_everything(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(settings)
    revision = issue(settings, 3)
    assert publisher.publish(revision) is None
    assert read_registry(settings.registry.snapshot).revision == revision
    found = find_records(settings.audit.directory, Query(code="DW-REG-CHANGE"), None)
    members = [each.members for each in found if isinstance(each, Record)]
    assert [each["device"] for each in members if each["action"] == "enrol-device"] == ["d0", "d1", "d2"]
    # Who waited for an earlier one finds it done.
    monkeypatch.setattr(ca_publish, "put_in_force", lambda *_args: pytest.fail("nothing is left to do"))
    assert publisher.publish(revision - 1) is None


def test_a_running_gateway_is_told_in_few_messages(settings: Settings) -> None:
    number = MOST_TOLD + 3
    revision = issue(settings, number)
    with running_gateway(settings, {"ok": True, "aborted": 0}) as asked:
        assert Publisher(settings).publish(revision) is None
    assert len(asked) == 2
    earlier = asked[0]["earlier"]
    assert isinstance(earlier, list)
    assert len(earlier) == MOST_TOLD - 1
    with RegistryStore.open(settings.registry.url) as store:
        assert store.unaudited_changes() == ()


def test_what_is_not_in_force_is_told_and_tried_again(settings: Settings) -> None:
    revision = issue(settings, 1)
    publisher = Publisher(settings)
    with running_gateway(settings, {"ok": False, "error": "no"}):
        problem = publisher.publish(revision)
    assert problem is not None
    assert "may not be in force" in problem
    assert publisher.publish(revision) is None


# --- a gateway elsewhere ---------------------------------------------------------------------------------------------


def elsewhere(settings: Settings) -> Settings:
    return replace(settings, enrolment=replace(settings.enrolment, gateway_elsewhere=True))


def test_a_gateway_elsewhere_follows_and_who_issued_waits_for_it(settings: Settings) -> None:
    revision = issue(settings, 2)
    over = threading.Event()
    reported: list[str] = []
    with ThreadPoolExecutor(1) as pool, running_gateway(settings, {"ok": True, "aborted": 0}) as asked:
        following = pool.submit(follow, settings, lambda _seconds: over.wait(0.01), reported.append)
        assert Publisher(elsewhere(settings)).publish(revision) is None
        over.set()
        following.result()
    assert (len(asked), reported) == (1, [])
    assert read_registry(settings.registry.snapshot).revision == revision


def test_nobody_who_follows_is_told(settings: Settings) -> None:
    revision = issue(settings, 1)
    problem = Publisher(elsewhere(settings), patience_seconds=0.05).publish(revision)
    assert problem is not None
    assert "dicomward device sync --follow" in problem
    assert read_registry(settings.registry.snapshot).revision < revision


def test_a_database_that_is_away_is_told(settings: Settings) -> None:
    gone = elsewhere(settings)
    (settings.directory / "registry.db").unlink()
    assert "there is no registry" in (Publisher(gone).publish(1) or "")
    assert "there is no registry" in (bring_into_force(settings) or "")


def test_what_is_wrong_is_reported_once_and_tried_again(settings: Settings) -> None:
    issue(settings, 1)
    reported: list[str] = []
    rounds = iter([False, False, True])
    with running_gateway(settings, {"ok": False, "error": "no"}, {"ok": False, "error": "no"}, {"ok": True}) as asked:
        follow(settings, lambda _seconds: next(rounds), reported.append)
    assert len(asked) == 3
    assert len(reported) == 1
    assert bring_into_force(settings) is None
