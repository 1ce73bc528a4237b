"""`dicomward assess` counts where the scope turns it on, nowhere else, and stops when it is told to."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fleet.server import Acceptor

from dicomward.assess.observation import ServerObservation
from dicomward.io.assess.count import with_place
from dicomward.io.assess.count_server import ServerCount
from tests.docs.pages import ROOT
from tests.io.count_peers import archive, serving, simulated


def assess(directory: Path, port: int, *options: str, counting: bool, code: int = 0) -> dict[str, Any]:
    today = datetime.now(UTC).date()  # noqa: TID251  the command has a real clock
    scope = directory / "scope.toml"
    scope.write_text(
        f"""
owner = "Clinic"
authorisation = "A-17"
contact = "it@clinic.example"
valid_from = {today}
valid_until = {today}
dimse_ports = [{port}]
web_ports = []
[[network]]
cidr = "127.0.0.1/32"
counting = {str(counting).lower()}
[pace]
rate_probe = 2
slow_floor = 5
"""
    )
    digest = sha256(scope.read_bytes()).hexdigest()
    arguments = ["assess", str(scope), "--out", str(directory / "out"), "--confirm", digest, "--json", *options]
    done = subprocess.run(
        [sys.executable, "-m", "dicomward.cli.main", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    (server,) = result["servers"]
    return dict(server)


def test_counts_are_part_of_the_observation_where_the_scope_turns_counting_on(tmp_path: Path) -> None:
    with serving(simulated(archive(patients=40, studies=123, days=60))) as port:
        seen = assess(tmp_path, port, counting=True)
    counts = seen["counts"]
    assert (counts["patients"]["value"], counts["studies"]["value"], counts["records"]["value"]) == (40, 123, 163)
    assert not counts["records"]["is_lower_bound"]
    assert any("123 studies" in each["evidence"] for each in seen["findings"])
    assert b"count: queries at study level" in b"".join(
        path.read_bytes() for path in (tmp_path / "out" / "audit").rglob("*") if path.is_file()
    )


class Watched(Acceptor):
    """Notes the queries that ask for names."""

    names: list[int] = []  # noqa: RUF012

    def _find(self) -> None:
        self.names.append(bytes(self._identifier).count(b"\x10\x00\x40\x10"))
        super()._find()


def test_nothing_is_counted_where_the_scope_does_not_turn_it_on(tmp_path: Path) -> None:
    Watched.names.clear()
    with serving(simulated(archive(), Watched)) as port:
        seen = assess(tmp_path, port, counting=False)
    assert seen["counts"] is None
    assert not any(Watched.names)


def test_guarded_server_is_not_counted(tmp_path: Path) -> None:
    with serving(simulated(archive(kind="guarded"))) as port:
        assert assess(tmp_path, port, counting=True)["counts"] is None


@pytest.mark.parametrize(("address", "country", "source"), [("8.8.8.8", "US", "registration"), ("127.0.0.1", "", "")])
def test_country_is_that_of_the_registration(address: str, country: str, source: str) -> None:
    seen = with_place(ServerObservation(address=address, port=104))
    assert (seen.country, seen.country_source) == (country, source)
    listed = ServerObservation(address=address, port=104, country="FR", country_source="site")
    assert with_place(listed) is listed
    assert ServerCount().storage_contexts == 0
