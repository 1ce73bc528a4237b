"""The CA is killed in the middle: what was answered is there, nothing is half there, no serial twice."""

import subprocess
import sys
from pathlib import Path

from sqlalchemy import select

from dicomward.io.registry.store import RegistryStore
from dicomward.io.registry.tables import CHANGES, ISSUED
from tests.io.ca_helpers import make_ca


def issue_until_killed(url: str, ca: Path, prefix: str, answers: int) -> set[tuple[str, str, str]]:
    """Return what a process has answered before it was killed."""
    command = [sys.executable, "-m", "tests.io.issue_forever", url, str(ca), prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(answers)]
        process.kill()
        lines += process.stdout.readlines()
    # The last line may have been cut.
    return {(parts[0], parts[1], parts[2]) for line in lines if line.endswith("\n") and len(parts := line.split()) == 3}


def test_kill_9_loses_nothing_and_leaves_nothing_half_issued(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    RegistryStore.open(url, create=True).close()
    ca = make_ca(tmp_path / "ca").path
    answered: set[tuple[str, str, str]] = set()
    for prefix in ("a", "b"):
        answered |= issue_until_killed(url, ca, prefix, 12)
    assert len(answered) >= 24
    with RegistryStore.open(url) as store:
        snapshot = store.read()
        with store.reading() as connection:
            rows = connection.execute(select(ISSUED.c.serial, ISSUED.c.sha256, ISSUED.c.device)).all()
            revisions = list(connection.execute(select(CHANGES.c.revision).order_by(CHANGES.c.revision)).scalars())
    issued = {(row[0], row[1], row[2]) for row in rows}
    assert len(issued) == len(rows) == len({row[0] for row in rows})
    assert answered <= issued
    bound = {(each.serial, each.sha256, device.name) for device in snapshot.devices for each in device.certificates}
    assert bound == issued
    assert revisions == list(range(1, len(rows) + 1))
    assert snapshot.revision == len(rows)
