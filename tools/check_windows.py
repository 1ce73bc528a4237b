"""Check that what runs on Windows uses nothing that Windows' Python does not have.

    python tools/check_windows.py

mypy looks at the commands of an edge agent and at everything that they import, also late, as if this were Windows: its
stubs know which names of `os`, `socket`, `select` and the others are missing there. Exit code 1 if one is used.
"""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
COMMANDS = ("dicomward.cli.main", "dicomward.cli.edge", "dicomward.cli.enroll", "dicomward.cli.echo")
# What the gateway alone does in modules that these commands import, and the calls of Linux themselves.
NOT_THERE = {
    "dicomward.io.system.posix": "chosen on other systems only",
    "dicomward.io.control": "the control socket of a gateway",
}


def path_of(module: str) -> Path | None:
    """Return the file of a module, if it is one of ours."""
    base = SOURCE / module.replace(".", "/")
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imported_by(path: Path) -> set[str]:
    """Return every name that a file imports, anywhere in it, as `module` and `module.name`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def reachable() -> dict[str, Path]:
    """Return the modules that the commands can come to import, and their files."""
    found: dict[str, Path] = {}
    waiting = list(COMMANDS)
    while waiting:
        module = waiting.pop()
        path = path_of(module)
        if module in found or path is None:
            continue
        found[module] = path
        if module not in NOT_THERE:
            waiting += imported_by(path)
    return found


def main() -> int:
    """Run mypy; 1 if it finds something."""
    files = [str(path) for module, path in sorted(reachable().items()) if module not in NOT_THERE]
    command = [sys.executable, "-m", "mypy", "--platform", "win32", "--python-version", "3.12"]
    done = subprocess.run([*command, "--cache-dir", ".mypy_cache/windows", *files], cwd=ROOT, check=False)
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
