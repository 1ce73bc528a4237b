"""Make a release in dist/, sign it, verify it.

    python tools/release.py build                        the wheel (built twice, and equal), SBOM, licences, SHA256SUMS
    python tools/release.py sign --key release.key       SHA256SUMS.sig (Ed25519, by openssl)
    python tools/release.py verify --public release.pub  exit 0 only if the signature and every hash are right

A key: openssl genpkey -algorithm ed25519 -out release.key; openssl pkey -in release.key -pubout -out release.pub
The time in the files is SOURCE_DATE_EPOCH, by default that of the last commit.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUMS = "SHA256SUMS"


class ReleaseError(Exception):
    """A release that can't be made, or isn't what it says."""


def _epoch() -> str:
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        return epoch
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError("SOURCE_DATE_EPOCH is not set, and there is no git history to take the time from")
    return done.stdout.strip()


def _run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ReleaseError(f"{' '.join(map(str, command[:4]))} ... failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def wheel(directory: Path, epoch: str) -> Path:
    """Build the wheel from a fresh copy of the tree, whose place and times differ each time."""
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        tree.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, tree / name)
        shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        _run(*command, "--wheel-dir", directory, tree, SOURCE_DATE_EPOCH=epoch, PYTHONPATH="")
    return next(directory.glob("dicomward-*.whl"))


def build(output: Path) -> None:
    """Build everything, and prove that the wheel is reproducible."""
    epoch = _epoch()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        first, second = wheel(Path(one), epoch), wheel(Path(two), epoch)
        if first.read_bytes() != second.read_bytes():
            raise ReleaseError("two builds of the wheel differ")
        shutil.copy(first, output / first.name)
    sbom = [sys.executable, ROOT / "tools" / "sbom.py"]
    (output / "sbom.cdx.json").write_text(_run(*sbom, SOURCE_DATE_EPOCH=epoch), "utf-8")
    (output / "licences.md").write_text(_run(*sbom, "--licences"), "utf-8")
    shutil.copy(ROOT / "requirements" / "runtime.lock", output / "runtime.lock")
    names = sorted([first.name, "sbom.cdx.json", "licences.md", "runtime.lock"])
    (output / SUMS).write_text("".join(f"{_sha256(output / name)}  {name}\n" for name in names), "utf-8")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sign(output: Path, key: Path) -> None:
    """Sign SHA256SUMS, which names everything else."""
    sums = output / SUMS
    if not sums.exists():
        raise ReleaseError(f"{sums} is missing: build first")
    _run(
        "openssl",
        "pkeyutl",
        "-sign",
        "-rawin",
        "-inkey",
        key.resolve(),
        "-in",
        sums.resolve(),
        "-out",
        f"{sums.resolve()}.sig",
    )


def verify(output: Path, public: Path) -> None:
    """Raise ReleaseError unless the signature is by this key and every file is the one that was signed."""
    sums = output / SUMS
    signature = output / f"{SUMS}.sig"
    for path in (sums, signature):
        if not path.exists():
            raise ReleaseError(f"{path} is missing")
    where = ("-in", sums.resolve(), "-sigfile", signature.resolve())
    _run("openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public.resolve(), *where)
    for line in sums.read_text("utf-8").splitlines():
        wanted, _, name = line.partition("  ")
        path = output / name
        if not path.exists() or _sha256(path) != wanted:
            raise ReleaseError(f"{path} is not the file that was signed")


def main() -> int:
    """Do one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("build", "sign", "verify"))
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--public", type=Path)
    options = parser.parse_args()
    try:
        match options.what:
            case "build":
                build(options.output)
            case "sign":
                if options.key is None:
                    parser.error("sign needs --key")
                sign(options.output, options.key)
            case _:
                if options.public is None:
                    parser.error("verify needs --public")
                verify(options.output, options.public)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(f"release: {options.what}: done, in {options.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
