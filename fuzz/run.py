"""Run every fuzz target, each in a process of its own; exit 0 only if no promise was broken."""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("targets", nargs="*", help="names without fuzz_ and .py (default: all)")
    options = parser.parse_args()
    found = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))
    if unknown := set(options.targets) - set(found):
        parser.error(f"there is no target {', '.join(sorted(unknown))}; the targets are {', '.join(found)}")
    broken = []
    for name in options.targets or found:
        print(f"fuzz {name}: {options.seconds} s", file=sys.stderr, flush=True)
        # libFuzzer ends a target that takes longer than 10 s or 1 GiB for one input.
        command = [HERE / f"fuzz_{name}.py", f"-max_total_time={options.seconds}", "-timeout=10", "-rss_limit_mb=1024"]
        if subprocess.run([sys.executable, *command], check=False).returncode:
            broken.append(name)
    print(f"broken: {', '.join(broken)}" if broken else "no promise was broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
