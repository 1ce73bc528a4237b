"""Reading tables of numbers, `[limits]` and `[budgets]`, as a TOML parser gives them; all problems are told at once."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from dicomward.vocab.nearest import nearest_name


@dataclass(frozen=True, slots=True)
class LimitProblem:
    """One thing that is wrong in the tables: where, what, and what to do."""

    location: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}; {self.hint}"


class LimitSettingsError(ValueError):
    """The tables can't be used; `problems` holds every reason."""

    def __init__(self, problems: tuple[LimitProblem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class TableReader:
    """Collects the problems; what is wrong is left out of what it returns.

    `what` is the word for one entry: "limit" or "budget". A `kind` is the dataclass that names the entries, and raises
    ValueError for a value that is not possible.
    """

    __slots__ = ("_what", "problems")

    def __init__(self, what: str) -> None:
        self._what = what
        self.problems: list[LimitProblem] = []

    def raise_problems(self) -> None:
        """Raise LimitSettingsError if there are any."""
        if self.problems:
            raise LimitSettingsError(tuple(self.problems))

    def table(self, value: object, location: str) -> Mapping[str, object]:
        """Return the table, an empty one for what is none."""
        if isinstance(value, Mapping):
            return value
        self.problems.append(
            LimitProblem(location, f"{value!r} is not a table", f"write [{location}] with {self._what}s in it")
        )
        return {}

    def entries(self, values: Mapping[str, object], location: str, kind: type[Any]) -> dict[str, Any]:
        """Return the entries of that kind, as the kind reads them."""
        known = tuple(item.name for item in fields(kind))
        good: dict[str, Any] = {}
        for name, value in values.items():
            place = f"{location}.{name}"
            if name not in known:
                near = nearest_name(name, known)
                hint = f"did you mean {near}?" if near else f"the {self._what}s are {', '.join(known)}"
                self.problems.append(LimitProblem(place, f"there is no such {self._what}", hint))
                continue
            try:
                good[name] = getattr(kind(**{name: value}), name)
            except ValueError as error:
                self.problems.append(LimitProblem(place, str(error), "correct the value"))
        return good

    def named(self, tables: Mapping[str, object], location: str, kind: type[Any]) -> dict[str, dict[str, Any]]:
        """Return the entries of each named table."""
        places = {name: f"{location}.{name}" for name in tables}
        return {
            name: self.entries(self.table(entry, places[name]), places[name], kind) for name, entry in tables.items()
        }
