"""What a release is made of: locked, listed, reproducible, signed; and that a running gateway calls nobody else."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.real.clients import Pynetdicom
from tests.real.hospital import hospital
from tests.real.processes import LOOPBACK, REPOSITORY
from tests.real.samples import sample

REQUIREMENTS = REPOSITORY / "requirements"
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
PIN = re.compile(r"^([a-z0-9.-]+)(?:\[[^\]]*\])?==\S+", re.MULTILINE)


def blocks(name: str) -> dict[str, str]:
    """Return the block of each package in a lock file."""
    text = (REQUIREMENTS / f"{name}.lock").read_text("utf-8")
    found = re.split(r"\n(?=[a-z0-9])", text)
    return {match[1]: block for block in found if (match := PIN.match(block))}


def release(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(REPOSITORY / "tools" / "release.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["runtime", "development"])
def test_every_locked_package_has_hashes(name: str) -> None:
    locked = blocks(name)
    assert len(locked) >= 10
    assert [package for package, block in locked.items() if not HASH.search(block)] == []


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]

    def names(wanted: list[str]) -> set[str]:
        return {re.split(r"[\[<>=! ]", each)[0].lower().replace("_", "-").replace(".", "-") for each in wanted}

    ours = [
        each for name, extra in extras.items() if name not in {"test", "check", "fuzz", "release"} for each in extra
    ]
    runtime = names(project["dependencies"] + ours)
    assert runtime <= set(blocks("runtime"))
    assert names([each for extra in extras.values() for each in extra]) <= set(blocks("development"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("release") / "dist"
    done = release("build", "--output", output)
    assert done.returncode == 0, done.stderr
    return output


def test_wheel_is_reproducible(built: Path, tmp_path: Path) -> None:
    """The command itself builds twice and compares; a third build elsewhere is equal too."""
    assert release("build", "--output", tmp_path).returncode == 0
    assert (tmp_path / "SHA256SUMS").read_bytes() == (built / "SHA256SUMS").read_bytes()


def test_sbom_names_every_locked_package_and_its_licence(built: Path) -> None:
    bom = json.loads((built / "sbom.cdx.json").read_text("utf-8"))
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    components = {each["name"]: each for each in bom["components"]}
    assert set(components) == set(blocks("runtime"))
    references = {each["bom-ref"] for each in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
    assert {each["ref"] for each in bom["dependencies"]} == references
    assert {on for each in bom["dependencies"] for on in each["dependsOn"]} < references
    direct = next(each for each in bom["dependencies"] if each["ref"] == bom["metadata"]["component"]["bom-ref"])
    assert any("/cryptography@" in each for each in direct["dependsOn"])
    assert components["cryptography"]["licenses"][0]["license"]["name"] != "unknown"
    assert "| cryptography |" in (built / "licences.md").read_text("utf-8")


def test_signature_holds_until_anything_changes(built: Path, tmp_path: Path) -> None:
    key, public, other = tmp_path / "release.key", tmp_path / "release.pub", tmp_path / "other.pub"
    for private, shown in ((key, public), (tmp_path / "other.key", other)):
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", shown], check=True)
    assert release("verify", "--output", built, "--public", public).returncode == 1
    assert release("sign", "--output", built, "--key", key).returncode == 0
    assert release("verify", "--output", built, "--public", public).returncode == 0
    assert release("verify", "--output", built, "--public", other).returncode == 1
    licences = built / "licences.md"
    licences.write_text(licences.read_text("utf-8") + "\n", "utf-8")
    changed = release("verify", "--output", built, "--public", public)
    assert changed.returncode == 1
    assert "licences.md" in changed.stderr


HOOK = """
import os, sys

def hook(name, arguments):
    if name in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "urllib.Request"):
        target = arguments[1] if name in ("socket.connect", "socket.sendto") else arguments[:2]
        with open(os.environ["CALLS"], "a") as calls:
            calls.write(f"{name} {target!r}\\n")

sys.addaudithook(hook)
"""


def test_running_gateway_calls_the_archive_and_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK, "utf-8")
    calls = tmp_path / "calls"
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("PYTHONPATH", f"{hooks}:{REPOSITORY / 'src'}")
    with hospital(tmp_path) as here:
        route = here.device("scanner", "SCANNER")
        assert Pynetdicom().store(route, [sample("CT_small.dcm")]).succeeded
        here.gateway.must("reload")
        archive = here.archive.port
    found = set(calls.read_text("utf-8").splitlines())
    to_archive = f"socket.connect ('{LOOPBACK}', {archive})"
    assert to_archive in found
    strange = [
        call
        for call in found
        # The archive, its name, and the control socket of our own commands.
        if call != to_archive and f"'{LOOPBACK}'" not in call and "control" not in call
    ]
    assert strange == []
