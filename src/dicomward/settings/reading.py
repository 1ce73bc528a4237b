"""From the text of the file to the settings; every problem is located, and an unknown key is one."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from dicomward.dicom.limits import Limits
from dicomward.limits.budget_settings import BudgetSettings, parse_budgets
from dicomward.limits.settings import LimitSettings
from dicomward.limits.table_reader import LimitSettingsError
from dicomward.limits.tables import parse_limits
from dicomward.settings.canaries import CANARIES_KEY, parse_canaries
from dicomward.settings.kinds import SettingsError, SettingsProblem, WrongValueError, nearest_of
from dicomward.settings.people import find_people_problems
from dicomward.settings.sections import SECTIONS, Settings
from dicomward.settings.zones import ZONES_KEY, parse_zones

DICOM_LIMITS_TABLE: Final = "dicom"
BUDGETS_KEY: Final = "budgets"


def load_settings(path: Path) -> Settings:
    """Read the file. Raises SettingsError."""
    path = path.absolute()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        hint = "name it with --config FILE, or make one with: dicomward init DIR --pacs AET@HOST:PORT"
        raise SettingsError((SettingsProblem(str(path), "there is no such file", hint),)) from error
    except OSError as error:
        problem = SettingsProblem(str(path), f"it can't be read ({error.strerror})", "check the file and its rights")
        raise SettingsError((problem,)) from error
    except UnicodeDecodeError as error:
        raise SettingsError((SettingsProblem(str(path), "it is not UTF-8 text", "save it as UTF-8"),)) from error
    return parse_settings(text, path=path)


def parse_settings(text: str, *, path: Path) -> Settings:
    """Read the text of the file `path`, which is not opened. Raises SettingsError with all problems."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = SettingsProblem(path.name, f"it is not TOML: {error}", "correct the line that it names")
        raise SettingsError((problem,)) from error
    reader = _Reader(text, path)
    reader.check_known(document, "", (*SECTIONS, "limits", BUDGETS_KEY, ZONES_KEY, CANARIES_KEY))
    sections = {name: reader.section(name, kind, document.get(name, {})) for name, kind in SECTIONS.items()}
    limits, dicom_limits = reader.limits(document.get("limits", {}))
    budgets = reader.budgets(document.get(BUDGETS_KEY, {}))
    canaries = parse_canaries(document.get(CANARIES_KEY, []), reader.problem)
    zones = parse_zones(document.get(ZONES_KEY, []), reader.problem)
    settings = Settings(
        path=path,
        limits=limits,
        dicom_limits=dicom_limits,
        budgets=budgets,
        legacy_zones=zones,
        canaries=canaries,
        **sections,
    )
    reader.check_together(settings)
    if reader.problems:
        raise SettingsError(tuple(reader.problems))
    return settings


class _Reader:
    """Collects the problems; what is wrong keeps its default, so that the rest can be checked too."""

    def __init__(self, text: str, path: Path) -> None:
        self.problems: list[SettingsProblem] = []
        self._text = text
        self._path = path
        self._lines: dict[str, int] | None = None

    def problem(self, key: str, message: str, hint: str) -> None:
        """Note a problem of a key, with the line of the key or of the table around it."""
        if self._lines is None:
            self._lines = _lines_of_keys(self._text)
        nearest = key
        while nearest and nearest not in self._lines:
            nearest = nearest[: max(nearest.rfind("."), nearest.rfind("["), 0)]
        line = f":{self._lines[nearest]}" if nearest else ""
        self.problems.append(SettingsProblem(f"{self._path.name}{line}: {key}", message, hint))

    def table(self, value: object, name: str) -> Mapping[str, object]:
        """Return the table, or an empty one after noting that it is none."""
        if isinstance(value, dict):
            return value
        self.problem(name, f"{value!r} is not a table", f"write [{name}] on a line of its own, its settings below")
        return {}

    def check_known(self, table: Mapping[str, object], prefix: str, known: Iterable[str]) -> None:
        """Note every key that isn't known."""
        for key in table:
            if key not in known:
                self.problem(f"{prefix}{key}", "there is no such setting", nearest_of(key, known))

    def section(self, name: str, kind: type, value: object) -> Any:
        """Return the section as its dataclass."""
        table = self.table(value, name)
        known = {item.name: item.metadata for item in fields(kind)}
        self.check_known(table, f"{name}.", known)
        values: dict[str, object] = {}
        for key, metadata in known.items():
            try:
                values[key] = metadata["kind"].parse(table.get(key, metadata["default"]), self._path.parent)
            except WrongValueError as error:
                self.problem(f"{name}.{key}{error.inside}", error.message, error.hint)
        return kind(**values)

    def limits(self, value: object) -> tuple[LimitSettings, Limits]:
        """Return the rates and caps of `[limits]`, and the sizes of `[limits.dicom]`."""
        table = dict(self.table(value, "limits"))
        prefix = f"limits.{DICOM_LIMITS_TABLE}"
        sizes = self._sizes(self.table(table.pop(DICOM_LIMITS_TABLE, {}), prefix), f"{prefix}.")
        try:
            return parse_limits(table), sizes
        except LimitSettingsError as error:
            for problem in error.problems:
                self.problem(problem.location, problem.message, problem.hint)
            return LimitSettings(), sizes

    def budgets(self, value: object) -> BudgetSettings:
        """Return the budgets of `[budgets]`."""
        try:
            return parse_budgets(self.table(value, BUDGETS_KEY))
        except LimitSettingsError as error:
            for problem in error.problems:
                self.problem(problem.location, problem.message, problem.hint)
            return BudgetSettings()

    def _sizes(self, table: Mapping[str, object], prefix: str) -> Limits:
        known = {item.name: item.metadata["ceiling"] for item in fields(Limits)}
        self.check_known(table, prefix, known)
        good: dict[str, Any] = {}
        for key in table.keys() & known.keys():
            value: Any = table[key]
            try:
                Limits(**{key: value})
            except ValueError as error:
                self.problem(f"{prefix}{key}", str(error), f"write a whole number from 1 to {known[key]}")
            else:
                good[key] = value
        return Limits(**good)

    def check_together(self, settings: Settings) -> None:
        """Note values that are right alone and wrong together."""
        for key, message, hint in find_people_problems(settings.people):
            self.problem(f"people.{key}", message, hint)
        gateway = settings.gateway
        if gateway.listen == gateway.archive_listen and gateway.listen.port:
            self.problem(
                "gateway.archive_listen",
                f"it is the same as listen ({gateway.listen})",
                "give archives a port of their own: devices need TLS, archives often can't",
            )
        metrics = settings.metrics.listen
        if metrics is not None and metrics.port and metrics in (gateway.listen, gateway.archive_listen):
            self.problem(
                "metrics.listen",
                f"{metrics} is taken by devices or archives",
                'give monitoring a port of its own, as "127.0.0.1:9762"',
            )
        taken = [gateway.listen, gateway.archive_listen, settings.metrics.listen]
        for number, zone in enumerate(settings.legacy_zones):
            if zone.listen in taken and zone.listen.port:
                self.problem(
                    f"{ZONES_KEY}[{number}].listen",
                    f"something else listens on {zone.listen}",
                    "give the zone a port of its own",
                )
            taken.append(zone.listen)
        if gateway.handshake_deadline_unknown_seconds > gateway.handshake_deadline_registered_seconds:
            self.problem(
                "gateway.handshake_deadline_unknown_seconds",
                "strangers would get more time than registered devices",
                "make it at most handshake_deadline_registered_seconds",
            )


_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED_KEY: Final = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER_LINE: Final = re.compile(rf"\s*(\[\[?)\s*({_DOTTED_KEY})\s*\]")
_KEY_LINE: Final = re.compile(rf"\s*({_DOTTED_KEY})\s*=")


def _lines_of_keys(text: str) -> dict[str, int]:
    """Return the line of each key, written `table.key`; `[[list]]` entries are numbered `list[0]`.

    A good guess is enough: it only helps people to find the line.
    """
    lines: dict[str, int] = {}
    entries: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER_LINE.match(line):
            name = _plain_key(header[2])
            lines.setdefault(name, number)
            table = f"{name}."
            if header[1] == "[[":
                entry = entries[name] = entries.get(name, -1) + 1
                table = f"{name}[{entry}]."
                lines.setdefault(table[:-1], number)
        elif key := _KEY_LINE.match(line):
            lines.setdefault(f"{table}{_plain_key(key[1])}", number)
    return lines


def _plain_key(dotted: str) -> str:
    return ".".join(part.strip("\"'") for part in re.findall(_KEY, dotted))
