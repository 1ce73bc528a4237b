"""Print what a release consists of: an SBOM (CycloneDX 1.6, JSON), or the list of licences.

    python tools/sbom.py > sbom.json
    python tools/sbom.py --licences

Versions and hashes are those of requirements/runtime.lock; licences are what the installed packages say of themselves.
"""

import argparse
import importlib.metadata
import json
import os
import re
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "runtime.lock"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"#\s+(?:via\s+)?([A-Za-z0-9._-]+)")


@dataclass(frozen=True, slots=True)
class Package:
    """One locked package."""

    name: str
    version: str
    hashes: tuple[str, ...]
    wanted_by: tuple[str, ...]

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:pypi/{canonical(self.name)}@{self.version}"


def canonical(name: str) -> str:
    """Return a package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str) -> list[Package]:
    """Read a lock file."""
    found: list[Package] = []
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
    for block in blocks:
        pin = _PIN.match(block)
        if pin is None:
            continue
        via = [_VIA.search(line) for line in block.splitlines() if line.lstrip().startswith("#")]
        names = tuple(sorted({match[1] for match in via if match and match[1] != "via"}))
        found.append(Package(canonical(pin[1]), pin[2], tuple(_HASH.findall(block)), names))
    return found


def licence_of(name: str) -> str:
    """Return what the installed package says of its licence; "unknown" if it is not installed or says nothing."""
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [each.rpartition(" :: ")[2] for each in metadata.get_all("Classifier") or () if "License ::" in each]
    short = (metadata.get("License") or "").strip()
    return ", ".join(classifiers) or (short if short and "\n" not in short else "unknown")


def _time() -> datetime:
    """Return the time of the release: SOURCE_DATE_EPOCH where it is set, so that the same tree gives the same bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(epoch or time.time()), UTC)


def sbom(packages: list[Package], version: str) -> dict[str, object]:
    """Return the SBOM."""
    ours = f"pkg:pypi/dicomward@{version}"
    by_name = {package.name: package for package in packages}
    needs: dict[str, list[str]] = {ours: [], **{package.purl: [] for package in packages}}
    for package in packages:
        for wanting in package.wanted_by:
            parent = by_name.get(canonical(wanting))
            needs[parent.purl if parent else ours].append(package.purl)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ours + ''.join(p.purl for p in packages))}",
        "version": 1,
        "metadata": {
            "timestamp": _time().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": ours,
                "name": "dicomward",
                "version": version,
                "purl": ours,
                "licenses": [{"expression": "Apache-2.0"}],
            },
        },
        "components": [
            {
                "type": "library",
                "bom-ref": package.purl,
                "name": package.name,
                "version": package.version,
                "purl": package.purl,
                "licenses": [{"license": {"name": licence_of(package.name)}}],
                # Of every file that may be installed; one of them is, by platform.
                "properties": [{"name": "dicomward:sha256", "value": each} for each in package.hashes],
            }
            for package in packages
        ],
        "dependencies": [{"ref": ref, "dependsOn": sorted(set(on))} for ref, on in needs.items()],
    }


def licences(packages: list[Package]) -> str:
    """Return the list as a Markdown table."""
    rows = [f"| {package.name} | {package.version} | {licence_of(package.name)} |" for package in packages]
    return "\n".join(["| package | version | licence |", "|---|---|---|", *rows]) + "\n"


def our_version() -> str:
    """Return the version of this tree."""
    text = (ROOT / "src" / "dicomward" / "__init__.py").read_text("utf-8")
    found = re.search(r'__version__ = "(.+?)"', text)
    if found is None:
        raise SystemExit("src/dicomward/__init__.py states no version")
    return found[1]


def main() -> int:
    """Print one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--licences", action="store_true", help="the list of licences instead")
    options = parser.parse_args()
    packages = read_lock(LOCK.read_text("utf-8"))
    print(licences(packages) if options.licences else json.dumps(sbom(packages, our_version()), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
