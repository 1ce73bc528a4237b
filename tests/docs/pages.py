"""The pages of the repository, and what stands in them."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")

_FENCE: Final = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    """Return a page of docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


def pages() -> list[Path]:
    """Return every page that people read: those beside the README and those in docs/."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def blocks_of(text: str, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return [body for name, body in _FENCE.findall(text) if name == language]


def section_of(text: str, title: str) -> str:
    """Return what stands between a heading and the next one of the same or a higher level."""
    match = re.search(rf"^(#+) {re.escape(title)}$\n(.*?)(?=^#{{1,6}} |\Z)", text, re.MULTILINE | re.DOTALL)
    if match is None:
        raise AssertionError(f"there is no heading {title!r}")
    return match[2]


def rows_of(section: str) -> list[tuple[str, ...]]:
    """Return the cells of each table row that starts with a word in code."""
    lines = [line.strip() for line in section.splitlines() if line.startswith("| `")]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))) for line in lines]
