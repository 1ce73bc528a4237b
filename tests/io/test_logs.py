"""Log lines: one a message, in the documented fields, and nothing that a peer sends can make another."""

import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dicomward.io import logs
from tests.docs.pages import read, rows_of, section_of


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(form: str, level: str = "info") -> tuple[io.StringIO, logging.Logger]:
    stream = io.StringIO()
    logs.configure(form, level, stream)
    return stream, logging.getLogger("dicomward.io.example")


def only(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_json_line_has_the_documented_fields() -> None:
    stream, log = lines("json")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("it %s", "failed", extra={"association": "0a1b"})
    found = only(stream)
    documented = {row[0].strip("`") for row in rows_of(section_of(read("monitoring.md"), "Log lines"))}
    assert set(found) == documented
    assert found["message"] == "it failed"
    assert found["association"] == "0a1b"
    assert found["level"] == "error"
    assert found["logger"] == "dicomward.io.example"
    assert "ValueError: why" in found["traceback"]
    assert datetime.fromisoformat(found["time"]).tzinfo is not None


def test_json_line_leaves_out_what_it_does_not_know() -> None:
    stream, log = lines("json")
    log.warning("plain")
    assert set(only(stream)) == {"time", "level", "logger", "message"}


@pytest.mark.parametrize("nasty", ["two\nlines", "carriage\rreturn", "\x1b[31mred", "next\u2028line", "ni\u0085el"])
@pytest.mark.parametrize("form", ["json", "text"])
def test_no_text_makes_a_line_of_its_own(form: str, nasty: str) -> None:
    stream, log = lines(form)
    log.info("peer says %s", nasty)
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text


def test_text_line_is_for_people() -> None:
    stream, log = lines("text")
    log.warning("disk %s", "full")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z WARNING dicomward\.io\.example: disk full\n", stream.getvalue())


def test_text_line_is_followed_by_its_traceback() -> None:
    stream, log = lines("text")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    assert stream.getvalue().splitlines()[-1] == "ValueError: why"


@pytest.mark.parametrize(("level", "written"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_level_is_the_least_that_is_written(level: str, written: int) -> None:
    stream, log = lines("text", level)
    for method in (log.debug, log.info, log.warning, log.error):
        method("x")
    assert len(stream.getvalue().splitlines()) == written


def test_standard_error_is_where_lines_go(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    logging.getLogger("dicomward").info("here")
    told = capsys.readouterr()
    assert told.out == ""
    assert json.loads(told.err)["message"] == "here"


def test_file_takes_the_lines_where_there_is_no_standard_error(tmp_path: Path) -> None:
    logs.configure_file("text", "info", tmp_path / "edge.log")
    logging.getLogger("dicomward").info("hère")
    (handler,) = logging.getLogger().handlers
    handler.close()
    assert (tmp_path / "edge.log").read_text("utf-8").endswith("INFO dicomward: hère\n")
    assert (handler.maxBytes, handler.backupCount) == (10 * 1024 * 1024, 9)  # type: ignore[attr-defined]
