"""Break glass on a running gateway: in force when the command returns, over a restart, with a degraded log."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomward.cli.main import main
from tests.degraded.place import Place, application, process
from tests.degraded.test_audit import Failing, degrade, find
from tests.io.world import RawArchive, raw_archive

DENIED = 0x0124


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "gateway", archive)
    made.configure(second_sink=tmp_path / "second.jsonl")
    made.settings.policy.file.write_text(ONLY_ECHO, encoding="utf-8")
    yield made
    made.close()


ONLY_ECHO = """
[[rule]]
id = "echo-and-worklist"
effect = "allow"
device = ["ct1"]
service = ["verification", "worklist"]

[[rule]]
id = "one-query-level"
effect = "allow"
device = ["ct1"]
service = ["query"]
query_level = ["PATIENT"]
"""


def bypass(place: Place, *words: str) -> int:
    return main(["bypass", *words, "--config", str(place.settings.path)])


def waived(place: Place) -> list[tuple[str, object, object]]:
    return [
        (str(record["code"]), record["rule_ids"], record["waived"])
        for record in place.records()
        if record.get("waived") and record["code"] == "DW-OP-ALLOW"
    ]


def test_open_association_passes_when_the_command_returns_and_is_refused_when_it_is_closed(place: Place) -> None:
    with application(place):
        peer = place.peer().established()
        assert find(peer) == DENIED
        assert bypass(place, "open", "--device", "ct1", "--reason", "night") == 0
        assert find(peer, 51) == 0
        assert bypass(place, "close") == 0
        assert find(peer, 52) == DENIED
    ((code, rule_ids, reasons),) = waived(place)
    assert code == "DW-OP-ALLOW"
    assert isinstance(rule_ids, list)
    assert rule_ids[-1].startswith("bypass:")
    assert reasons == ["query-level-not-allowed"]


def test_it_survives_the_death_of_the_gateway_and_a_registry_database_that_is_gone(place: Place) -> None:
    (place.settings.directory / "registry.db").unlink(missing_ok=True)
    with process(place) as first:
        assert bypass(place, "open", "--device", "ct1", "--reason", "night") == 0
        first.kill()
    with process(place) as second:
        assert find(place.peer().established()) == 0
        assert "emergency bypass" in second.log
        assert bypass(place, "list") == 0
        place.close()
        second.stop()
    reasons = [record.get("reason") for record in place.records() if record["code"] == "DW-SEC-ALERT"]
    assert reasons.count("bypass-opened") == 1
    assert "bypass-open" in reasons


def test_it_opens_and_lifts_the_floor_while_the_audit_log_is_degraded(place: Place) -> None:
    with application(place) as app:
        peer = place.peer().established()
        degrade(Failing(app), peer)
        assert find(peer) == DENIED
        assert bypass(place, "open", "--device", "ct1", "--reason", "night, and the disk is full") == 0
        assert find(peer, 51) == 0
    second = place.settings.audit.second_sink
    assert second is not None
    text = second.read_text()
    assert '"reason":"bypass-opened"' in text
    assert '"waived":["clinical-floor-only"]' in text
