"""What the report says of what ran, what did not, and what was missed."""

import json
from pathlib import Path

import pytest
from bench.report import Report, Section, fill_document


def section(*verdicts: bool | None) -> Section:
    made = Section(target="P0", title="an example", columns=("way", "MB/s"), lines=[("**dicomward**", "1")])
    for number, verdict in enumerate(verdicts):
        made.require(f"figure {number}", "1.0", verdict)
    return made


def test_summary_says_met_missed_and_not_run_apart() -> None:
    text = Report(sections=[section(True, False, None)]).markdown()
    assert "| P0 | an example | figure 0 | 1.0 | met |" in text
    assert "| P0 | an example | figure 1 | 1.0 | NOT MET |" in text
    assert "| P0 | an example | figure 2 | 1.0 | NOT RUN |" in text


@pytest.mark.parametrize(("verdicts", "met"), [((True, True), True), ((True, False), False), ((True, None), False)])
def test_what_did_not_run_never_counts_as_met(verdicts: tuple[bool | None, ...], met: bool) -> None:
    assert Report(sections=[section(*verdicts)]).is_met is met


def test_written_as_markdown_and_json(tmp_path: Path) -> None:
    made = section(True)
    made.samples["haproxy bytes/s"] = [1.0, 2.0]
    path = Report(sections=[made], machine={"CPU": "2 x test"}).write(tmp_path / "results")
    assert "| way | MB/s |" in path.read_text()
    stored = json.loads(path.with_suffix(".json").read_text())
    assert stored["sections"][0]["samples"] == {"haproxy bytes/s": [1.0, 2.0]}
    assert stored["machine"] == {"CPU": "2 x test"}


def test_document_is_filled_between_its_marks_and_only_there(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n")
    fill_document(document, Report(sections=[section(True)]))
    text = document.read_text()
    assert text.startswith("before\n<!-- bench:begin -->\n## Results")
    assert text.endswith("<!-- bench:end -->\nafter\n")
    assert "old" not in text


def test_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("no marks")
    with pytest.raises(ValueError, match="bench:begin"):
        fill_document(document, Report())
    assert document.read_text() == "no marks"
