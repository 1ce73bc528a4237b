from dataclasses import dataclass

import pytest

from dicomward.limits.table_reader import LimitProblem, LimitSettingsError, TableReader


@dataclass
class Kind:
    apples: int = 1
    pears: str = ""

    def __post_init__(self) -> None:
        if self.apples == 0:
            raise ValueError("no apples")
        self.pears = self.pears.upper()


def test_problem_reads_as_one_line() -> None:
    assert str(LimitProblem("limits.x", "there is no such limit", "did you mean y?")) == (
        "limits.x: there is no such limit; did you mean y?"
    )


def test_what_is_right_is_returned_as_its_kind_reads_it() -> None:
    reader = TableReader("fruit")
    tables = {"a": {"apples": 3}, "b": {"pears": "x"}}
    assert reader.named(tables, "fruits.bowl", Kind) == {"a": {"apples": 3}, "b": {"pears": "X"}}
    reader.raise_problems()


def test_every_problem_is_told_with_its_place() -> None:
    reader = TableReader("fruit")
    assert reader.named({"a": 1, "b": {"aples": 1, "zzz": 1, "apples": 0}}, "fruits", Kind) == {"a": {}, "b": {}}
    with pytest.raises(LimitSettingsError) as found:
        reader.raise_problems()
    assert str(found.value).splitlines() == [
        "fruits.a: 1 is not a table; write [fruits.a] with fruits in it",
        "fruits.b.aples: there is no such fruit; did you mean apples?",
        "fruits.b.zzz: there is no such fruit; the fruits are apples, pears",
        "fruits.b.apples: no apples; correct the value",
    ]
