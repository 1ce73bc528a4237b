"""`dicomward gateway`: what it prints, how it ends, and what it says when it can't start."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomward.settings import Settings, parse_host_port
from tests.cli.conftest import Run
from tests.degraded.place import Place, Process, process
from tests.io.world import RawArchive, raw_archive


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """The command sets up the root logger for its process."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "place", archive)
    yield made
    made.close()


def test_it_says_where_it_listens_serves_and_ends_with_0(place: Place) -> None:
    with process(place) as started:
        peer = place.peer().established()
        assert peer.echo() == 0
        peer.release()
        place.close()
        assert started.stop() == 0


def test_it_listens_within_half_a_second_of_its_own_time(place: Place) -> None:
    """Processor time, since a busy machine says nothing about the gateway; heavy imports would show at once."""
    with process(place) as started:
        ticks = Path(f"/proc/{started.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        seconds = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
        assert seconds < 0.6
        heavy = {"sqlalchemy", "pydicom", "pydantic", "typer", "alembic", "asyncio"}
        maps = Path(f"/proc/{started.process.pid}/maps").read_text()
        assert not {name for name in heavy if f"/{name}/" in maps}
        assert started.stop() == 0


def test_data_goes_to_stdout_and_logs_to_stderr(place: Place) -> None:
    made = Process(place)
    assert made.process.stdout is not None
    made.process.send_signal(signal.SIGTERM)
    assert made.process.stdout.read() == b""
    assert made._over() == 0


@pytest.mark.parametrize("verbose", [False, True])
def test_in_this_process_it_ends_by_a_signal(run: Run, settings: Settings, verbose: bool) -> None:
    timer = threading.Timer(0, lambda: None)
    printed: list[str] = []

    def stop_when_it_listens() -> None:
        # The control socket comes before the handler is needed: the handler is installed first of all.
        path = settings.gateway.state_directory / "control.sock"
        wait = threading.Event()
        while not path.exists():
            wait.wait(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    timer.function = stop_when_it_listens
    timer.start()
    outcome = run("gateway", *(["--verbose"] if verbose else []))
    timer.join()
    assert outcome.code == 0
    printed += outcome.out.splitlines()
    assert len(printed) == 1
    assert parse_host_port(printed[0].removeprefix("listening on ")).port > 0


def test_configuration_that_cannot_be_used_is_code_2(run: Run, settings: Settings) -> None:
    settings.policy.file.write_text("nonsense")
    outcome = run("gateway")
    assert (outcome.code, outcome.out) == (2, "")
    assert "check-config" in outcome.err


def test_missing_configuration_is_code_2(run: Run, tmp_path: Path) -> None:
    outcome = run("gateway", "--config", tmp_path / "missing.toml")
    assert (outcome.code, outcome.out) == (2, "")


def test_port_that_is_taken_is_code_1(run: Run, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = settings.path.read_text().replace('listen = "127.0.0.1:0"', f'listen = "127.0.0.1:{port}"', 1)
        settings.path.write_text(text)
        outcome = run("gateway")
    assert (outcome.code, outcome.out) == (1, "")
    assert "can't listen on" in outcome.err


def test_second_gateway_is_code_1_and_the_first_goes_on(place: Place, run: Run) -> None:
    with process(place) as started:
        outcome = run("gateway", "--config", place.settings.path)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err
        assert place.peer().established().echo() == 0
        place.close()
        assert started.stop() == 0


def test_sighup_is_ignored_until_everything_is_loaded(run: Run, tmp_path: Path) -> None:
    """Its default would end the process, and a service manager may send it at any time."""
    before = signal.getsignal(signal.SIGHUP)
    try:
        assert run("gateway", "--config", tmp_path / "nowhere.toml").code == 2
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
