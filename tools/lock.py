"""Lock the dependencies: every version, with the hashes of its files, for every platform.

    make lock

requirements/runtime.lock is what the package needs, with all its extras; development.lock is everything.
`pip install --require-hashes -r requirements/runtime.lock` then installs exactly that, or nothing.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Extras of those who develop; the rest is for those who run it.
DEVELOPMENT = {"test", "check", "fuzz", "release"}


def main() -> int:
    """Write both files; exit 1 if one can't be resolved."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    runtime = [f"--extra={extra}" for extra in project["optional-dependencies"] if extra not in DEVELOPMENT]
    for name, extras in {"runtime": runtime, "development": ["--all-extras"]}.items():
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
        command += ["--python-version=3.11", "--no-header", "--upgrade", *extras, "pyproject.toml"]
        if subprocess.run([*command, "-o", f"requirements/{name}.lock"], cwd=ROOT, check=False).returncode:
            print(f"requirements/{name}.lock could not be made: its reason stands above", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
