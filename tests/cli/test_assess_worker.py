"""`dicomward assess --database` and `dicomward assess worker`: several processes, one of them killed, one result."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dicomward.cli.assess import database_url
from dicomward.cli.main import main
from dicomward.io.assess.shards import ShardError, ShardStore
from tests.cli.test_assess import Place
from tests.io.count_peers import archive, serving, simulated

COMMAND = (sys.executable, "-m", "dicomward.cli.main", "assess")


@contextmanager
def servers(number: int) -> Iterator[list[str]]:
    with ExitStack() as stack:
        addresses = [f"127.0.5.{n}" for n in range(1, number + 1)]
        yield [
            f"{each}:{stack.enter_context(serving(simulated(archive(patients=n, studies=3 * n)), each))}"
            for n, each in enumerate(addresses, 1)
        ]


def place_of(directory: Path, targets: list[str]) -> Place:
    (directory / "targets.txt").write_text("\n".join(targets))
    place = Place(directory, 1, cidr="127.0.5.0/24", more='targets = ["targets.txt"]')
    text = place.scope.read_text().replace('site = "Main"', 'site = "Main"\ncounting = true')
    place.scope.write_text(text + "rate_probe = 0\nslow_floor = 30\n")
    return place


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("postgresql://u@h/n", "postgresql+psycopg://u@h/n"),
        ("postgres://u@h/n", "postgresql+psycopg://u@h/n"),
        ("postgresql+psycopg://u@h/n", "postgresql+psycopg://u@h/n"),
        ("sqlite:///x.db", "sqlite:///x.db"),
        ("run/x.db", "sqlite:///run/x.db"),
        ("/run/x.db", "sqlite:////run/x.db"),
    ],
)
def test_spellings_of_a_database(text: str, url: str) -> None:
    assert database_url(text) == url


def test_run_is_shared_with_workers_of_which_one_is_killed(tmp_path: Path) -> None:
    database = tmp_path / "shared.sqlite"
    with servers(8) as targets:
        place = place_of(tmp_path, targets)
        share = ["--confirm", place.hash, "--database", str(database), "--lease", "1"]
        main_command = [*COMMAND, str(place.scope), "--out", str(place.out), *share]
        # The first process fills the database, and dies at its work.
        with subprocess.Popen([*main_command, "--json"], stdout=subprocess.DEVNULL, env=dict(os.environ)) as first:
            while first.poll() is None:
                if database.exists() and ShardStore(database_url(str(database))).value("filled_at"):
                    first.send_signal(signal.SIGKILL)
                    break
        worker = [*COMMAND, "worker", str(place.scope), "--out", str(tmp_path / "w"), *share]
        done = subprocess.run(worker, capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ))
        assert (done.returncode, done.stdout) == (0, "8 of 8 hosts done by all workers\n"), done.stderr
        collected = subprocess.run(
            [*main_command, "--resume", "--json"],
            capture_output=True, text=True, check=True, timeout=60, env=dict(os.environ),
        )  # fmt: skip
    result = json.loads(collected.stdout)
    assert result["hosts"] == {"done": 8, "total": 8}
    assert sorted(each["counts"]["patients"]["value"] for each in result["servers"]) == list(range(1, 9))
    assert main(["assess", "report", str(place.out), "--format", "json", "--out", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["totals"]["records"]["value"] == 4 * 36
    for each in (place.out, tmp_path / "w"):
        assert main(["audit", "verify", "--directory", str(each / "audit")]) == 0


def test_worker_is_refused_where_there_is_no_such_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = place_of(tmp_path, ["127.0.5.1:1"])
    share = ["--confirm", place.hash, "--database", str(tmp_path / "x.sqlite")]
    worker = ["assess", "worker", str(place.scope), "--out", str(tmp_path / "w"), *share]
    assert main(worker) == 1
    assert "holds no assessment yet" in capsys.readouterr().err
    assert main(["assess", str(place.scope), "--out", str(place.out), *share, "--resume"]) == 1
    assert "begin one without --resume" in capsys.readouterr().err
    assert main(["assess", str(place.scope), "--out", str(place.out), *share]) == 0
    capsys.readouterr()
    assert main(["assess", str(place.scope), "--out", str(place.out), *share]) == 1
    assert "go on by --resume" in capsys.readouterr().err
    assert main(["assess", str(place.scope), "--out", str(tmp_path / "b"), *share]) == 1
    assert "take part in it by `assess worker`" in capsys.readouterr().err
    assert main([*worker, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"hosts": {"done": 1, "total": 1}, "stopped": None}
    store = ShardStore(database_url(str(tmp_path / "x.sqlite")))
    store.set_value("stopped_by", "worker x: the stop file")
    assert main(worker) == 1
    assert "was stopped by worker x" in capsys.readouterr().err
    store.set_value("scope_sha256", "0" * 64)
    store.close()
    assert main(worker) == 1
    assert "another scope" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--database", "nonsense://x"], 1, "can't be used"),
        (["--database", "missing/x.sqlite"], 1, "unable to open"),
        (["--database", "x.sqlite", "--lease", "0"], 2, "--lease must be"),
    ],
)
def test_wrong_databases(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    place = place_of(tmp_path, ["127.0.5.1:1"])
    assert place.run(*options) == code
    assert said in capsys.readouterr().err


def test_stop_file_of_the_first_process_stops_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = place_of(tmp_path, ["127.0.5.1:1"])
    place.out.mkdir()
    (place.out / "STOP").touch()
    assert place.run("--database", str(tmp_path / "x.sqlite")) == 1
    assert "stop file" in capsys.readouterr().err
    (place.out / "STOP").unlink()
    assert place.run("--database", str(tmp_path / "x.sqlite"), "--resume") == 0


def test_database_that_fails_at_work_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ShardStore, worker: str, *, may_count: bool = True) -> None:
        raise ShardError("the database can't be used: it was shut down")

    place = place_of(tmp_path, ["127.0.5.1:1"])
    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "lease", fail)
        assert place.run("--database", str(tmp_path / "x.sqlite")) == 1
    assert "it was shut down; nothing is lost" in capsys.readouterr().err
    assert place.run("--database", str(tmp_path / "x.sqlite"), "--resume") == 0
