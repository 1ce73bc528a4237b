"""A run on disk, and the files of plans and advisories."""

import json
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomward.assess.report_compare import Change
from dicomward.assess.report_csaf import Advisory
from dicomward.assess.report_plan import build_plan
from dicomward.assess.sites import read_sites
from dicomward.identity.draft import Draft, DraftDevice, parse_draft
from dicomward.io.assess.report_run import compare_directories, read_run, write_advisories, write_plan
from dicomward.io.assess.store import AssessStore, StoreError, TargetRow
from dicomward.policy import default_policy_text
from tests.assess.report_runs import FACTS, SERVERS, write_run

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)


def test_run_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    facts, observations = read_run(write_run(tmp_path / "run"))
    hosts = len({each.address for each in SERVERS})
    assert facts == replace(FACTS, hosts=hosts, hosts_done=hosts, excluded=1)
    assert set(observations) == set(SERVERS)


def test_run_is_placed_anew_by_a_list_of_sites(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SERVERS[:1])
    _, (seen,) = read_run(run, read_sites(f"{SERVERS[0].address}, NO, Ward"))
    assert (seen.country, seen.site, seen.country_source) == ("NO", "Ward", "site")


def test_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no assessment"):
        read_run(tmp_path)


def test_directories_are_compared_with_what_the_hosts_did(tmp_path: Path) -> None:
    old, new = write_run(tmp_path / "old", SERVERS[2:3]), write_run(tmp_path / "new", ())
    with AssessStore(new) as store:
        store.add_targets([TargetRow(address=SERVERS[2].address)])
        store.finish_host(SERVERS[2].address, [], "refused")
    comparison = compare_directories(old, new)
    assert {each.change for each in comparison.findings} == {Change.INCONCLUSIVE}
    assert "refused" in comparison.findings[0].why


def test_plan_has_the_files_of_each_gateway(tmp_path: Path) -> None:
    plan = build_plan(FACTS, SERVERS[:1])
    device = DraftDevice(name="ct1", ae_titles=("CT1",), role="modality", networks=("10.0.0.0/24",))
    written = write_plan(tmp_path / "plan", plan, Draft(devices=(device,)), NOW)
    directory = tmp_path / "plan" / "gateway-pacs.north.example-104"
    assert [path.relative_to(tmp_path / "plan").as_posix() for path in written] == [
        "plan.md",
        "plan.json",
        f"{directory.name}/dicomward.toml",
        f"{directory.name}/policy.toml",
        f"{directory.name}/registry-draft.toml",
    ]
    settings = tomllib.loads((directory / "dicomward.toml").read_text())
    assert settings["gateway"]["listen"] == "198.51.100.20:104"
    assert settings["gateway"]["archive_listen"] == "127.0.0.1:10105"
    assert (directory / "policy.toml").read_text() == default_policy_text()
    draft = parse_draft((directory / "registry-draft.toml").read_text())
    assert [each.name for each in draft.devices] == ["ct1"]
    assert json.loads(written[1].read_text())["steps"][0]["files"][0] == f"{directory.name}/dicomward.toml"


def test_plan_can_be_written_again(tmp_path: Path) -> None:
    plan = build_plan(FACTS, SERVERS)
    assert write_plan(tmp_path, plan, Draft(), NOW) == write_plan(tmp_path, plan, Draft(), NOW)


def test_advisories_have_the_names_that_csaf_asks_for(tmp_path: Path) -> None:
    (path,) = write_advisories(tmp_path / "csaf", [Advisory(file_name="dwa-1.json", document={"a": "ä"})])
    assert (path.name, json.loads(path.read_text("utf-8"))) == ("dwa-1.json", {"a": "ä"})
