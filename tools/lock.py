"""Lock the dependencies: every version, with the hashes of its files, for every platform.

    make lock

requirements/runtime.lock is what a gateway needs (with PostgreSQL and PKCS #11); development.lock is everything.
`pip install --require-hashes -r requirements/runtime.lock` then installs exactly that, or nothing.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {"runtime": ["--extra=postgresql", "--extra=pkcs11"], "development": ["--all-extras"]}


def main() -> int:
    """Write both files; exit 1 if one can't be resolved."""
    for name, extras in LOCKS.items():
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
        command += ["--python-version=3.11", "--no-header", "--upgrade", *extras, "pyproject.toml"]
        if subprocess.run([*command, "-o", f"requirements/{name}.lock"], cwd=ROOT, check=False).returncode:
            print(f"requirements/{name}.lock could not be made: its reason stands above", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
