"""`dicomward assess` counts where the scope turns it on, nowhere else, and stops when it is told to."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fleet.server import Acceptor

from dicomward.assess.plan import NO_STUDY
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.framing import encode_p_data
from tests.assess.identifiers import STUDY_ROOT, identifier, response
from tests.docs.pages import ROOT
from tests.io.count_peers import archive, serving, simulated

CANARIES = (b"CANARYNAME", b"CANARYADDRESS", b"CANARYPHONE", b"CANARYNUMBER", b"CANARYDIAGNOSIS", b"CANARYCOMMENT")


def write_scope(directory: Path, port: int, *, counting: bool, cidr: str = "127.0.0.1/32") -> Path:
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
cidr = "{cidr}"
counting = {str(counting).lower()}
[pace]
rate_probe = 2
slow_floor = 5
"""
    )
    return scope


def command(
    directory: Path, first: Path | str, *options: str, python: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    arguments = ["assess", str(first), *options]
    if isinstance(first, Path):
        digest = sha256(first.read_bytes()).hexdigest()
        arguments += ["--out", str(directory / "out"), "--confirm", digest]
    return subprocess.run(
        [sys.executable, *python, "-m", "dicomward.cli.main", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}", "TMPDIR": str(directory)},
        capture_output=True,
        check=False,
        timeout=60,
    )


def assess(directory: Path, port: int, *options: str, counting: bool) -> dict[str, Any]:
    done = command(directory, write_scope(directory, port, counting=counting), "--json", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    (server,) = json.loads(done.stdout)["servers"]
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


class Leaky(Acceptor):
    """Canaries in every value, in error comments, in what breaks off and in what is no DICOM at all."""

    broken = b""

    def _find(self) -> None:
        number = (self._command.message_id if self._command else None) or 0
        match = identifier(
            t00080020=b"20200101",
            t00081080=CANARIES[4],
            t00100010=CANARIES[0],
            t00100020=CANARIES[3],
            t00101040=CANARIES[1],
            t00102150=CANARIES[0],
            t00102154=CANARIES[2],
        )
        is_probe = NO_STUDY.encode() in self._identifier
        if not is_probe:
            self._connection.sendall(response(match, message_id=number) * 7 + response(match[:-3], message_id=number))
            self._connection.sendall(self.broken)
        final = CommandSet(
            command_field=0x8020,
            message_id_being_responded_to=number,
            affected_sop_class_uid=STUDY_ROOT,
            status=0 if is_probe else 0xC001,
            error_comment=CANARIES[5].decode(),
        )
        self._connection.sendall(encode_p_data(3, encode_command_set(final), 16_384, command=True))


class LeakyBroken(Leaky):
    broken = b"".join(CANARIES)


class LeakyCommand(Leaky):
    broken = encode_p_data(3, b"".join(CANARIES), 16_384, command=True)


def planted(places: dict[Path, bytes]) -> list[tuple[Path, bytes]]:
    """Return where a canary is, in any of the forms in which a value may be written."""
    found = []
    for path, data in places.items():
        for canary in CANARIES:
            forms = (canary, canary.hex().encode(), base64.b64encode(canary)[:10], canary.decode().encode("utf-16-le"))
            if any(form.lower() in data.lower() for form in forms):
                found.append((path, canary))
    return found


@pytest.mark.parametrize("shared", [False, True], ids=["one process", "shared"])
def test_no_value_reaches_output_logs_or_disk(shared: bool, tmp_path: Path) -> None:
    """All that the process may write is below its directory."""
    with ExitStack() as stack:
        addresses = [f"127.0.8.{n}" for n in (1, 2, 3)]
        targets = [
            f"{address}:{stack.enter_context(serving(simulated(archive(), kind), address))}"
            for address, kind in zip(addresses, (Leaky, LeakyBroken, LeakyCommand), strict=True)
        ]
        (tmp_path / "targets.txt").write_text("\n".join(targets))
        scope = write_scope(tmp_path, 1, counting=True, cidr="127.0.8.0/24")
        arguments = ["--targets", str(tmp_path / "targets.txt"), *(["--database", "shards.sqlite"] if shared else [])]
        done = command(tmp_path, scope, *arguments, "--json", python=("-X", "dev"))
    assert done.returncode == 0, done.stderr
    servers = json.loads(done.stdout)["servers"]
    assert [each["counts"]["patients"]["value"] for each in servers] == [1, 1, 1]
    reports = [command(tmp_path, "report", "out", "--format", each) for each in ("json", "html", "csv")]
    assert [each.returncode for each in reports] == [0, 0, 0]
    everything = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for number, each in enumerate([done, *reports]):
        everything |= {Path(f"stdout{number}"): each.stdout, Path(f"stderr{number}"): each.stderr}
    assert len(everything) >= 12
    assert planted(everything) == []
    assert planted({Path("a"): b"x" + CANARIES[0].lower()})


class Lasting(Acceptor):
    """Answers a count for as long as somebody listens, until `is_calm`."""

    begun = threading.Event()
    is_calm = threading.Event()

    def _find(self) -> None:
        if self.is_calm.is_set() or NO_STUDY.encode() in self._identifier:
            super()._find()
            return
        number = (self._command.message_id if self._command else None) or 0
        match = response(identifier(t00080020=b"20200101", t00100020=b"4711"), message_id=number)
        self.begun.set()
        while not self.is_calm.wait(0.01):
            self._connection.sendall(match)


def test_stop_file_ends_counting_in_the_middle_of_an_answer_and_resume_counts_again(tmp_path: Path) -> None:
    Lasting.begun.clear()
    Lasting.is_calm.clear()
    with serving(simulated(archive(patients=7, studies=23), Lasting)) as port:
        scope = write_scope(tmp_path, port, counting=True)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(command, tmp_path, scope, "--json")
            assert Lasting.begun.wait(50)
            began = time.monotonic()
            (tmp_path / "out" / "STOP").touch()
            stopped = running.result()
        assert time.monotonic() - began < 20
        assert stopped.returncode == 1
        assert b"stop file" in stopped.stderr
        result = json.loads(stopped.stdout)
        assert (result["hosts"], result["servers"][0]["counts"]) == ({"done": 0, "total": 1}, None)
        (tmp_path / "out" / "STOP").unlink()
        Lasting.is_calm.set()
        resumed = command(tmp_path, scope, "--json", "--resume")
    assert json.loads(resumed.stdout)["servers"][0]["counts"]["studies"] == {"value": 23, "is_lower_bound": False}
