"""Write the generated parts of docs/settings.md and docs/cli.md; tests compare them with the code.

Run it from the repository: PYTHONPATH=src python tools/generate_reference_docs.py
"""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from dicomward.cli.main import COMMANDS, build_parser
from dicomward.dicom.limits import Limits
from dicomward.limits.settings import ArchiveLimits, DeviceLimits, NetworkLimits, StrangerLimits
from dicomward.settings import SECTIONS, ZONE_KEYS

DOCS = Path(__file__).resolve().parent.parent / "docs"
SETTINGS_PAGE = DOCS / "settings.md"
CLI_PAGE = DOCS / "cli.md"

_BEGIN, _END = "<!-- generated: begin -->", "<!-- generated: end -->"


def replace_generated(page: str, text: str) -> str:
    """Return the page with the text between its two marks."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n\n{text}\n{_END}{after}"


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case Mapping():
            return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
        case str():
            return f'"{value}"'
        case _:
            return str(value)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


_LIMIT_TABLES: tuple[tuple[str, str, Any], ...] = (
    (
        "limits",
        "For every device; narrower tables win: `[limits.role.NAME]`, then `[limits.device.NAME]`.",
        DeviceLimits,
    ),
    ("limits.network", 'For every network; `[limits.network."198.51.100.0/24"]` for one.', NetworkLimits),
    ("limits.archive", "For every target; `[limits.archive.NAME]` for one.", ArchiveLimits),
    ("limits.strangers", "Delays after failures.", StrangerLimits),
)


def render_settings() -> str:
    """Return the tables of all settings."""
    parts: list[str] = []
    columns = ("setting", "type", "default", "unit", "change", "reason")
    for name, section in SECTIONS.items():
        described = [
            (
                f"`{item.name}`",
                item.metadata["kind"].name,
                f"`{_toml(item.metadata['default'])}`",
                item.metadata["unit"],
                "reload" if item.metadata["reload"] else "restart",
                item.metadata["reason"],
            )
            for item in fields(section)
        ]
        about = (section.__doc__ or "").partition(": ")[2]
        parts.append(f"## `[{name}]`\n\n{about[:1].upper()}{about[1:]}\n\n{_table(columns, described)}")
    zone_rows = [(f"`{name}`", kind, reason) for name, (kind, reason) in ZONE_KEYS.items()]
    about_zones = (
        "Plaintext listeners for who can't do TLS yet: [moving over](moving-over.md#legacy-zones); none by default."
    )
    parts.append(f"## `[[legacy_zones]]`\n\n{about_zones}\n\n{_table(('setting', 'type', 'meaning'), zone_rows)}")
    header = ("setting", "type", "default", "unit", "reason")
    for name, about, kind in _LIMIT_TABLES:
        rows = [
            (
                f"`{item.name}`",
                "whole number" if isinstance(item.default, int) else "number",
                f"`{item.default}`",
                item.metadata["unit"],
                item.metadata["reason"],
            )
            for item in fields(kind)
        ]
        parts.append(f"## `[{name}]`\n\n{about}\n\n{_table(header, rows)}")
    rows = [
        (
            f"`{item.name}`",
            f"whole number, 1 to {item.metadata['ceiling']}",
            f"`{item.default}`",
            "bytes" if item.name.endswith("_bytes") else "",
            item.metadata["reason"],
        )
        for item in fields(Limits)
    ]
    parts.append(f"## `[limits.dicom]`\n\nWhat one peer may make us read or hold.\n\n{_table(header, rows)}")
    return "\n".join(parts)


def _leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers that take arguments, in the order of their definition."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield parser
    for action in nested:
        for child in action.choices.values():
            yield from _leaves(child)


def _rows(parser: argparse.ArgumentParser) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        value = action.metavar or action.dest.upper()
        if action.choices is not None and action.metavar is None:
            value = " or ".join(map(str, action.choices))
        if not action.option_strings:
            name = f"`{value}`"
        elif action.nargs == 0:
            name = f"`{', '.join(action.option_strings)}`"
        else:
            name = f"`{', '.join(action.option_strings)} {value}`"
        notes = [str(action.help or "") % {"default": action.default}]
        if action.option_strings and action.required:
            notes.append("required")
        for group in parser._mutually_exclusive_groups:
            if action in group._group_actions:
                others = [f"`{other.option_strings[0]}`" for other in group._group_actions if other is not action]
                notes.append(f"{'either this or' if group.required else 'not with'} {' or '.join(others)}")
        if isinstance(action, argparse._AppendAction):
            notes.append("may be repeated")
        rows.append((name, re.sub(r"\s+", " ", "; ".join(notes))))
    return rows


def _is_of(prog: str, command: str) -> bool:
    """Return whether a parser is of this command, and not of a longer one as `assess report`."""
    names = [name for name in COMMANDS if f"{prog} ".startswith(f"dicomward {name} ")]
    return bool(names) and max(names, key=len) == command


def render_cli() -> str:
    """Return one table of arguments for each command."""
    parts: list[str] = []
    for command in COMMANDS:
        for leaf in _leaves(build_parser(command)):
            if not _is_of(leaf.prog, command):
                continue
            about = f"{leaf.description or ''}".strip()
            parts.append(f"## `{leaf.prog}`\n\n{about}\n\n{_table(('argument', 'meaning'), _rows(leaf))}")
    return "\n".join(parts)


def main() -> None:
    """Write both pages anew."""
    for page, text in ((SETTINGS_PAGE, render_settings()), (CLI_PAGE, render_cli())):
        page.write_text(replace_generated(page.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main()
