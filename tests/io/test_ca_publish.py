"""What was issued comes into force: many with one write."""

from pathlib import Path

import pytest

from dicomward.audit.chain import Record
from dicomward.audit.search import Query
from dicomward.io import ca_publish
from dicomward.io.audit_read import find_records
from dicomward.io.ca_publish import Publisher
from dicomward.io.registry_change import MOST_TOLD
from dicomward.io.registry_file import read_registry
from dicomward.io.registry_store import RegistryStore
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
    monkeypatch.setattr(ca_publish, "apply_change", lambda *_args: pytest.fail("nothing is left to do"))
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
