"""The state directory's disk is full, and a registry on PostgreSQL is gone: what goes on, and the way back."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomward.cli.main import main
from dicomward.dicom.pdu import AAssociateAc
from tests.degraded.place import Place, application, process
from tests.degraded.test_audit import _namespace
from tests.io.world import ALL, SECONDS, RawArchive, raw_archive
from tests.relay.wire import a_associate_rq, c_find_rq, c_store_rq, identifier, image, message


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "gateway", archive)
    yield made
    made.close()


def store(place: Place) -> int | None:
    peer = place.peer().established()
    peer.send(message(3, c_store_rq(2), image()))
    return peer.next_message().command.status


def can_read(place: Place) -> bool:
    """Say if a query passes: its context is accepted, and its status is a success."""
    peer = place.peer()
    accept = peer.associate(a_associate_rq(ALL))
    assert isinstance(accept, AAssociateAc), accept
    if 5 not in {context.context_id for context in accept.presentation_contexts if context.result == 0}:
        peer.release()
        return False
    peer.send(message(5, c_find_rq(2), identifier()))
    return peer.next_message().command.status == 0


def until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if holds():
            return True
    return False


def test_a_full_state_directory_leaves_the_floor_until_there_is_room(place: Place) -> None:
    """Budgets and commitments can't be kept on it; a real file system, full before the start."""
    run = place.settings.gateway.state_directory
    run.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size=1m,mode=700 tmpfs "{run}"'
    fill = f'{mount} && (cat /dev/zero > "{run}/filler"; true) 2>/dev/null && exec "$@"'
    with process(place, before=[*_namespace(), "sh", "-c", fill, "sh"]) as started:
        assert store(place) == 0
        assert not can_read(place)
        assert store(place) == 0
        # Its mounts are its own; this is the way in.
        Path(f"/proc/{started.process.pid}/root{run}/filler").unlink()
        assert until(lambda: can_read(place))
        place.close()
        assert started.stop() == 0
    told = [(each["code"], each.get("component")) for each in place.records()]
    assert ("DW-DEGR-ENTER", "budgets") in told
    assert ("DW-DEGR-LEAVE", "budgets") in told


def test_a_bypass_that_cannot_be_stored_opens_all_the_same_and_says_so(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """At night the disk is full as well: the patient comes first, and the record is in the audit log."""
    with application(place):
        directory = place.settings.gateway.state_directory / "bypass"
        if directory.exists():
            shutil.rmtree(directory)
        directory.write_text("in the way")
        words = [
            "bypass",
            "open",
            "--device",
            "ct1",
            "--reason",
            "night",
            "--config",
            str(place.settings.path),
            "--json",
        ]
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)["problem"]
    reasons = [record.get("reason") for record in place.records() if record["code"] == "DW-SEC-ALERT"]
    assert "bypass-opened" in reasons


def test_without_its_postgresql_registry_everything_works_but_changes(place: Place) -> None:
    pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed: pip install 'psycopg[binary]'")
    text = place.settings.path.read_text("utf-8")
    here = 'url = "sqlite:///registry.db"'
    assert here in text
    gone = 'url = "postgresql+psycopg://dicomward@/registry?host=/nowhere"'
    place.settings.path.write_text(text.replace(here, gone), "utf-8")
    with process(place) as started:
        assert store(place) == 0
        assert can_read(place)
        command = [sys.executable, "-m", "dicomward.cli.main", "device", "suspend", "ct1"]
        done = subprocess.run(
            [*command, "--config", str(place.settings.path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "registry" in done.stderr
        assert store(place) == 0
        place.close()
        assert started.stop() == 0
