"""Codes that an agent is given: read, used once, and never told."""

import logging
from pathlib import Path

import pytest

from dicomward.enrolment.code import Code, make_code
from dicomward.io.edge.codes import CodeBook, WrongCodeError, codes_given
from dicomward.settings.edge import EdgeSettings, parse_edge_settings
from tests.test_settings_edge import ENROLS, GOOD

ONE, TWO = make_code(bytes(14), b"root"), make_code(bytes(range(14)), b"root")
SECOND = '\n[[devices]]\nname = "mr1"\nae_titles = ["MR1"]\nlisten = "127.0.0.1:11113"\nstore = "pass-through"\n'


def settings(more: str = "") -> EdgeSettings:
    return parse_edge_settings(ENROLS + more, Path("/etc/edge/edge.toml"))


def wrong(*typed: str, more: str = "") -> str:
    with pytest.raises(WrongCodeError) as caught:
        codes_given(settings(more), typed)
    assert ONE.secret not in str(caught.value).replace("-", "")
    return str(caught.value)


def test_code_may_be_typed_in_many_ways() -> None:
    for text in (
        ONE.text,
        f"ct1={ONE.text}",
        f"ct1 = {ONE.text.lower().replace('-', ' ')}",
        f"dicomward://enroll?code={ONE.text}&server=https%3A%2F%2Fx",
        f"ct1=dicomward://enroll?code={ONE.text}",
    ):
        assert codes_given(settings(), [text]) == {"ct1": ONE}


def test_code_of_the_settings_gives_way_to_that_of_the_command_line() -> None:
    in_file = f'code = "{ONE.text}"\n'
    assert codes_given(settings(in_file), []) == {"ct1": ONE}
    assert codes_given(settings(in_file), [TWO.text]) == {"ct1": TWO}
    assert codes_given(settings(SECOND), [f"mr1={ONE.text}", f"ct1={TWO.text}"]) == {"mr1": ONE, "ct1": TWO}


def test_wrong_code_is_explained_without_it() -> None:
    assert "--code for ct1: there is a typing error" in wrong(ONE.text[:-1] + ("3" if ONE.text[-1] != "3" else "4"))
    assert "edge.toml: the code of ct1: a code has 40 characters" in wrong(more='code = "ABC"\n')
    assert "did you mean 'ct1'?" in wrong(f"ct={ONE.text}")
    assert "there are ct1" in wrong(f"xyz={ONE.text}")
    assert "there are two for ct1" in wrong(ONE.text, TWO.text)
    assert "say whose code it is, as NAME=CODE; there are ct1, mr1" in wrong(ONE.text, more=SECOND)
    with pytest.raises(WrongCodeError, match=r"no device gets its credential by itself: write \[enrolment\]"):
        codes_given(parse_edge_settings(GOOD + 'store = "pass-through"\n', Path("edge.toml")), [ONE.text])
    with pytest.raises(WrongCodeError, match=r"the credential of ct1 comes from files that edge\.toml names"):
        codes_given(parse_edge_settings(GOOD + 'store = "pass-through"\n', Path("edge.toml")), [f"ct1={ONE.text}"])


def book(tmp_path: Path, given: Code | None, *, file: bool = True) -> CodeBook:
    return CodeBook("ct1", tmp_path / "ct1", given, tmp_path / "code" if file else None)


def test_used_code_is_never_used_again_and_its_file_removed(tmp_path: Path) -> None:
    path = tmp_path / "code"
    path.write_text(f"\ufeff{ONE.text}\n", "utf-8")
    codes = book(tmp_path, None)
    assert codes.current() == ONE
    codes.spend(ONE)
    assert not path.exists()
    assert codes.current() is None
    # The next start, with the same command.
    again = book(tmp_path, ONE)
    assert again.current() is None
    path.write_text(TWO.text, "utf-8")
    assert again.current() == TWO
    assert ONE.secret not in "".join(each.read_text() for each in (tmp_path / "ct1").iterdir())


def test_code_of_the_command_line_comes_first_and_leaves_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "code").write_text(TWO.text, "utf-8")
    codes = book(tmp_path, ONE)
    assert codes.may_come
    codes.spend(ONE)
    assert codes.current() == TWO
    without = book(tmp_path, ONE, file=False)
    assert not without.may_come
    assert without.current() is None


def test_file_that_can_not_be_used_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "code").write_text("ABC", "utf-8")
    codes = book(tmp_path, None)
    with caplog.at_level(logging.ERROR):
        assert codes.current() is None
        assert codes.current() is None
    assert len(caplog.records) == 1
    assert "a code has 40 characters" in caplog.text


def test_file_that_stays_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").write_text(ONE.text, "utf-8")
    codes = book(tmp_path, None)

    def refuse(_path: Path) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "unlink", refuse)
    codes.spend(ONE)
    assert "the used code can't be removed" in caplog.text
    assert codes.current() is None


def test_refused_code_makes_way_for_another(tmp_path: Path) -> None:
    codes = book(tmp_path, ONE)
    codes.refuse(ONE)
    assert codes.current() is None
    (tmp_path / "code").write_text(TWO.text, "utf-8")
    assert codes.current() == TWO
    assert book(tmp_path, ONE).current() == ONE
