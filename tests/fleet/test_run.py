"""The small fleet: every figure exact from the wire, also when the worker is killed; DCMTK gets the same numbers."""

import json
import os
import subprocess
import sys

import pytest
from fleet.manifest import generate, read_manifest

from tests.docs.pages import ROOT
from tests.io.count_peers import archive, serving, simulated
from tests.real.servers import DCMTK, need


def fleet(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleet.run", "--manifest", "fleet/small.toml", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.parametrize("options", [(), ("--workers", "2", "--lease", "4")], ids=["one process", "two workers"])
def test_small_fleet_is_found_exactly_although_all_are_killed_twice(options: tuple[str, ...]) -> None:
    done = fleet("--json", *options, "--kill-at", "0.2", "--kill-at", "0.5", "--seed", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["exact"]
    assert found["kills"] == 2
    assert found["lower_bounds"] == 0
    figures = {name: value["found"] for name, value in found["figures"].items()}
    by_country = figures.pop("by_country")
    controls = figures.pop("controls")
    assert controls["tls-required"] == {"FAIL": 51, "PASS": 9}
    assert controls["tls-offered"] == {"FAIL": 49, "PASS": 11}
    assert controls["client-certificate"] == {"FAIL": 8, "NOT_RUN": 51, "PASS": 1}
    assert controls["calling-ae-title"] == {"FAIL": 55, "INCONCLUSIVE": 3, "NOT_RUN": 1, "PASS": 1}
    assert controls["called-ae-title"] == {"FAIL": 53, "INCONCLUSIVE": 1, "NOT_RUN": 1, "PASS": 5}
    assert sum(figures.pop("products").values()) == 60
    assert figures == {
        "servers": 60, "countries": 12, "leaking": 18, "authorised": 2,
        "records": 5900, "personal": 1600, "medical": 4300, "tampering": 3930,
    }  # fmt: skip
    assert (by_country["IN"], by_country["US"], by_country["ZA"]) == (960, 800, 730)


def test_wrong_manifest_is_wrong_use() -> None:
    done = fleet("--manifest", "missing.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "missing.toml" in done.stderr


@pytest.mark.real
@pytest.mark.parametrize("studies", [0, 7, 613])
def test_findscu_gets_the_same_number_of_matches(studies: int) -> None:
    findscu = need(DCMTK / "findscu", "dcmtk")
    server = archive(studies=studies, patients=max(1, studies // 3), kind="leaking" if studies else "empty", days=90)
    keys = ["QueryRetrieveLevel=STUDY", "PatientName", "PatientID", "StudyDate", "StudyInstanceUID", "StudyDescription"]
    with serving(simulated(server)) as port:
        done = subprocess.run(
            [findscu, "-S", *(word for key in keys for word in ("-k", key)), "127.0.0.1", str(port)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert (done.stdout + done.stderr).count("(0020,000d)") == studies


@pytest.mark.real
@pytest.mark.parametrize(
    ("key", "matches"),
    [
        ("StudyInstanceUID=1.2.826.0.1.3680043.8.498.000000000612", 1),
        ("StudyInstanceUID=1.2.826.0.1.3680043.8.498.000000000613", 0),
        ("StudyInstanceUID=2.25.1", 0),
        ("PatientID=0000000003", 7),
        ("PatientID=0000000100", 0),
        ("PatientID=NOBODY", 0),
    ],
)
def test_findscu_gets_what_its_keys_name(key: str, matches: int) -> None:
    findscu = need(DCMTK / "findscu", "dcmtk")
    with serving(simulated(archive(studies=613, patients=100, days=90))) as port:
        command = [
            str(findscu),
            "-S",
            "-k",
            "QueryRetrieveLevel=STUDY",
            "-k",
            "PatientName",
            "-k",
            key,
            "127.0.0.1",
            str(port),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout + done.stderr).count("(0010,0010)") == matches


def test_products_differ() -> None:
    servers = generate(read_manifest(ROOT / "fleet" / "small.toml"), 1)
    assert len({each.product for each in servers}) >= 5
