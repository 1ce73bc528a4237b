"""What a run found: sections with their tables and checks, as Markdown for people and as JSON for later comparison."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One required figure and what was measured; `met` is None where it did not run."""

    required: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return "NOT RUN" if self.met is None else "met" if self.met else "NOT MET"


@dataclass(slots=True, kw_only=True)
class Section:
    """One table of the report; `samples` are the raw figures by name, in the order in which they were taken."""

    target: str
    title: str
    columns: Sequence[str]
    lines: list[Sequence[str]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: dict[str, list[float]] = field(default_factory=dict)

    def require(self, required: str, measured: str, met: bool | None) -> None:
        """Add a check."""
        self.checks.append(Check(required=required, measured=measured, met=met))

    def markdown(self) -> str:
        """Return the section as Markdown."""
        parts = [f"### {self.target}: {self.title}", "", _table(self.columns, self.lines)]
        if self.checks:
            parts += ["", *(f"- {c.required}: {c.measured}: **{c.verdict}**" for c in self.checks)]
        if self.notes:
            parts += ["", *(f"*{note}*  " for note in self.notes)]
        return "\n".join(parts)


@dataclass(slots=True, kw_only=True)
class Report:
    """All sections of a run, and where it ran."""

    sections: list[Section] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        """Return the whole report: the summary first."""
        summary = [
            (section.target, section.title, check.required, check.measured, check.verdict)
            for section in self.sections
            for check in section.checks
        ]
        parts = [
            "## Results",
            "",
            f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC. "
            + "; ".join(f"{k} {v}" for k, v in self.machine.items())
            + ".",
            *(f"\n*{note}*" for note in self.notes),
        ]
        if summary:
            parts += ["", _table(("", "what", "required", "measured", "result"), summary)]
        parts += [f"\n{section.markdown()}" for section in self.sections]
        return "\n".join(parts) + "\n"

    def write(self, directory: Path) -> Path:
        """Write Markdown and JSON; return the path of the Markdown."""
        directory.mkdir(parents=True, exist_ok=True)
        stem = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        content = {"machine": self.machine, "notes": self.notes, "sections": [asdict(s) for s in self.sections]}
        (directory / f"{stem}.json").write_text(json.dumps(content, indent=1, default=list))
        path = directory / f"{stem}.md"
        path.write_text(self.markdown())
        return path

    @property
    def is_met(self) -> bool:
        """Say if every check was run and met."""
        return all(check.met for section in self.sections for check in section.checks)


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def fill_document(document: Path, report: Report) -> None:
    """Put the report between the two marks of docs/performance.md. Raises ValueError when the marks are missing."""
    text = document.read_text()
    before, begin, rest = text.partition("<!-- bench:begin -->\n")
    _, end, after = rest.partition("<!-- bench:end -->")
    if not begin or not end:
        raise ValueError(f"{document.name} has no <!-- bench:begin --> and <!-- bench:end --> lines")
    document.write_text(before + begin + report.markdown() + end + after)


def describe_machine() -> dict[str, str]:
    """Return processor, kernel and the versions of everything that is compared."""
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "CPU": f"{len(cpu)} x {cpu[0] if cpu else platform.machine()}",
        "kernel": platform.release(),
        "Python": platform.python_version() + (" of Debian" if sys.base_prefix == "/usr" else ""),
        "haproxy": _version("/usr/sbin/haproxy", "-v"),
        "nginx": _version("/usr/sbin/nginx", "-v"),
        "DCMTK": _version("/usr/bin/storescu", "--version"),
        "Orthanc": _version("/usr/sbin/Orthanc", "--version"),
        "OpenSSL": _openssl(),
        "load before": Path("/proc/loadavg").read_text().split()[0],
    }


def _version(*command: str) -> str:
    try:
        said = subprocess.run(command, capture_output=True, timeout=10, check=False, text=True)
    except OSError:
        return "not installed"
    first = (said.stdout + said.stderr).strip().splitlines() or [""]
    return next((word.strip("v,") for word in first[0].replace("/", " ").split() if word.strip("v")[:1].isdigit()), "?")


def _openssl() -> str:
    import ssl

    return ssl.OPENSSL_VERSION.split()[1]


def say(text: str) -> None:
    """Tell who waits what happens now (stderr: the table alone goes to stdout)."""
    print(text, file=sys.stderr, flush=True)
