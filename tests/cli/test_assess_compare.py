"""`dicomward assess --compare`: what is printed, and the exit code."""

from dataclasses import replace
from pathlib import Path

from dicomward.assess.isolation import Verdict
from tests.assess.report_runs import SERVERS, controls, with_findings, write_run
from tests.cli.conftest import Run

OPEN = replace(SERVERS[2], vulnerabilities=())
CLOSED = with_findings(replace(OPEN, controls=controls(Verdict.PASS), counts=None))


def test_closed_is_0(run: Run, tmp_path: Path) -> None:
    old, new = write_run(tmp_path / "old", (OPEN,)), write_run(tmp_path / "new", (CLOSED,))
    done = run("assess", "--compare", old, new)
    assert done.code == 0
    assert done.out.splitlines()[-1] == "0 new, 0 changed, 0 open, 0 INCONCLUSIVE, 13 closed"


def test_open_is_1_also_in_json(run: Run, tmp_path: Path) -> None:
    old, new = write_run(tmp_path / "old", (OPEN,)), write_run(tmp_path / "new", (OPEN,))
    done = run("assess", "--compare", old, new, "--json")
    assert (done.code, done.json["all_closed"], done.json["counts"]["open"]) == (1, False, 13)


def test_server_that_is_gone_is_1(run: Run, tmp_path: Path) -> None:
    old, new = write_run(tmp_path / "old", (OPEN,)), write_run(tmp_path / "new", ())
    done = run("assess", "--json", "--compare", old, new)
    assert (done.code, done.json["counts"]["INCONCLUSIVE"]) == (1, 13)


def test_directory_without_a_run_is_refused(run: Run, tmp_path: Path) -> None:
    done = run("assess", "--compare", tmp_path, tmp_path)
    assert (done.code, done.out) == (1, "")
    assert "holds no assessment" in done.err


def test_one_directory_is_wrong_use(run: Run, tmp_path: Path) -> None:
    assert run("assess", "--compare", tmp_path).code == 2
