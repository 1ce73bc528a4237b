"""Check what the documents promise: links, tables, every reason code is listed, no machine's own paths slip in.

python tools/check_docs.py        exit 0 if all is well; else one line for each problem
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REASONS = ROOT / "docs" / "reason-codes.md"
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)|!\[[^\]\n]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]*`")
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
TABLE_BEGIN = re.compile(r"\|.*\n\|[-:| ]+\|\n")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
# Paths of somebody's machine and names of package registries have no place in the repository.
FOREIGN = re.compile(
    r"/(?:work|tmp/venv|root|home/\w+)/|\b(?:files\.pythonhosted|registry\.npmjs|pypi|deb\.debian)\.org\b"
)
TEXT = {".md", ".py", ".toml", ".sh", ".js", ".java", ".json", ".cfg", ".yml", ".yaml", ""}


def tracked_files() -> list[Path]:
    """Return the files of the repository: those of git, and new ones that git would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def anchors_of(text: str) -> set[str]:
    """Return the anchors that a reader of the page can jump to, as GitHub makes them of headings."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        number = 0
        unique = slug
        while unique in found:
            number += 1
            unique = f"{slug}-{number}"
        found.add(unique)
    return found


def broken_links(page: Path) -> Iterator[str]:
    """Yield each relative link that leads nowhere."""
    text = page.read_text("utf-8")
    prose = INLINE_CODE.sub("", FENCE.sub("", text))
    for pair in LINK.findall(prose):
        target = pair[0] or pair[1]
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page if not name else (page.parent / name).resolve()
        if not path.exists():
            yield f"{page.relative_to(ROOT)}: the link to {target} leads nowhere"
        elif anchor and path.suffix == ".md" and anchor not in anchors_of(path.read_text("utf-8")):
            yield f"{page.relative_to(ROOT)}: {target} names a heading that is not there"


def torn_tables(page: Path) -> Iterator[str]:
    """Yield each row that stands below an empty line or a text instead of the head of its table."""
    for rows in TABLE.findall(FENCE.sub("", page.read_text("utf-8"))):
        if not TABLE_BEGIN.match(rows):
            yield f"{page.relative_to(ROOT)}: this row is in no table: {rows[:60]}"


def unlisted_reasons() -> Iterator[str]:
    """Yield each reason code that docs/reason-codes.md doesn't list, and each that it lists and nobody has."""
    sys.path.insert(0, str(ROOT / "src"))
    from dicomward.vocab.reason import ReasonCode

    if not REASONS.exists():
        yield "docs/reason-codes.md is missing"
        return
    listed = set(re.findall(r"^\|\s*`([a-z0-9-]+)`", REASONS.read_text("utf-8"), re.MULTILINE))
    known = {str(reason) for reason in ReasonCode}
    for reason in sorted(known - listed):
        yield f"docs/reason-codes.md: `{reason}` is not listed; add a row that starts with | `{reason}` |"
    for reason in sorted(listed - known):
        yield f"docs/reason-codes.md: `{reason}` is listed, but no code has it"


def foreign_paths(path: Path) -> Iterator[str]:
    """Yield each line that names a path of one machine or a registry's host."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        return
    for number, line in enumerate(lines, 1):
        found = FOREIGN.search(line)
        if found:
            yield f"{path.relative_to(ROOT)}:{number}: {found[0]!r} belongs to one machine or to a registry"


def main() -> int:
    """Check everything."""
    files = tracked_files()
    problems = list(unlisted_reasons())
    for path in files:
        if path.suffix == ".md":
            problems += [*broken_links(path), *torn_tables(path)]
        if path.suffix in TEXT and path.resolve() != Path(__file__).resolve():
            problems += foreign_paths(path)
    for problem in problems:
        print(problem)
    print(f"docs: {sum(path.suffix == '.md' for path in files)} pages, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
