"""The fuzz targets run, and the harness notices a broken promise."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
TARGETS = sorted(FUZZ.glob("fuzz_*.py"))


def run(*command: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(FUZZ)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_there_is_a_target_for_each_decoder() -> None:
    assert {path.stem for path in TARGETS} >= {"fuzz_association", "fuzz_codec", "fuzz_dimse", "fuzz_head"}
    readme = (FUZZ / "README.md").read_text("utf-8")
    assert all(path.name in readme for path in TARGETS)


@pytest.mark.parametrize("target", TARGETS, ids=lambda path: path.stem)
def test_target_keeps_its_promise(target: Path, tmp_path: Path) -> None:
    done = run(target, "-runs=300", f"-seed={random.randrange(1, 1 << 30)}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", TARGETS, ids=lambda path: path.stem)
def test_target_takes_an_input_again(target: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    sample.write_bytes(b"\x01\x80garbage")
    assert run(target, sample, cwd=tmp_path).returncode == 0


BROKEN = """
import harness
def one_input(data):
    # Within reach of random mutations, since atheris is guided by the package's code only.
    if len(data) > 3 and data[:1] == b"b":
        raise KeyError("promise broken")
harness.main(one_input, [b"b"])
"""


def test_broken_promise_is_noticed_and_kept(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(BROKEN)
    done = run(script, "-runs=200000", "-seed=1", cwd=tmp_path)
    assert done.returncode != 0
    assert "promise broken" in done.stdout + done.stderr
    (crash,) = tmp_path.glob("crash-*")
    assert crash.read_bytes()[:1] == b"b"
    assert run(script, crash, cwd=tmp_path).returncode != 0


def test_unknown_target_is_a_usage_error(tmp_path: Path) -> None:
    done = run(FUZZ / "run.py", "nothing", cwd=tmp_path)
    assert done.returncode == 2
    assert "the targets are" in done.stderr
