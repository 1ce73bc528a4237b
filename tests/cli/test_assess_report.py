"""`dicomward assess report`: files, stdout, and what is said when it can't be."""

import json
import sys
from pathlib import Path

import pytest

from dicomward.cli.main import join_command
from tests.assess.report_runs import GUARDED, SERVERS, write_run
from tests.cli.conftest import Run


@pytest.fixture
def assessed(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (["assess", "report", "d"], ["assess report", "d"]),
        (["assess", "--compare", "a", "b"], ["assess --compare", "a", "b"]),
        (["assess", "--json", "--compare", "a", "b"], ["assess --compare", "--json", "a", "b"]),
        (["assess", "scope.toml", "--out", "report"], ["assess", "scope.toml", "--out", "report"]),
        (["device", "report"], ["device", "report"]),
        (["--version"], ["--version"]),
        ([], []),
    ],
)
def test_commands_of_two_words(words: list[str], joined: list[str]) -> None:
    assert join_command(words) == joined


def test_html_is_the_default_and_lies_beside_the_run(run: Run, assessed: Path) -> None:
    done = run("assess", "report", assessed)
    assert (done.code, done.out) == (0, f"{assessed / 'report.html'}\n")
    assert (assessed / "report.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_pdf(run: Run, assessed: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.pdf"
    done = run("assess", "report", assessed, "--format", "pdf", "--out", out, "--json")
    assert (done.code, done.json) == (0, {"files": [str(out)]})
    assert out.read_bytes().startswith(b"%PDF-")


def test_pdf_without_typst_is_refused_with_what_to_do(
    run: Run, assessed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    done = run("assess", "report", assessed, "--format", "pdf")
    assert (done.code, done.out) == (1, "")
    assert "pip install 'dicomward[pdf]'" in done.err
    assert not (assessed / "report.pdf").exists()


def test_json_goes_to_stdout_or_to_a_file(run: Run, assessed: Path, tmp_path: Path) -> None:
    done = run("assess", "report", assessed, "--format", "json")
    assert (done.code, done.json["totals"]["servers_reached"]) == (0, 9)
    out = run("assess", "report", assessed, "--format", "json", "--out", tmp_path)
    assert out.out == f"{tmp_path / 'report.json'}\n"
    assert json.loads((tmp_path / "report.json").read_text("utf-8")) == done.json


def test_csv_and_html_on_stdout(run: Run, assessed: Path) -> None:
    assert run("assess", "report", assessed, "--format", "csv").out.startswith("server,site,country,")
    assert run("assess", "report", assessed, "--format", "html", "--out", "-").out.startswith("<!DOCTYPE html>")


def test_shared_hides_addresses_unless_they_are_asked_for(run: Run, assessed: Path) -> None:
    shared = run("assess", "report", assessed, "--format", "json", "--shared")
    assert shared.json["shared"] is True
    assert "203.0.113" not in shared.out
    assert '"<5"' in shared.out
    asked = run("assess", "report", assessed, "--format", "json", "--shared", "--addresses")
    assert "203.0.113" in asked.out


def test_advisories_are_files_of_their_own(run: Run, assessed: Path) -> None:
    done = run(
        "assess", "report", assessed, "--format", "csaf", "--publisher", "CERT", "--namespace", "https://c.example"
    )
    assert done.code == 0
    paths = [Path(line) for line in done.out.splitlines()]
    assert len(paths) == 2
    document = json.loads(paths[0].read_text("utf-8"))["document"]
    assert document["publisher"]["name"] == "CERT"
    assert document["tracking"]["current_release_date"].endswith("+00:00")


def test_no_product_is_said(run: Run, tmp_path: Path) -> None:
    done = run("assess", "report", write_run(tmp_path / "r", (GUARDED,)), "--format", "csaf", "--json")
    assert (done.code, done.out) == (0, "")
    assert "no product was recognised" in done.err


def test_plan_says_where_it_is(run: Run, assessed: Path) -> None:
    done = run("assess", "report", assessed, "--format", "plan")
    gateways = 7
    assert done.out == f"{assessed / 'plan' / 'plan.md'}: {2 + 3 * gateways} files\n"


def test_generated_files_pass_the_checks(run: Run, tmp_path: Path) -> None:
    """The commands of the plan, but for the gateway itself."""
    servers = (SERVERS[0], SERVERS[6])
    draft = tmp_path / "devices.toml"
    draft.write_text('[[device]]\nname = "ct1"\nae_titles = ["CT1"]\nrole = "modality"\nnetworks = ["10.0.0.0/24"]\n')
    assessed = write_run(tmp_path / "run", servers)
    assert run("assess", "report", assessed, "--format", "plan", "--devices", draft, "--out", tmp_path / "p").code == 0
    steps = json.loads((tmp_path / "p" / "plan.json").read_text("utf-8"))["steps"]
    gateways = [step for step in steps if step["files"]]
    assert len(gateways) == 2
    for step in gateways:
        directory = (tmp_path / "p" / step["files"][0]).parent
        config = directory / "gw" / "dicomward.toml"
        words = step["commands"][0].removeprefix("dicomward ").split()
        words[1] = str(tmp_path / "p" / words[1])
        assert run(*words).code == 0
        for name in ("dicomward.toml", "policy.toml"):
            (config.parent / name).write_bytes((directory / name).read_bytes())
        checked = run("check-config", "--config", config)
        assert checked.code == 0, checked.out + checked.err
        assert run("policy", "check", "--config", config).code == 0
        imported = run("device", "import", directory / "registry-draft.toml", "--dry-run", "--config", config)
        assert imported.code == 0, imported.err
        assert "is registered already" in imported.out
        assert "ct1" in imported.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--devices", "x.toml"), "--devices belongs to --format plan"),
        (("--format", "plan", "--out", "-"), "makes several files"),
        (("--format", "plan", "--devices", "missing.toml"), "missing.toml can't be read"),
        (("--format", "doc"), "there is no 'doc'"),
    ],
)
def test_wrong_use_is_2(run: Run, assessed: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run("assess", "report", assessed, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_draft_with_mistakes_is_2(run: Run, assessed: Path, tmp_path: Path) -> None:
    draft = tmp_path / "devices.toml"
    draft.write_text("[[device]]\nname = 1\n")
    done = run("assess", "report", assessed, "--format", "plan", "--devices", draft)
    assert (done.code, "name is not a text" in done.err) == (2, True)


def test_file_in_the_place_of_a_directory_is_2(run: Run, assessed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("assess", "report", assessed, "--format", "csaf", "--out", tmp_path / "file")
    assert (done.code, "is not a directory" in done.err) == (2, True)


def test_directory_without_an_assessment_is_refused(run: Run, tmp_path: Path) -> None:
    done = run("assess", "report", tmp_path)
    assert (done.code, "holds no assessment" in done.err) == (1, True)
